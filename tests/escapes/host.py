"""The part of the host around an attack: what it could come to, and how that looks before and after."""

import ctypes
import fcntl
import hashlib
import os
import pty
import secrets
import select
import socket
import stat
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from stepgate.workspace.access import is_protected
from stepgate.workspace.layers.folder import empty
from tests.escapes.attack import Sign
from tests.escapes.victims import Victims

# Where git would look for a repository although no name says so; the attacks on it plant these.
REPOSITORIES: Final = ("real", "bare.git", "docs/fixture")
_ANOTHER_UID: Final = 1234
_DEEPEST, _LARGEST = 20, 1 << 16
Plant = Callable[[Path], None]
State = dict[str, tuple[int, str]]


class Host:
    """Bait, made anew for every run of an attack; `written` are the folders in which the attack may write."""

    def __init__(self, stack: ExitStack, base: Path, victims: Victims, plant: "Plant | None") -> None:
        self.token = secrets.token_hex(8)
        self.secret = secrets.token_hex(24)
        self.victims = victims
        self.folder = base / f"outside-{self.token}"
        self.workspace = base / f"workspace-{self.token}"
        self.written: list[Path] = []
        for folder in (self.folder, self.workspace):
            folder.mkdir()
            folder.chmod(0o777)
            stack.callback(_remove, folder)
        self.secret_file = self._file(self.folder / "secret", self.secret + "." * secrets.randbelow(4000), 0o644)
        self.victim_file = self._file(self.folder / "precious", "precious", 0o666)
        self.policy_file = self._file(self.folder / "stepgate.policy.yaml", "version: 1\n", 0o666)
        self.scratch = [Path(top, f"stepgate-{self.token}") for top in ("/tmp", "/dev/shm", "/var/tmp")]
        for path in self.scratch:
            self._file(path, self.secret, 0o644)
            stack.callback(path.unlink)
        self._workspace(stack)
        if plant is not None:
            plant(self.workspace)
        self._listeners = _Listeners(stack, self)
        self._terminal = _Terminal(stack)
        self._inherited(stack)
        victims.look_at(self.secret_file, self.secret)
        self._processes = victims.state()
        self._files = self._state(self.folder)
        self._lower = self._state(self.workspace)
        self._protected = self._protected_state()

    @staticmethod
    def _file(path: Path, text: str, mode: int) -> Path:
        path.write_text(text)
        path.chmod(mode)
        return path

    def _workspace(self, stack: ExitStack) -> None:
        workspace = self.workspace
        (workspace / "out").symlink_to(self.folder)
        (workspace / "hard-linked").hardlink_to(self.victim_file)
        self._file(workspace / "plain", "plain", 0o666)
        self._file(workspace / "set-id-tool", "#!/bin/sh\necho tool\n", 0o4755)
        for folder in (".git/hooks", "sub/.git/hooks"):
            (workspace / folder).mkdir(parents=True)
        for path in (".git/config", "sub/.git/config"):
            self._file(workspace / path, "[core]\n\tbare = false\n", 0o666)
        self._file(workspace / ".git/hooks/pre-push", "#!/bin/sh\n", 0o644)
        os.mkfifo(workspace / "pipe")
        (workspace / "pipe").chmod(0o666)
        self.pipe = os.open(workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        stack.callback(os.close, self.pipe)

    def _inherited(self, stack: ExitStack) -> None:
        """Descriptors that a careless start would pass on."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = stack.enter_context(ours)
        stack.enter_context(theirs)
        opened = (os.open(self.folder, os.O_PATH | os.O_DIRECTORY), os.open(self.secret_file, os.O_RDONLY))
        for descriptor in opened:
            stack.callback(os.close, descriptor)
        for descriptor in (*opened, theirs.fileno(), self._terminal.slave):
            os.set_inheritable(descriptor, True)
        name = "STEPGATE_ESCAPE_SECRET"
        os.environ[name] = self.secret
        stack.callback(os.environ.pop, name)

    def facts(self, *, bounded: bool) -> dict[str, Any]:
        """What a program is told; `bounded` where nothing watches it."""
        disk = Path("/").stat().st_dev
        return {
            "bounded": bounded,
            "token": self.token,
            "secret": str(self.secret_file),
            "secret_size": self.secret_file.stat().st_size,
            "victim_file": str(self.victim_file),
            "policy": str(self.policy_file),
            "folder": str(self.folder),
            "workspace": str(self.workspace),
            "scratch": [str(path) for path in self.scratch],
            "handle": _handle(self.secret_file),
            "worker": os.getpid(),
            "disk": (os.major(disk), os.minor(disk)),
            "another_uid": _ANOTHER_UID,
            "interfaces": [name for _index, name in socket.if_nameindex()],
            "terminal": os.ttyname(self._terminal.slave),
            "hold_s": 0.0 if bounded else 15.0,
            "stay_s": 15.0,
            "linger_s": 5.0 if bounded else 60.0,
            "longer_than_wall_s": 0.1 if bounded else 60.0,
            "scratch_folder": str(self.workspace) if bounded else "",
            **self._listeners.facts,
            **self.victims.facts(),
        }

    @property
    def terminal(self) -> int:
        """The descriptor of a terminal that programs without a sandbox are given as theirs."""
        return self._terminal.slave

    def traces(self, output: bytes, *, own_workspace: bool) -> dict[Sign, str]:
        """Every sign that can be seen now; `own_workspace` where the attack wrote to the workspace itself."""
        files = self._difference(self._files, self._state(self.folder))
        if not own_workspace:
            files = files or self._difference(self._lower, self._state(self.workspace))
        protected = self._difference(self._protected, self._protected_state())
        heard = self._listeners.heard() or self._heard_inside()
        secrets_told = (self.secret, self.victims.secret)
        found = {
            Sign.TOLD: "a secret was told" if any(one.encode() in output for one in secrets_told) else "",
            Sign.CHANGED: files,
            Sign.HEARD: heard,
            Sign.HARMED: self.victims.harm(self._processes),
            Sign.TYPED: self._terminal.touched(),
            Sign.PROTECTED: protected,
        }
        return {sign: text for sign, text in found.items() if text}

    def _heard_inside(self) -> str:
        with suppress(BlockingIOError):
            if os.read(self.pipe, 64):
                return "the reader of a pipe in the workspace"
        with suppress(BlockingIOError):
            if self._socket.recv(64):
                return "the owner of an inherited socket"
        return ""

    @staticmethod
    def _state(top: Path) -> State:
        found: State = {}
        for folder, folders, names in os.walk(top):
            if folder.count("/") > len(top.parents) + _DEEPEST:
                folders.clear()
            for path in (Path(folder), *(Path(folder, name) for name in (*folders, *names))):
                status = path.lstat()
                small = stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST
                content = path.read_bytes() if small else b""
                if stat.S_ISLNK(status.st_mode):
                    content = os.fsencode(path.readlink())
                key = os.fsencode(path.relative_to(top)).decode(errors="replace")
                found[key] = (status.st_mode, hashlib.sha256(content).hexdigest())
        return found

    def _protected_state(self) -> State:
        state = self._state(self.workspace)
        beneath = tuple(f"{name}/" for name in REPOSITORIES)
        return {path: what for path, what in state.items() if is_protected(path) or path.startswith(beneath)}

    @staticmethod
    def _difference(before: State, after: State) -> str:
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        return f"changed: {', '.join(changed[:4])}" if changed else ""


class _Listeners:
    def __init__(self, stack: ExitStack, host: Host) -> None:
        path, inside = host.folder / "socket", host.workspace
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        wanted: dict[str, tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, stream, ("127.0.0.1", 0)),
            "tcp_any": (socket.AF_INET, stream, ("127.1.2.3", 0)),
            "udp": (socket.AF_INET, datagram, ("127.0.0.1", 0)),
            "tcp6": (socket.AF_INET6, stream, ("::1", 0)),
            "udp6": (socket.AF_INET6, datagram, ("::1", 0)),
            "abstract": (socket.AF_UNIX, stream, f"\0{host.token}"),
            "abstract_datagram": (socket.AF_UNIX, datagram, f"\0{host.token}-datagram"),
            "socket": (socket.AF_UNIX, stream, str(path)),
            "planted": (socket.AF_UNIX, stream, str(inside / "listening")),
            "planted_datagram": (socket.AF_UNIX, datagram, str(inside / "listening-datagram")),
            "git": (socket.AF_UNIX, stream, str(inside / ".git/listening")),
        }
        self.facts: dict[str, Any] = {"addresses": ["127.1.2.3"]}
        self._open: dict[str, socket.socket] = {}
        for name, (family, kind, address) in wanted.items():
            with suppress(OSError):  # no IPv6 here, or no .git in this workspace
                listener = stack.enter_context(socket.socket(family, kind))
                listener.bind(address)
                if kind == stream:
                    listener.listen(4)
                listener.setblocking(False)
                self._open[name] = listener
                if isinstance(address, str) and address[0] == "/":
                    Path(address).chmod(0o777)
            self.facts[name] = self._fact(name, address)

    def _fact(self, name: str, address: Any) -> Any:
        if isinstance(address, str):
            return address.lstrip("\0")
        return self._open[name].getsockname()[1] if name in self._open else 1

    def heard(self) -> str:
        reached = []
        for name, listener in self._open.items():
            with suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(64)
                else:
                    listener.accept()[0].close()
                reached.append(name)
        return f"listeners: {', '.join(reached)}" if reached else ""


class _Terminal:
    def __init__(self, stack: ExitStack) -> None:
        self.master, self.slave = pty.openpty()
        stack.callback(os.close, self.master)
        stack.callback(os.close, self.slave)
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self._settings = termios.tcgetattr(self.slave)

    def touched(self) -> str:
        waiting = struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0]
        if waiting:
            return f"{waiting} characters were typed"
        if select.select([self.master], [], [], 0)[0]:
            return f"{os.read(self.master, 64)!r} was shown"
        return "its settings were changed" if termios.tcgetattr(self.slave) != self._settings else ""


def _remove(folder: Path) -> None:
    """Removes what an attack made, however deep it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        empty(descriptor)
    finally:
        os.close(descriptor)
    folder.rmdir()


def _handle(path: Path) -> tuple[int, int, str]:
    """The file's handle, as open_by_handle_at takes it."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = 128
    buffer = ctypes.create_string_buffer(struct.pack("Ii", size, 0), 8 + size)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(mount), 0):
        return 0, 0, ""
    length, kind = struct.unpack_from("Ii", buffer.raw)
    return length, kind, buffer.raw[8 : 8 + length].hex()


@contextmanager
def host(base: Path, victims: Victims, plant: "Plant | None" = None) -> Iterator[Host]:
    """A host for one run; everything of it is gone at the end."""
    with ExitStack() as stack:
        yield Host(stack, base, victims, plant)
