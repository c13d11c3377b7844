"""Walking a folder that an enemy filled: by descriptors, following nothing, blocking on nothing, within limits."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.paths import MAX_DEPTH

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One name found; `parent` is open only until the walk goes on."""

    path: str
    name: str
    parent: int
    stat: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def link(self) -> str:
        """A path that names the entry itself for calls that take no folder descriptor."""
        return f"/proc/self/fd/{self.parent}/{self.name}"

    def attributes(self) -> list[str]:
        """The names of its extended attributes."""
        return os.listxattr(self.link, follow_symlinks=False)

    def attribute(self, name: str) -> bytes:
        """The value of one extended attribute."""
        try:
            return os.getxattr(self.link, name, follow_symlinks=False)
        except PermissionError:
            os.chmod(self.name, 0o700, dir_fd=self.parent)
            return os.getxattr(self.link, name, follow_symlinks=False)

    def open(self) -> int:
        """A descriptor for reading a regular file, also one that its owner may not read."""
        return _open_own(self, _FILE)


@dataclass(frozen=True, slots=True)
class Touched:
    """A path a command may have changed: `entry` is there now (None: gone), `copied` says something was before."""

    path: str
    entry: Entry | None
    copied: bool = False


def walk(folder: int, enter: Callable[[Entry], bool] = lambda _entry: True, most: int | None = None) -> Iterator[Entry]:
    """Everything beneath a folder that is ours alone, folders before what is in them.

    Folders for which `enter` is false are given but not entered. Raises ChangeRefused for a name that is not UTF-8,
    more than 64 levels or more than `most` entries, naming the path.
    """
    levels = [("", os.dup(folder), sorted(os.listdir(folder)))]
    count = 0
    try:
        while levels:
            prefix, here, names = levels[-1]
            if not names:
                os.close(here)
                levels.pop()
                continue
            name = names.pop()
            path = prefix + name
            check_name(path)
            count += 1
            if most is not None and count > most:
                raise ChangeRefused(
                    f"more than {most} files were written, up to {path!r}", field="path", fix="write fewer files"
                )
            entry = Entry(path, name, here, os.stat(name, dir_fd=here, follow_symlinks=False))
            yield entry
            if entry.is_folder and enter(entry):
                below = _open_own(entry, FOLDER)
                levels.append((f"{path}/", below, sorted(os.listdir(below))))
    finally:
        for _prefix, here, _names in levels:
            os.close(here)


def check_name(path: str) -> str:
    """The path itself; raises ChangeRefused where a name is not UTF-8 or the path more than 64 levels deep."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ChangeRefused(
            f"the name {os.fsencode(path)!r} is not UTF-8", field="path", fix="write names that are UTF-8"
        ) from error
    if path.count("/") >= MAX_DEPTH:
        raise ChangeRefused(
            f"{path!r} is more than {MAX_DEPTH} folders deep", field="path", fix="write fewer levels of folders"
        )
    return path


def _open_own(entry: Entry, flags: int) -> int:
    try:
        return os.open(entry.name, flags, dir_fd=entry.parent)
    except PermissionError:
        # Its owner is the sandbox's user, which is ours unless we are root; the mode it had is already in the stat.
        os.chmod(entry.name, 0o700, dir_fd=entry.parent)
        return os.open(entry.name, flags, dir_fd=entry.parent)
