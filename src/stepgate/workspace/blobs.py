"""File contents by their sha256, on local disk, so that a change set can always be applied, shown and undone."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import threading
import weakref
from pathlib import Path
from secrets import token_hex
from typing import Final

from stepgate.domain.errors import ChangeRefused, IntegrityError, InvalidValue, NotFound
from stepgate.workspace.syscalls import LINUX, fsync, fsync_folder, sync_filesystem

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK: Final = 1 << 20
_FICLONE: Final = 0x40049409
_REFLINK_FROM: Final = 1 << 16
# syncfs also waits for what every other program wrote to the disk, so it only pays for many files.
_FEW: Final = 32
_REMEMBERED: Final = 20_000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
INCOMING: Final = "incoming"
UNDO_MAX_BYTES: Final = 1 << 26


class BlobStore:
    """Blobs under `root/<first two digits>/<sha256>`, files 0600; several processes may share one store.

    What was put is durable only after `sync()`. Safe to use from several threads. What a change replaces or deletes is
    kept up to `undo_max_bytes` for each file.
    """

    def __init__(self, root: Path, *, undo_max_bytes: int = UNDO_MAX_BYTES) -> None:
        self.root = root
        self.undo_max_bytes = undo_max_bytes
        self._base = str(root)
        self._incoming: str | None = None
        Path(self._base, INCOMING).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._pending: set[str] = set()
        self._durable: set[str] = set()
        self.sweep()

    def path_of(self, sha256: str) -> Path:
        """Where a blob lies; raises InvalidValue for text that is no sha256."""
        return Path(self._where(sha256))

    def _where(self, sha256: str) -> str:
        if _SHA256.match(sha256) is None:
            raise InvalidValue(f"{sha256!r} is not a sha256")
        return f"{self._base}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their sha256; storing them again costs next to nothing."""
        name = hashlib.sha256(data).hexdigest()
        if not self._present(name, len(data)):
            temporary, descriptor = self._temporary()
            try:
                _write_all(descriptor, data)
            except BaseException:
                os.unlink(temporary)
                raise
            finally:
                os.close(descriptor)
            self._place(temporary, name)
        return name

    def keep(self, sha256: str, size: int) -> bool:
        """Whether the former content of a file is to be put, or is here already as what an earlier change left."""
        return size <= self.undo_max_bytes or self.has(sha256)

    def put_stream(self, fd: int, max_bytes: int | None = None) -> tuple[str, int]:
        """Stores a file, read from its start, and returns (sha256, size); disk blocks are shared if possible.

        Raises ChangeRefused over `max_bytes`. The hash is of what was stored, even if the file changes meanwhile.
        """
        temporary, descriptor = self._temporary()
        try:
            if _reflink(fd, descriptor):
                name, size = _hash_stream(descriptor, max_bytes)
            else:
                name, size = _copy(fd, descriptor, max_bytes)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        if self._present(name, size):
            os.unlink(temporary)
        else:
            self._place(temporary, name)
        return name, size

    def has(self, sha256: str) -> bool:
        """Whether a blob of that name is there; its bytes are not checked."""
        return self.path_of(sha256).is_file()

    def get(self, sha256: str) -> bytes:
        """The bytes. Raises NotFound when absent, IntegrityError when they are not what they were."""
        descriptor = self.open(sha256)
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(f"the blob {sha256} is damaged", details={"sha256": sha256})
        return data

    def open(self, sha256: str) -> int:
        """A descriptor for reading, whose bytes are not checked; the caller closes it. Raises NotFound."""
        try:
            return os.open(self._where(sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFound(f"there is no blob {sha256}", details={"sha256": sha256}) from error

    def copy_to(self, sha256: str, fd: int) -> None:
        """Writes the bytes to an empty file, sharing the disk blocks if possible, and checks what was written.

        `fd` must be open for reading and writing. Raises NotFound, or IntegrityError when damaged.
        """
        source = self.open(sha256)
        try:
            name, _ = _hash_stream(fd, None) if _reflink(source, fd) else _copy(source, fd, None)
        finally:
            os.close(source)
        if name != sha256:
            raise IntegrityError(f"the blob {sha256} is damaged", details={"sha256": sha256})

    def sync(self) -> None:
        """Returns when everything put before the call is durable: one `syncfs` for many, an fsync each for few."""
        # The lock is held to the end: a second caller must not return while its blobs are in the first one's batch.
        with self._syncing:
            with self._lock:
                batch, self._pending = self._pending, set()
            if not batch:
                return
            try:
                if len(batch) <= _FEW or not self._sync_all():
                    self._sync_each(batch)
            except BaseException:
                with self._lock:
                    self._pending |= batch
                raise
            with self._lock:
                if len(self._durable) > _REMEMBERED:
                    self._durable.clear()
                self._durable |= batch

    def _sync_all(self) -> bool:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return sync_filesystem(descriptor)
        finally:
            os.close(descriptor)

    def _sync_each(self, batch: set[str]) -> None:
        for name in batch:
            descriptor = os.open(self._where(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                fsync(descriptor)
            finally:
                os.close(descriptor)
        for folder in {os.path.dirname(self._where(name)) for name in batch}:
            fsync_folder(folder)
        # Another process may have made the folder and not yet synced its name.
        fsync_folder(self.root)

    def _present(self, name: str, size: int) -> bool:
        path = self._where(name)
        with self._lock:
            known = name in self._durable or name in self._pending
        try:
            if known:
                return os.stat(path).st_size == size
            # A power cut can leave a name without its bytes, so a blob not seen before is read once.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            sound = os.fstat(descriptor).st_size == size and _hash_stream(descriptor, None)[0] == name
        finally:
            os.close(descriptor)
        if sound:
            with self._lock:
                self._pending.add(name)
        return sound

    def _temporary(self) -> tuple[str, int]:
        path = f"{self._incoming or self._take_incoming()}/{token_hex(16)}"
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _place(self, temporary: str, name: str) -> None:
        target = self._where(name)
        try:
            os.rename(temporary, target)
        except FileNotFoundError:
            Path(target).parent.mkdir(mode=0o700, exist_ok=True)
            os.rename(temporary, target)
        with self._lock:
            self._durable.discard(name)
            self._pending.add(name)

    def _take_incoming(self) -> str:
        """A folder for what this store writes, locked while it lives, so that others know what is left over."""
        with self._lock:
            while self._incoming is None:
                path = f"{self._base}/{INCOMING}/{token_hex(16)}"
                os.mkdir(path, 0o700)
                descriptor = os.open(path, _FOLDER)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Between the two calls a sweep may have taken the new folder for one that nobody holds.
                if os.fstat(descriptor).st_nlink:
                    weakref.finalize(self, _give_up, path, descriptor)
                    self._incoming = path
                else:
                    os.close(descriptor)
            return self._incoming

    def sweep(self) -> None:
        """Removes what killed writers left."""
        for entry in os.scandir(f"{self._base}/{INCOMING}"):
            try:
                descriptor = os.open(entry.path, _FOLDER)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(entry.path, descriptor)
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)


def _give_up(path: str, descriptor: int) -> None:
    try:
        _empty(path, descriptor)
    finally:
        os.close(descriptor)


def _empty(path: str, descriptor: int) -> None:
    """Somebody who cleans the state folder may do so at the same time."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
        os.rmdir(path)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _reflink(source: int, target: int) -> bool:
    if not LINUX or os.fstat(source).st_size < _REFLINK_FROM:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS):
            return False
        raise
    return True


def _hash_stream(fd: int, max_bytes: int | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.pread(fd, _CHUNK, size):
        size += len(chunk)
        _check_size(size, max_bytes)
        digest.update(chunk)
    return digest.hexdigest(), size


def _copy(source: int, target: int, max_bytes: int | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.pread(source, _CHUNK, size):
        size += len(chunk)
        _check_size(size, max_bytes)
        digest.update(chunk)
        _write_all(target, chunk)
    return digest.hexdigest(), size


def _check_size(size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise ChangeRefused(f"larger than the {max_bytes} bytes allowed", details={"max_bytes": max_bytes})
