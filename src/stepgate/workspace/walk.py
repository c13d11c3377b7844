"""Walking a workspace by descriptors: no link followed, nothing opened but folders, nothing skipped in silence."""

import errno
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.opening import refused
from stepgate.workspace.paths import MAX_DEPTH, is_protected

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree and what is there."""

    path: str
    stat: FileStat


@dataclass(slots=True)
class _Open:
    path: str
    descriptor: int
    names: Iterator[str] = field(default_factory=lambda: iter(()))


def _all(path: str, kind: Kind) -> bool:
    return True


def walk(
    root: Root, start: str = "", *, max_entries: int | None = None, enter: Callable[[str, Kind], bool] = _all
) -> Generator[Entry, None, None]:
    """Every path beneath a folder but the protected ones, parents before children, sorted within each folder.

    Raises ChangeRefused, naming the path, for names that are not UTF-8, trees deeper than 64 folders, folders that lie
    on other file systems and more than `max_entries`; PathRefused for folders that may not be read. What vanishes
    during the walk is left out, and so is what `enter` refuses, with everything below. Close the generator when it is
    not read to its end: it holds descriptors.
    """
    count = 0
    stack = [_Open(start, root.open_folder(start))]
    try:
        stack[0].names = _names(stack[0], max_entries)
        while stack:
            here = stack[-1]
            name = next(here.names, None)
            if name is None:
                os.close(stack.pop().descriptor)
                continue
            path = f"{here.path}/{name}" if here.path else name
            found = None if is_protected(path) else _stat(here.descriptor, name, path)
            if found is None or not enter(path, found.kind):
                continue
            count += 1
            _check_count(count, max_entries)
            yield Entry(path, found)
            if found.kind is Kind.FOLDER and (below := _descend(root, here.descriptor, name, path)) is not None:
                stack.append(below)
                below.names = _names(below, max_entries)
    finally:
        for one in stack:
            os.close(one.descriptor)


def _names(folder: _Open, max_entries: int | None) -> Iterator[str]:
    names = list[str]()
    with os.scandir(folder.descriptor) as entries:
        for entry in entries:
            try:
                entry.name.encode()
            except UnicodeEncodeError as error:
                shown = os.fsencode(f"{folder.path}/{entry.name}").decode("utf-8", "backslashreplace")
                raise ChangeRefused(f"the name {shown!r} is not UTF-8", details={"path": shown}) from error
            names.append(entry.name)
            _check_count(len(names), max_entries)
    return iter(sorted(names))


def _stat(folder: int, name: str, path: str) -> FileStat | None:
    try:
        return FileStat.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(error, path) from error


def _descend(root: Root, folder: int, name: str, path: str) -> _Open | None:
    if path.count("/") + 1 >= MAX_DEPTH:
        raise ChangeRefused(f"{path!r} is more than {MAX_DEPTH - 1} folders deep", details={"path": path})
    try:
        return _Open(path, root.open_beneath(folder, name, _FOLDER))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        if error.errno == errno.EXDEV:
            raise ChangeRefused(f"{path!r} is another file system", details={"path": path}) from error
        raise refused(error, path) from error


def _check_count(count: int, max_entries: int | None) -> None:
    if max_entries is not None and count > max_entries:
        raise ChangeRefused(f"more than {max_entries} files and folders", details={"max_entries": max_entries})
