"""Which files of the workspace a command names, so that an approval stands only while they are what they were."""

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Final

from stepgate.domain.errors import PathRefused, WorkspaceConflict
from stepgate.domain.policy.clarity import words_inside
from stepgate.domain.policy.globs import ANY_DEPTH
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.layers.layer import WORKSPACE
from stepgate.workspace.paths import check_relative, is_protected
from stepgate.workspace.states import node_at

MAX_NAMED: Final = 1000
UNREADABLE: Final = "unreadable"
_LINKS: Final = 8
_LONGEST: Final = 4096
"""Linux takes no longer path."""
_SEPARATORS: Final = re.compile(r"[=:,]")
_SHORT: Final = 2
_FLAGS: Final = 8
"""How many letters of options may stand together before a value: `-xzfkeys/a`."""
_EXPANDED: Final = re.compile(r"[*?\[$`{]|^~")
_GOING: Final = frozenset({"cd", "pushd", "-C", "--directory", "--chdir"})
_FOLDERS: Final = 8
_UNBOUNDED: Final = re.compile(r"[$`{]|^~")


def named_files(root: Root, argv: Sequence[str], shell: str | None, cwd: str) -> dict[str, str]:
    """sha256 by path of every regular file in the workspace that an argument, or a part of one, names.

    Links are followed inside the workspace and stand with `link:` and their target; a file that cannot be read is
    `unreadable`. Blocks while it reads; the first 1000 names count.
    """
    found: dict[str, str] = {}
    for name in command_paths(argv, shell, cwd):
        if len(found) >= MAX_NAMED:
            break
        path: str | None = name
        for _ in range(_LINKS):
            if path is None or path in found:
                break
            path = _look(root, path, found)
    return dict(sorted(found.items()))


def command_paths(argv: Sequence[str], shell: str | None, cwd: str) -> Iterator[str]:
    """Every path in the workspace that an argument, or a part of one, names, whether or not something is there."""
    seen = set[str]()
    for word in _words(argv, shell):
        path = None if word in seen else _beneath(word, cwd)
        seen.add(word)
        if path is not None:
            yield path


def open_words(argv: Sequence[str], shell: str | None, cwd: str) -> Iterator[str]:
    """Words that a shell may make paths in the workspace of, as globs; what may be anything is `**`."""
    inside = tuple(words_inside(argv, shell))
    for word in dict.fromkeys(word for word in chain(inside, _moved(inside)) if len(word) <= _LONGEST):
        path = posixpath.normpath(posixpath.join(WORKSPACE, cwd, word))
        if path == WORKSPACE or (_UNBOUNDED.search(word) and (".." in word or word.startswith(("$", "`", "~")))):
            yield ANY_DEPTH
        elif _EXPANDED.search(word):
            first, _, rest = path.removeprefix("/").partition("/")
            if rest and fnmatch.fnmatchcase(WORKSPACE.removeprefix("/"), first):
                yield rest


def _words(argv: Sequence[str], shell: str | None) -> Iterator[str]:
    inside = tuple(words_inside(argv, shell))
    for word in chain(argv, inside, _moved(argv), _moved(inside)):
        yield from _parts(word)


def _moved(words: Sequence[str]) -> Iterator[str]:
    """The words as they are seen from every folder that one of them may go to first."""
    folders: list[str] = []
    for before, word in pairwise(words):
        if before in _GOING:
            folders += [word, *(f"{folder}/{word}" for folder in folders)]
    folders += [word.partition("=")[2] for word in words if word.startswith("--directory=")]
    for folder in folders[:_FOLDERS]:
        yield from (f"{folder}/{word}" for word in words)


def _parts(word: str) -> Iterator[str]:
    """The word, what stands beside its separators, and what may be the value of an option written together."""
    for part in dict.fromkeys((word, *_SEPARATORS.split(word))):
        if len(part) > _LONGEST:
            continue
        yield part
        if len(part) > _SHORT and part[0] == "-" and part[1] != "-":
            yield from (part[start:] for start in range(_SHORT, min(len(part), _SHORT + _FLAGS)))
        elif part.startswith(("@", "+")):
            yield part[1:]


def _beneath(word: str, folder: str) -> str | None:
    """The path a word would name in the workspace, None where it cannot name a file there."""
    if not word or len(word) > _LONGEST:
        return None
    absolute = posixpath.normpath(posixpath.join(WORKSPACE, folder, word))
    path = absolute.removeprefix(f"{WORKSPACE}/")
    if path == absolute or is_protected(path):
        return None
    try:
        return check_relative(path)
    except PathRefused:
        return None


def _look(root: Root, path: str, found: dict[str, str]) -> str | None:
    """Notes what is at the path; returns where a link leads."""
    try:
        node = node_at(root, path)
    except (PathRefused, WorkspaceConflict):
        found[path] = UNREADABLE
        return None
    if node is None:
        return None
    if node.kind is Kind.SYMLINK and node.target is not None:
        found[path] = f"link:{node.target}"
        return _beneath(node.target, posixpath.dirname(path))
    if node.sha256 is not None:
        found[path] = node.sha256
    return None
