"""The small process that starts every sandbox, so that neither the size nor the threads of the worker matter.

It runs as a program of its own: standard library only, and modules of ours that need no more. Being small it forks in
a fraction of a millisecond; having one thread, `--die-with-parent` means what it says; and a mount namespace, another
user id and the adoption of orphans touch nobody else's process. When asked it forks a supervisor that becomes the
sandbox's user. For each command that starts bubblewrap, hands the descriptor of the sandbox's first process to the
worker, waits for the last process and reports their usage. Commands without namespaces are `bare`'s to run.
"""

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, Final, NoReturn

from stepgate.workspace.sandbox.bare import serve
from stepgate.workspace.sandbox.wire import Handed, receive, send

# No workspace, interpreter or program can lie beneath /sys, so hiding it in the launcher's namespace hides nothing.
STAGE: Final = "/sys"
CONNECTION_FD, WORKER_FD = 3, 4
ARGS_FD, FILTER_FD, STATUS_FD, BLOCK_FD, RELEASE_FD = 3, 4, 5, 6, 7
_ABOVE = 32

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_SLAVE, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 0x4000, 1 << 19, 2, 4, 2
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1000, 0x8000, 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 1, 2, 4, 0x00100000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLOCK_REALTIME_COARSE = 5
_LONGEST_TICK_S, _NAP_S = 0.1, 0.0003
_ID_LIMIT = 2**32 - 1

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def clone_mount(folder: int) -> int:
    """A detached private mount of the folder behind a descriptor of the caller's own mount namespace."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH
    return int(_check(libc.syscall(_SYS_OPEN_TREE, folder, b"", flags), "open_tree"))


def swapped(owner: int, other: int) -> str:
    """An id map that exchanges two ids and leaves the rest, as lines of `stored shown count`."""
    low, high = sorted((owner, other))
    if low == high:
        return f"0 0 {_ID_LIMIT}\n"
    parts = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, _ID_LIMIT - high - 1),
    ]
    return "".join(f"{stored} {shown} {count}\n" for stored, shown, count in parts if count)


class Stage:
    """Mounts that only the launcher and its children see, at paths the sandbox's user can reach."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._count = 0
        self._namespaces: dict[tuple[int, int], int] = {}

    def build(self) -> None:
        """Leaves the host's mount namespace; raises OSError where that is not permitted."""
        _check(libc.unshare(_CLONE_NEWNS), "unshare")
        _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount")
        # Every sandbox copies and then discards the whole table of mounts; those beneath are often most of it.
        libc.umount2(STAGE.encode(), _MNT_DETACH)
        options = b"mode=0711,size=64k"
        _check(libc.mount(b"stepgate", STAGE.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options), "mount")

    def add(self, tree: int, owner: tuple[int, int] | None, read_only: bool) -> str:
        """Attaches a detached mount and returns its path; files of `owner` show as the sandbox user's."""
        attributes = _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
        namespace = 0
        if owner is not None:
            attributes |= _ATTR_IDMAP
            namespace = self._namespace(owner)
        wanted = struct.pack("QQQQ", attributes, 0, 0, namespace)
        call = (tree, b"", _AT_EMPTY_PATH, wanted, ctypes.c_size_t(len(wanted)))
        _check(libc.syscall(_SYS_MOUNT_SETATTR, *call), "mount_setattr")
        self._count += 1
        path = f"{STAGE}/{self._count}"
        os.mkdir(path, 0o711)
        try:
            target = (tree, b"", -100, path.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
            _check(libc.syscall(_SYS_MOVE_MOUNT, *target), "move_mount")
        except OSError:
            os.rmdir(path)
            raise
        return path

    def remove(self, path: str) -> None:
        _check(libc.umount2(path.encode(), _MNT_DETACH), "umount2")
        os.rmdir(path)

    def _namespace(self, owner: tuple[int, int]) -> int:
        if owner not in self._namespaces:
            self._namespaces[owner] = _user_namespace(swapped(owner[0], self._uid), swapped(owner[1], self._uid))
        return self._namespaces[owner]


def _user_namespace(uids: str, gids: str) -> int:
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            _check(libc.unshare(_CLONE_NEWUSER), "unshare")
            os.write(done, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "no user namespace for an idmapped mount")
        for name, text in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(text)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)


class Supervisor:
    """A fork that runs sandboxes one after another, each from its start to its last process.

    It becomes the sandbox's user once and for all; what one sandbox leaves in it would be a fault, and ends it.
    """

    def __init__(self, uid: int, launcher: int) -> None:
        self._uid = uid
        self._launcher = launcher
        self._known: list[int] = []

    def serve(self, control: socket.socket) -> None:
        """Answers the worker until it has hung up."""
        signal.signal(signal.SIGTERM, self._end_all)
        # The kernel's out-of-memory killer should take a sandbox before anything of the host.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
        self._become()
        while True:
            data, descriptors = receive(control, len(Handed._fields))
            if not data:
                return
            high = Handed(*(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for descriptor in descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            try:
                self._supervise(control, high)
            except OSError as error:
                # What was started dies with this process.
                send(control, {"fault": str(error)})
                return

    def _supervise(self, control: socket.socket, given: Handed) -> None:
        with open(given.spec, "rb") as file:
            spec = json.load(file)
        status_read, status_write = _high_pipe()
        # What waits at the block holds its other end too: no end of ours can pass for the worker's word.
        places = (*given[1:6], status_write, given.block, fcntl.fcntl(given.release, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
        bwrap = os.posix_spawn(
            spec["bwrap"],
            [spec["bwrap"], "--args", str(ARGS_FD), "--", *spec["argv"]],
            {},  # the sandbox could read bubblewrap's environment, and LD_PRELOAD in it would act outside
            file_actions=[(os.POSIX_SPAWN_DUP2, place, number) for number, place in enumerate(places)],
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD),
        )
        self._known = [bwrap]
        for place in places:
            os.close(place)
        text = b""
        while b"\n" not in text and (piece := os.read(status_read, 4096)):
            text += piece
        first = json.loads(text.partition(b"\n")[0])["child-pid"] if text else None
        if first is not None:
            self._known.append(first)
            self._present(control, first, spec)
        try:
            self._report(control, bwrap, first, status_read)
            self._known = []
        finally:
            os.close(status_read)
            os.close(given.release)

    def _become(self) -> None:
        if self._uid:
            os.setgroups([])
            os.setresgid(self._uid, self._uid, self._uid)
            os.setresuid(self._uid, self._uid, self._uid)
        # Changing the user clears the wish to end with the parent, so it is made here and the parent looked at again.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.getppid() != self._launcher:
            os._exit(1)

    def _end_all(self, _number: int, _frame: object) -> NoReturn:
        """The launcher has ended, so the worker has: nothing may begin or go on.

        bubblewrap's inner process dies with the outer one only once its command has begun; until then it is orphaned,
        and comes to this process.
        """
        while known := self._known if (found := _children()) is None else found:
            for pid in known:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                self._known = [pid for pid in known if pid != os.waitpid(-1, 0)[0]]
            except ChildProcessError:
                break
        os._exit(1)

    def _present(self, control: socket.socket, first: int, spec: dict[str, Any]) -> None:
        """Hands the sandbox's first process to the worker, limited and still waiting for its word."""
        process = os.pidfd_open(first)
        # Only from inside the new user namespace does a limit on processes count this sandbox's alone.
        for name, value in spec["rlimits"].items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(first, kind, (value, value))
        # Only now does a change to the workspace by somebody else get a time beyond the layer's opening.
        deadline = time.monotonic() + _LONGEST_TICK_S
        while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= spec["after_ns"] and time.monotonic() < deadline:
            time.sleep(_NAP_S)
        send(control, {"first": first}, (process,))
        os.close(process)

    def _report(self, control: socket.socket, bwrap: int, first: int | None, status: int) -> None:
        exit_status = cpu_us = 0
        peak = None
        while True:
            try:
                pid, ended, usage = os.wait4(-1, 0)
            except ChildProcessError:
                break
            cpu_us += round((usage.ru_utime + usage.ru_stime) * 1e6)
            if pid == bwrap:
                exit_status = ended
            elif pid == first:
                peak = usage.ru_maxrss * 1024
        ran = b"exit-code" in _rest(status)
        code = os.waitstatus_to_exitcode(exit_status)
        send(control, {"code": code, "ran": ran, "cpu_us": cpu_us, "peak": peak})


def _children() -> list[int] | None:
    """None where the kernel does not list them."""
    try:
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return None


def _high_pipe() -> tuple[int, int]:
    pair = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for end in pair]
    for end in pair:
        os.close(end)
    return high[0], high[1]


def _rest(descriptor: int) -> bytes:
    text = b""
    while piece := os.read(descriptor, 4096):
        text += piece
    return text


class Launcher:
    """Answers the worker's messages until the worker is gone."""

    def __init__(self, connection: socket.socket, worker: int, uid: int) -> None:
        self._connection = connection
        self._worker = worker
        self._uid = uid
        self._stage = Stage(uid)

    def serve(self) -> None:
        refusal = "the worker is not root"
        if self._uid:
            try:
                self._stage.build()
                refusal = ""
            except OSError as error:
                refusal = f"{error.strerror}"
        send(self._connection, {"refusal": refusal})
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._worker, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._worker in ready:
                return
            data, descriptors = receive(self._connection, 1)
            if not data:
                return
            self._answer(json.loads(data), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["op"] == "supervise":
            self._supervise(descriptors, bare=message["bare"])
            return
        if message["op"] == "unmount":
            # It takes a while and nobody needs to know when it is done.
            with contextlib.suppress(OSError):
                self._stage.remove(message["path"])
            return
        owner = tuple(message["owner"]) if message["owner"] else None
        try:
            reply: dict[str, Any] = {"path": self._stage.add(descriptors[0], owner, message["read_only"])}
        except OSError as error:
            reply = {"error": error.strerror or str(error), "errno": error.errno}
        send(self._connection, reply)

    def _supervise(self, descriptors: list[int], *, bare: bool) -> None:
        launcher, worker = os.getpid(), os.getppid()
        if os.fork():
            return
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._connection.close()
            os.close(self._worker)
            control = socket.socket(fileno=descriptors[0])
            if bare:
                serve(control, self._uid, launcher, worker)
            else:
                Supervisor(self._uid, launcher).serve(control)
        finally:
            # The kernel kills what the supervisor started; the worker sees its connection closed without a report.
            os._exit(1)


def main() -> NoReturn:
    uid = int(sys.argv[1])
    os.closerange(WORKER_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # A Ctrl-C at the worker's terminal is the worker's to answer.
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    gc.freeze()
    Launcher(socket.socket(fileno=CONNECTION_FD), WORKER_FD, uid).serve()
    os._exit(0)
