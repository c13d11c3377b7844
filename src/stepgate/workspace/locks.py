"""Who may touch a workspace: a lock on the folder itself, and a mark that tells a half-applied set from a whole one."""

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from stepgate.domain.errors import WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.syscalls import fsync, fsync_folder

_FIRST_WAIT_S: Final = 0.001
_LONGEST_WAIT_S: Final = 0.05


class WorkspaceLock:
    """`flock` on the workspace's folder: shared while a layer is open over it, exclusive while a set is applied.

    It holds between threads, processes and users of one host, ends with the process that holds it, and is not
    re-entrant. Timeouts are seconds; 0 tries once. Raises WorkspaceUnavailable when it is held elsewhere for that long.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    @contextmanager
    def shared(self, timeout: float = 0) -> Iterator[None]:
        """Holds the lock together with other readers."""
        with self._held(fcntl.LOCK_SH, timeout):
            yield

    @contextmanager
    def exclusive(self, timeout: float = 0) -> Iterator[None]:
        """Holds the lock alone."""
        with self._held(fcntl.LOCK_EX, timeout):
            yield

    @asynccontextmanager
    async def shared_async(self, timeout: float = 0) -> AsyncIterator[None]:  # noqa: ASYNC109
        """As `shared`, waiting without holding up the event loop."""
        async with self._held_async(fcntl.LOCK_SH, timeout):
            yield

    @asynccontextmanager
    async def exclusive_async(self, timeout: float = 0) -> AsyncIterator[None]:  # noqa: ASYNC109
        """As `exclusive`, waiting without holding up the event loop."""
        async with self._held_async(fcntl.LOCK_EX, timeout):
            yield

    @contextmanager
    def _held(self, kind: int, timeout: float) -> Iterator[None]:
        descriptor = self._root.open_folder()
        try:
            for wait in _waits(timeout):
                if _try(descriptor, kind):
                    break
                time.sleep(wait)
            else:
                raise self._busy(timeout)
            yield
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def _held_async(self, kind: int, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109
        descriptor = self._root.open_folder()
        try:
            for wait in _waits(timeout):
                if _try(descriptor, kind):
                    break
                await asyncio.sleep(wait)
            else:
                raise self._busy(timeout)
            yield
        finally:
            os.close(descriptor)

    def _busy(self, timeout: float) -> WorkspaceUnavailable:
        return WorkspaceUnavailable(
            f"the workspace {str(self._root.path)!r} was in use by another step for {timeout:g} s",
            field="workspace_path",
            fix="wait until that step has ended",
            details={"workspace_path": str(self._root.path)},
        )


class ReadingLock:
    """The same lock for many short reads: shared, never waited for, its descriptor opened once.

    Reads of one owner may overlap; the lock is held from the first `try_enter` to the last `leave`.
    """

    def __init__(self, root: Root) -> None:
        self._descriptor = root.open_folder()
        self._readers = 0

    def try_enter(self) -> bool:
        """False while a change set is being applied."""
        if self._readers == 0 and not _try(self._descriptor, fcntl.LOCK_SH):
            return False
        self._readers += 1
        return True

    def leave(self) -> None:
        """Once for each `try_enter` that was granted."""
        self._readers -= 1
        if self._readers == 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


def _waits(timeout: float) -> Iterator[float]:
    """Pauses between tries, growing, with one try at the deadline itself."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_WAIT_S
    yield_last = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            if yield_last:
                return
            yield_last = True
        yield max(0.0, min(pause, left))
        pause = min(pause * 2, _LONGEST_WAIT_S)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class ApplyMarks:
    """Which workspace holds a change set that has been begun and is not known to be whole; one file for each.

    A standing mark is seen by every process on the host, and outlives them and a power cut.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "applying"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._paths: dict[str, str] = {}

    def begin(self, workspace_key: str, change_set_id: str) -> None:
        """Durable when it returns; call it under the exclusive lock, before `apply`.

        Raises WorkspaceUnavailable when another set stands half-applied there.
        """
        standing = self.standing(workspace_key)
        if standing == change_set_id:
            return
        if standing is not None:
            raise WorkspaceUnavailable(
                f"the change set {standing} is half-applied there",
                field="workspace_path",
                fix="let its run finish or settle it first",
                details={"change_set_id": standing},
            )
        path = self._path(workspace_key)
        temporary = f"{path}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, change_set_id.encode())
            fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
        fsync_folder(self._folder)

    def clear(self, workspace_key: str) -> None:
        """Durable when it returns; call it when `apply` has returned. Clearing nothing is harmless."""
        Path(self._path(workspace_key)).unlink(missing_ok=True)
        fsync_folder(self._folder)

    def standing(self, workspace_key: str) -> str | None:
        """The change set begun and not cleared, or None: one failed open."""
        path = self._path(workspace_key)
        if not os.access(path, os.F_OK):  # asked before every read, so without the cost of an exception
            return None
        try:
            return Path(path).read_text("utf-8")
        except FileNotFoundError:
            return None

    def _path(self, workspace_key: str) -> str:
        # Hashed, so that no key can name a file elsewhere.
        path = self._paths.get(workspace_key)
        if path is None:
            name = hashlib.sha256(workspace_key.encode()).hexdigest()
            path = self._paths[workspace_key] = str(self._folder / name)
        return path
