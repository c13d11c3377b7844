"""The folder of one layer: locked while its process lives, removed whole whatever a command left in it."""

import contextlib
import fcntl
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from stepgate.domain.ids import new_id

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SCRATCH = "scratch"


@dataclass(slots=True)
class LayerFolder:
    """`<state>/layers/<id>`: `fd` is open and locked until `remove`."""

    id: str
    path: Path
    fd: int

    @classmethod
    def claim(cls, parent: Path) -> "LayerFolder":
        """A new locked folder with nothing in it."""
        while True:
            name = new_id()
            path = parent / name
            path.mkdir(mode=0o700)
            fd = os.open(path, _FOLDER)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Between the two calls a sweep may have taken the new folder for one that nobody holds.
            if os.fstat(fd).st_nlink:
                return cls(name, path, fd)
            os.close(fd)

    @classmethod
    def make(cls, parent: Path, uid: int) -> "LayerFolder":
        """A new locked folder with a scratch folder in it that belongs to `uid`; only we and `uid` may enter it."""
        made = cls.claim(parent)
        if uid != os.geteuid():
            # Nobody else on the host may come to what a command makes there.
            os.fchown(made.fd, -1, uid)
            os.fchmod(made.fd, 0o710)
        made.add(SCRATCH, uid)
        for name in ("tmp", "shm"):
            made.add(f"{SCRATCH}/{name}", uid)
        return made

    def add(self, name: str, uid: int, mode: int = 0o700) -> None:
        """A folder inside that belongs to the sandbox's user."""
        os.mkdir(name, 0o700, dir_fd=self.fd)
        if uid != os.geteuid():
            os.chown(name, uid, uid, dir_fd=self.fd, follow_symlinks=False)
        if mode != 0o700:
            os.chmod(name, mode, dir_fd=self.fd)

    def open(self, name: str) -> int:
        """A descriptor of a folder inside; the caller closes it."""
        return os.open(name, _FOLDER, dir_fd=self.fd)

    def remove(self) -> None:
        """Removes the folder with all in it and gives the lock up; doing it twice is harmless."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        try:
            empty(fd)
            os.rmdir(self.path)
        finally:
            os.close(fd)


def sweep(parent: Path) -> int:
    """Removes the folders whose process is gone; returns how many. What cannot be removed is left to a later sweep."""
    removed = 0
    for name in os.listdir(parent):
        try:
            fd = os.open(parent / name, _FOLDER)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            empty(fd)
            os.rmdir(parent / name)
            removed += 1
        except OSError:  # in use, removed by its owner at this moment, or damaged: no reason not to start
            continue
        finally:
            os.close(fd)
    return removed


def empty(folder: int) -> None:
    """Removes everything in a folder, however deep, wide or unreadable, following nothing.

    Folders are moved up and emptied one after another, so neither depth nor path length matters.
    """
    waiting: deque[str] = deque()

    def take(inside: int) -> None:
        for entry in _entries(inside):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=inside)
                continue
            if inside == folder:
                waiting.append(entry.name)
                continue
            with contextlib.suppress(OSError):
                os.rmdir(entry.name, dir_fd=inside)
                continue
            _unlock(inside, entry.name)
            # Never the name of one that an emptying cut off by a crash has left.
            name = f".removed-{new_id()}"
            os.rename(entry.name, name, src_dir_fd=inside, dst_dir_fd=folder)
            waiting.append(name)

    take(folder)
    while waiting:
        name = waiting.popleft()
        _unlock(folder, name)
        inside = os.open(name, _FOLDER, dir_fd=folder)
        try:
            take(inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=folder)


def _entries(folder: int) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as found:
        return list(found)


def _unlock(folder: int, name: str) -> None:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, 0o700, dir_fd=folder)
