"""The launcher's part for commands without namespaces: one guarded process, confined by what it does to itself.

Standard library only. Two processes stand over each command, either of which ends everything that the command started
when the other is lost; as root they stay root, so that the command, which becomes another user, cannot touch them.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import time
from itertools import pairwise
from typing import Any, Final, NoReturn

from stepgate.workspace.sandbox import landlock, sharing
from stepgate.workspace.sandbox.family import Usage, end_all
from stepgate.workspace.sandbox.wire import Handed, receive, send

_ABOVE: Final = 32
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_CAPBSET_DROP, _PR_SET_SECCOMP = 1, 36, 24, 22
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITIES: Final = 64
_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_READY: Final = b"\n"
_CLOCK_REALTIME_COARSE: Final = 5
_LONGEST_TICK_S, _NAP_S = 0.1, 0.0003
_WATCHED: Final = (signal.SIGTERM, signal.SIGCHLD)
_SIGNALLED: Final = 128

_libc = ctypes.CDLL(None, use_errno=True)


class _Failure(Exception):
    """What the command's own process could not do; `stage` is `chdir`, `exec` or `confine`."""

    def __init__(self, stage: str, error: OSError) -> None:
        super().__init__(str(error))
        self.stage = stage
        self.number = error.errno or 0


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def serve(control: socket.socket, uid: int, launcher: int, worker: int) -> None:
    """Runs one command, told by the one message that comes; `uid` is whom to become, 0 for nobody else."""
    _protect(launcher)
    data, descriptors = receive(control, len(Handed._fields))
    if not data:
        return
    high = Handed(*(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for descriptor in descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    outer = os.getpid()
    inner = os.fork()
    if inner == 0:
        try:
            _protect(outer)
            _Guard(control, high, uid, (worker, launcher, outer, os.getpid())).run()
        except OSError as error:
            end_all(Usage(0))
            send(control, {"fault": str(error)})
        finally:
            os._exit(0)
    for descriptor in high:
        os.close(descriptor)
    usage = Usage(inner)
    _see_out(usage)
    # Where the other guard ended as it should, there is nobody left to end.
    end_all(usage)


def _protect(parent: int) -> None:
    """Adopts orphans, hears of the parent's death, and takes signals only when it asks for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.setsid()
    if os.getppid() != parent:
        os._exit(1)


def _see_out(usage: Usage) -> None:
    """Returns when the first process has ended, or is to be ended."""
    while usage.status is None and signal.sigwait(_WATCHED) != signal.SIGTERM:
        # Where it was the last child, there is no other to be waited for.
        with contextlib.suppress(ChildProcessError):
            while usage.reap():
                pass


class _Guard:
    """Starts the command, hands it to the worker and sees it to its end."""

    def __init__(self, control: socket.socket, given: Handed, uid: int, guarded: tuple[int, ...]) -> None:
        self._control = control
        self._given = given
        self._uid = uid
        self._guarded = guarded
        with open(given.spec, "rb") as file:
            self._spec: dict[str, Any] = json.load(file)

    def run(self) -> None:
        status_read, status_write = _high_pipe()
        first = os.fork()
        if first == 0:
            self._command(status_write)
        os.close(status_write)
        # The release stays open here, so that the command is not let go when the worker dies.
        for descriptor in (self._given.stdin, self._given.stdout, self._given.stderr, self._given.block):
            os.close(descriptor)
        usage = Usage(first)
        failure = os.read(status_read, 4096)
        if failure == _READY:
            self._present(first)
            _see_out(usage)
            failure = _rest(status_read) if usage.status is not None else b""
        end_all(usage)
        self._report(usage, failure)

    def _present(self, first: int) -> None:
        deadline = time.monotonic() + _LONGEST_TICK_S
        while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= self._spec["after_ns"] and time.monotonic() < deadline:
            time.sleep(_NAP_S)
        guard = os.pidfd_open(os.getpid())
        send(self._control, {"first": first, "guard": os.getpid()}, (guard,))
        os.close(guard)

    def _report(self, usage: Usage, failure: bytes) -> None:
        code = -signal.SIGKILL if usage.status is None else os.waitstatus_to_exitcode(usage.status)
        told = json.loads(failure) if failure else None
        report = {"code": code if code >= 0 else _SIGNALLED - code, "ran": told is None, "failed": told}
        send(self._control, {**report, "cpu_us": usage.cpu_us, "peak": usage.peak_bytes})

    def _command(self, status: int) -> NoReturn:
        try:
            self._confine_and_run(status)
        except _Failure as failure:
            os.write(status, json.dumps([failure.stage, failure.number, str(failure)]).encode())
        except BaseException as error:  # noqa: BLE001 - the last word of a process that ends here
            os.write(status, json.dumps(["confine", 0, f"{type(error).__name__}: {error}"]).encode())
        finally:
            os._exit(127)

    def _confine_and_run(self, status: int) -> None:
        spec, given = self._spec, self._given
        os.setsid()
        for place, number in ((given.stdin, 0), (given.stdout, 1), (given.stderr, 2)):
            os.dup2(place, number)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
        limits = {**spec["rlimits"]}
        # Without a namespace it is a limit on all that the user runs.
        if "RLIMIT_NPROC" in limits:
            limits["RLIMIT_NPROC"] += _tasks_of(self._uid or os.getuid())
        rules = spec["landlock"]
        ruleset = None if rules is None else _ruleset(rules)
        _become(self._uid)
        # A change of user clears it; whatever becomes of the guard, the command's own process goes with it.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._guarded[-1]:
            os._exit(1)
        try:
            os.chdir(spec["cwd"])
        except OSError as error:
            raise _Failure("chdir", error) from error
        filters = [] if rules is None else self._filters(rules)
        if ruleset is not None:
            ruleset.restrict()
        _only({0, 1, 2, status, given.block})
        _restore_signals()
        _limit(limits)
        os.environ.clear()
        os.environ.update(spec["env"])
        for steps in filters:
            _install(steps)
        os.write(status, _READY)
        if os.read(given.block, 1) != b"x":
            os._exit(1)
        os.close(given.block)
        _execute(spec["argv"])

    def _filters(self, rules: dict[str, Any]) -> list[bytes]:
        version, owner = rules["abi"], not self._uid
        further = sharing.program(
            owner=owner,
            truncates=version < landlock.TRUNCATES,
            guarded=self._guarded if version < landlock.SIGNALS else (),
        )
        with open(self._given.filter, "rb") as file:
            return [file.read(), further]


def _ruleset(rules: dict[str, Any]) -> landlock.Ruleset:
    ruleset = landlock.Ruleset(rules["abi"])
    ruleset.allow(rules["read"], landlock.READ)
    ruleset.allow(rules["write"], landlock.WRITE)
    ruleset.allow(rules["devices"], landlock.DEVICE)
    return ruleset


def _become(uid: int) -> None:
    if uid:
        for number in range(_CAPABILITIES):
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # What an ordinary worker may have been given.
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _tasks_of(uid: int) -> int:
    """How many threads a user has."""
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _only(kept: set[int]) -> None:
    for low, high in pairwise([*sorted(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]):
        if low + 1 < high:  # an empty range that begins at 0 would be taken for everything
            os.closerange(low + 1, high)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))


def _restore_signals() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _install(steps: bytes) -> None:
    buffer = ctypes.create_string_buffer(steps, len(steps))
    program = _Program(len(steps) // 8, ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no system call filter can be installed")


def _execute(argv: list[str]) -> NoReturn:
    words = [os.fsencode(word) for word in argv]
    # As the C library does it: by the PATH that was just set, and by a shell where a script names no interpreter.
    _libc.execvp(words[0], (ctypes.c_char_p * (len(words) + 1))(*words, None))
    error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), argv[0])
    with contextlib.suppress(OSError):
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    raise _Failure("exec", error)


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
