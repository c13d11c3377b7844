"""Which files of the workspace a command names, so that an approval stands only while they are what they were."""

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from stepgate.domain.errors import PathRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.layers.layer import WORKSPACE
from stepgate.workspace.paths import check_relative, is_protected
from stepgate.workspace.states import node_at

MAX_NAMED: Final = 1000
UNREADABLE: Final = "unreadable"
_LINKS: Final = 8
_SEPARATORS: Final = re.compile(r"[=:,]")


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
    for word in dict.fromkeys(_words(argv, shell)):
        path = _beneath(word, cwd)
        if path is not None:
            yield path


def _words(argv: Sequence[str], shell: str | None) -> Iterator[str]:
    words: Sequence[str] = argv
    if shell is not None:
        try:
            words = list(shlex.shlex(shell, posix=True, punctuation_chars=True))
        except ValueError:
            words = shell.split()
    for word in words:
        yield word
        if _SEPARATORS.search(word):
            yield from _SEPARATORS.split(word)


def _beneath(word: str, folder: str) -> str | None:
    """The path a word would name in the workspace, None where it cannot name a file there."""
    if not word or len(word) > 4096:
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
