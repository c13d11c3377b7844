"""The names of a workspace's files, for whoever plans work on them: never what is in them."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pathspec import GitIgnoreSpec

from stepgate.domain.errors import StepgateError
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.walk import Entry, walk

IGNORE_FILE: Final = ".gitignore"
MAX_IGNORE_BYTES: Final = 256 * 1024


class Names(NamedTuple):
    """Files by path, sorted within each folder; `cut` where there are more."""

    paths: tuple[str, ...]
    cut: bool


def file_names(root: Root, most: int, most_chars: int) -> Names:
    """At most so many names and characters. What a `.gitignore` on the way names is left out, and `.git` always."""
    found: list[str] = []
    chars = 0
    ignored = _Ignored(root)
    tree = walk(root, enter=ignored.passes)
    try:
        for entry in _files(tree):
            chars += len(entry)
            if len(found) == most or chars > most_chars:
                return Names(tuple(found), cut=True)
            found.append(entry)
    finally:
        tree.close()
    return Names(tuple(found), cut=False)


def _files(tree: Iterable[Entry]) -> Iterator[str]:
    for entry in tree:
        if entry.stat.kind is Kind.FILE:
            yield entry.path


class _Ignored:
    """Ignore files are read when their folder is first met; one that cannot be read ignores nothing."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._specs: dict[str, GitIgnoreSpec | None] = {}

    def passes(self, path: str, kind: Kind) -> bool:
        name = f"{path}/" if kind is Kind.FOLDER else path
        folder = path.rpartition("/")[0]
        while True:
            spec = self._spec(folder)
            if spec is not None:
                within = name[len(folder) + 1 :] if folder else name
                decided = spec.check_file(within).include
                if decided is not None:
                    return not decided
            if not folder:
                return True
            folder = folder.rpartition("/")[0]

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            path = f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE
            try:
                lines = self._root.read(path, MAX_IGNORE_BYTES).data.decode("utf-8", "replace").splitlines()
                self._specs[folder] = GitIgnoreSpec.from_lines(lines)
            except (StepgateError, ValueError):
                self._specs[folder] = None
        return self._specs[folder]
