"""The worker's side of the launcher: one per process, started when first needed, gone when the process is."""

import contextlib
import fcntl
import json
import os
import select
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.sandbox import launcher
from stepgate.workspace.sandbox.wire import MESSAGE_BYTES, send
from stepgate.workspace.syscalls import O_PATH

# A user id that belongs to nobody: neither 0, whose files a sandbox could then write, nor that of a service.
SANDBOX_UID: Final = 64001
_PATIENCE_S = 30.0
_KEPT = 4
# Its modules come last in the order of search, so that none of them passes for one of the standard library's.
_PACKAGES: Final = str(Path(launcher.__file__).parents[3])
_OPTIONS: Final = ("-I", "-S", "-X", "utf8")
_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv[2]); from stepgate.workspace.sandbox.launcher import main; main()"
)


class NotReachable(SandboxUnavailable):
    """The sandbox's user can reach a path neither by itself nor by a mount."""


@dataclass(slots=True)
class _Shared:
    lock: threading.Lock = field(default_factory=threading.Lock)
    launcher: "Launcher | None" = None


_shared = _Shared()


class Launcher:
    """Starts sandboxes and makes folders reachable for them; safe to use from several threads.

    `uid` is the host user sandboxes run as: the worker's own, or one that owns nothing where the worker is root.
    `refusal` says why there are no mounts of our own ("" if there are).
    """

    def __init__(self) -> None:
        self.root = os.geteuid() == 0
        self.uid = SANDBOX_UID if self.root else os.geteuid()
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._reached: dict[str, str] = {}
        self._supervisors: list[socket.socket] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.pidfd_open(os.getpid())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # posix_spawn places descriptors one after another: none may land on the source of a later one.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 16) for descriptor in (null, theirs.fileno(), worker)]
        places = [high[0], high[0], high[0], high[1], high[2]]
        program = [
            sys.executable,
            "-I",
            "-S",
            "-X",
            "utf8",
            "-c",
            _PROGRAM,
            str(self.uid if self.root else 0),
            _PACKAGES,
        ]
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                program,
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, place, number) for number, place in enumerate(places)],
            )
        finally:
            for descriptor in (worker, null, *high):
                os.close(descriptor)
            theirs.close()
        self._connection = ours
        ours.settimeout(_PATIENCE_S)
        self.refusal = str(self._receive()["refusal"])

    @classmethod
    def shared(cls) -> "Launcher":
        """The process's launcher, started if there is none or it has ended (a fork starts its own)."""
        with _shared.lock:
            current = _shared.launcher
            if current is None or not current.alive():
                if current is not None:
                    current.close()
                current = _shared.launcher = cls()
            return current

    def close(self) -> None:
        """Lets the launcher end, and with it everything it started."""
        with self._lock:
            for connection in (self._connection, *self._supervisors):
                connection.close()

    def alive(self) -> bool:
        """Whether it still answers this very process."""
        if self._owner != os.getpid():
            return False
        with self._lock:
            return not _hung_up(self._connection)

    @property
    def private(self) -> bool:
        """Whether mounts that nobody else sees are possible (only for root that may mount)."""
        return not self.refusal

    def mount(self, folder: int, *, owner: tuple[int, int] | None = None, read_only: bool = False) -> str:
        """Mounts the folder behind a descriptor where sandboxes can reach it; returns the path, which only they see.

        With `owner` (uid, gid) that owner's files show as the sandbox user's. Raises OSError where the kernel or the
        file system cannot do it.
        """
        tree = launcher.clone_mount(folder)
        try:
            reply = self._ask({"op": "mount", "owner": owner, "read_only": read_only}, (tree,))
        finally:
            os.close(tree)
        return str(reply["path"])

    def unmount(self, path: str) -> None:
        """Takes a mount away, without waiting for it; with the launcher it is gone anyway."""
        with self._lock, contextlib.suppress(SandboxUnavailable):
            self._send({"op": "unmount", "path": path}, ())

    def reach(self, path: str | Path) -> str:
        """A path of the same folder that the sandbox's user can open; mounted once and kept.

        Raises NotReachable where a folder above is closed to that user and mounts are not possible.
        """
        text = str(path)
        if not self.root:
            return text
        if self.private:
            if text not in self._reached:
                folder = os.open(text, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    self._reached[text] = self.mount(folder)
                except OSError as error:
                    raise NotReachable(f"{text} cannot be mounted for the sandbox: {error.strerror}") from error
                finally:
                    os.close(folder)
            return self._reached[text]
        if (closed := self.closed(Path(text))) is not None:
            raise NotReachable(
                f"the sandbox's user cannot enter {closed}, and private mounts are not permitted ({self.refusal})",
                fix=f"run the worker as an ordinary user, give it CAP_SYS_ADMIN, or `chmod o+x {closed}`",
            )
        return text

    def closed(self, folder: Path) -> str | None:
        """The folder, it or one above, that keeps the sandbox's user out where there are no mounts; None for none."""
        if not self.root:
            return None
        return next((str(above) for above in (folder, *folder.parents) if not _open_to_all(above)), None)

    def supervisor(self, *, bare: bool = False) -> socket.socket:
        """A connection to a supervisor that runs nothing; `give_back` it at the end of what it ran, or close it.

        One that is `bare`, for commands without namespaces, runs a single command and must not be given back.
        Raises SandboxUnavailable when the launcher is gone.
        """
        while not bare:
            with self._lock:
                control = self._supervisors.pop() if self._supervisors else None
            if control is None:
                break
            if not _hung_up(control):
                return control
            control.close()
        return self._new_supervisor(bare=bare)

    def give_back(self, control: socket.socket) -> None:
        """Keeps a supervisor that has reported the end of what it ran; a few of them, the others end."""
        with self._lock:
            if len(self._supervisors) < _KEPT:
                self._supervisors.append(control)
                return
        control.close()

    def _new_supervisor(self, *, bare: bool) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self._lock:
                self._send({"op": "supervise", "bare": bare}, (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        return ours

    def _ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        with self._lock:
            self._send(message, descriptors)
            reply = self._receive()
        if "error" in reply:
            raise OSError(reply["errno"], reply["error"])
        return reply

    def _send(self, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        try:
            send(self._connection, message, descriptors)
        except OSError as error:
            raise SandboxUnavailable(f"the launcher of sandboxes has ended: {error.strerror}") from error

    def _receive(self) -> dict[str, Any]:
        try:
            data = self._connection.recv(MESSAGE_BYTES)
        except OSError as error:
            raise SandboxUnavailable(f"the launcher of sandboxes does not answer: {error}") from error
        if not data:
            raise SandboxUnavailable("the launcher of sandboxes has ended")
        reply: dict[str, Any] = json.loads(data)
        return reply


def _hung_up(connection: socket.socket) -> bool:
    """Whether it is gone: what speaks only when asked has nothing to say but the end of the connection."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
