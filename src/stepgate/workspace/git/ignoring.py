"""Which paths a repository's ignore files name, read as data with git's rules for them."""

from collections.abc import Callable
from io import BytesIO

from dulwich.ignore import IgnoreFilter, read_ignore_patterns

from stepgate.workspace.paths import ancestors

IGNORE_FILE = ".gitignore"


class Ignored:
    """`content(path)` gives a file's bytes or None; `exclude` is the repository's own list, above all folders."""

    def __init__(self, content: Callable[[str], bytes | None], exclude: bytes | None = None) -> None:
        self._content = content
        self._exclude = None if exclude is None else _filter(exclude)
        self._filters: dict[str, IgnoreFilter | None] = {}

    def __contains__(self, path: object) -> bool:
        """Whether git would not add the file; what lies in an ignored folder cannot be taken back in."""
        text = str(path)
        folders = ancestors(text)
        return any(self._named(f"{folder}/", folders[:depth]) for depth, folder in enumerate(folders)) or self._named(
            text, folders
        )

    def _named(self, path: str, folders: tuple[str, ...]) -> bool:
        found = None if self._exclude is None else self._exclude.is_ignored(path)
        for folder in ("", *folders):
            rules = self._rules(folder)
            inside = path[len(folder) + 1 :] if folder else path
            told = None if rules is None else rules.is_ignored(inside)
            found = found if told is None else told
        return bool(found)

    def _rules(self, folder: str) -> IgnoreFilter | None:
        if folder not in self._filters:
            data = self._content(f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE)
            self._filters[folder] = None if data is None else _filter(data)
        return self._filters[folder]


def _filter(data: bytes) -> IgnoreFilter:
    return IgnoreFilter(read_ignore_patterns(BytesIO(data)))
