"""Globs over workspace paths, matched without backtracking, so that no pattern can be made slow by a path."""

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

from stepgate.domain.errors import InvalidValue

MAX_GLOB_CHARS = 500
ANY_DEPTH = "**"
_SPECIAL = frozenset("*?[")
_EXPANDED = re.compile(r"[$`{]|^~")


def check_glob(pattern: str) -> str:
    """The pattern, or InvalidValue saying what is wrong with it.

    `*` and `?` stand for characters of one name, `[...]` for one of a set, `**` as a whole name for any number of
    names (at the end: at least one). Names that begin with a dot are matched like any other.
    """
    parts = pattern.split("/")
    if not pattern or len(pattern) > MAX_GLOB_CHARS:
        raise InvalidValue(f"a glob has 1 to {MAX_GLOB_CHARS} characters", fix="such as src/**/*.py")
    if "" in parts or "." in parts or ".." in parts:
        raise InvalidValue(
            "a glob is relative to the workspace, without empty parts, `.` and `..`",
            fix="write src/** for all that lies in src",
        )
    if any(ANY_DEPTH in part and part != ANY_DEPTH for part in parts):
        raise InvalidValue("`**` stands alone between slashes", fix="write **/*.py instead of **.py")
    return pattern


def escaped(path: str) -> str:
    """The glob that fits this path alone."""
    return "".join(f"[{char}]" if char in _SPECIAL else char for char in path)


def matches(pattern: str, path: str) -> bool:
    """Whether the whole path, relative and normalised, fits the pattern."""
    parts, names = _parts(pattern), path.split("/")
    # Most patterns say where they begin, and most paths begin elsewhere.
    if parts[0] != names[0] and _SPECIAL.isdisjoint(parts[0]):
        return False
    reached = {0}
    for name in names:
        reached = _after(parts, _with_skips(parts, reached), name)
        if not reached:
            return False
    return len(parts) in _with_skips(parts, reached, at_end=True)


@lru_cache(4096)
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("/"))


def matches_any(patterns: Sequence[str], path: str) -> bool:
    return any(matches(pattern, path) for pattern in patterns)


def lies_below(pattern: str, folder: str) -> bool:
    """Whether the pattern says by name that what it fits lies in that folder."""
    parts, names = _parts(pattern), folder.split("/")
    if len(parts) <= len(names) or ANY_DEPTH in parts[: len(names)]:
        return False
    return all(fnmatch.fnmatchcase(name, part) for name, part in zip(names, parts, strict=False))


def may_meet(pattern: str, word: str) -> bool:
    """Whether some path that a shell may make of the word fits the pattern, or lies above a path that does.

    A name of the word with `$`, a backquote, `{` or a leading `~` may become any number of names.
    """
    names = tuple(ANY_DEPTH if _EXPANDED.search(name) else name for name in word.split("/"))
    return _meet(_parts(pattern), names)


def _meet(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Walks both from their ends, so that every pair of places is looked at once."""
    below = [True] * len(names) + [True]
    for index in reversed(range(len(parts) + 1)):
        row = [False] * (len(names) + 1)
        row[len(names)] = True  # what was named is a folder, and the rest of the pattern lies in it
        for place in reversed(range(len(names))):
            name = names[place]
            if index == len(parts):
                row[place] = name == ANY_DEPTH and row[place + 1]
            elif parts[index] == ANY_DEPTH or name == ANY_DEPTH:
                row[place] = below[place] or row[place + 1] or below[place + 1]
            else:
                row[place] = _names_meet(parts[index], name) and below[place + 1]
        below = row
    return below[0]


def _names_meet(part: str, name: str) -> bool:
    if _SPECIAL.isdisjoint(name):
        return fnmatch.fnmatchcase(name, part)
    if _SPECIAL.isdisjoint(part):
        return fnmatch.fnmatchcase(part, name)
    (first, last), (begin, end) = _literal_ends(part), _literal_ends(name)
    alike = first.startswith(begin) or begin.startswith(first)
    return alike and (last.endswith(end) or end.endswith(last))


def _literal_ends(part: str) -> tuple[str, str]:
    """What stands before the first special character of a name, and after the last."""
    first = re.split(r"[*?\[]", part, maxsplit=1)[0]
    return first, re.split(r"[*?\]]", part)[-1]


def _with_skips(parts: Sequence[str], reached: set[int], *, at_end: bool = False) -> set[int]:
    """Places in the pattern that can be reached without another name: past every `**` that may stand for none."""
    found = set(reached)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if index in found and part == ANY_DEPTH and not (last and at_end):
            found.add(index + 1)
    return found


def _after(parts: Sequence[str], reached: set[int], name: str) -> set[int]:
    found = set()
    for index in reached:
        if index == len(parts):
            continue
        if parts[index] == ANY_DEPTH:
            # The last one has now stood for a name, so the pattern may end here.
            found |= {index, len(parts)} if index == len(parts) - 1 else {index}
        elif fnmatch.fnmatchcase(name, parts[index]):
            found.add(index + 1)
    return found
