"""Starting one sandbox: the descriptors it gets, and what comes back about it."""

import fcntl
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.sandbox import launcher as program
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.recipe import Start
from stepgate.workspace.sandbox.wire import Handed, receive, send

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Failed:
    """`stage` is `confine`, `chdir` or `exec`, `number` the errno."""

    stage: str
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """A sandbox's end: its exit code, whether the command began, and usage summed over all its processes.

    `failed` says what kept a command without namespaces from beginning.
    """

    code: int
    ran: bool
    cpu_us: int
    peak_bytes: int | None
    fault: str = ""
    failed: "Failed | None" = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> "Report":
        if "fault" in message:
            return cls(-1, False, 0, None, message["fault"])
        failed = Failed(*message["failed"]) if message.get("failed") else None
        return cls(message["code"], message["ran"], message["cpu_us"], message["peak"], failed=failed)


@dataclass(slots=True)
class Started:
    """`control` tells first the descriptor of the first process, then the report; all are the owner's to close.

    The command begins with the first byte written to `release`.
    """

    control: socket.socket
    stdout: int
    stderr: int
    release: int


def start(
    launcher: Launcher,
    how: Start,
    argv: Sequence[str],
    rlimits: Mapping[str, int],
    stdin: bytes = b"",
    after_ns: int = 0,
) -> Started:
    """Hands a sandbox to a supervisor without waiting; it is up only after `after_ns` by the clock of files.

    Raises SandboxUnavailable without a launcher.
    """
    options = (
        *("--seccomp", str(program.FILTER_FD), "--json-status-fd", str(program.STATUS_FD)),
        *("--block-fd", str(program.BLOCK_FD), "--sync-fd", str(program.RELEASE_FD)),
    )
    spec = json.dumps({**how.program, "argv": list(argv), "rlimits": dict(rlimits), "after_ns": after_ns}).encode()
    packed = b"".join(os.fsencode(part) + b"\0" for part in (*how.arguments, *options))
    given: list[int] = []
    kept: list[int] = []
    control = launcher.supervisor(bare=how.bare)
    try:
        given += [_memory_file("spec", spec), _stdin(stdin)]
        for _ in range(2):
            read, write = os.pipe()
            kept.append(read)
            given.append(write)
        given += [_memory_file("arguments", packed), _memory_file("filter", how.filter)]
        block, release = os.pipe()
        kept.append(release)
        given += [block, release]
        send(control, {}, Handed(*given))
    except BaseException as error:
        control.close()
        for descriptor in kept:
            os.close(descriptor)
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            raise SandboxUnavailable(f"the supervisor of a sandbox has ended: {error.strerror}") from error
        raise
    finally:
        for descriptor in given:
            if descriptor not in kept:
                os.close(descriptor)
    return Started(control, *kept)


def run_plainly(launcher: Launcher, how: Start, argv: Sequence[str]) -> str:
    """Runs a command of our own that is known to be short and waits for it; returns "" or what went wrong."""
    started = start(launcher, how, argv, {"RLIMIT_CPU": 10, "RLIMIT_FSIZE": 1 << 20})
    process = -1
    try:
        started.control.settimeout(20)
        data, descriptors = receive(started.control, 1)
        if descriptors:
            process = descriptors[0]
            os.write(started.release, b"x")
            data, _none = receive(started.control, 1)
        said = os.read(started.stderr, 4096).decode(errors="replace").strip()
        report = Report.of(json.loads(data)) if data else None
        if report is None or not report.ran or report.code:
            failed = "" if report is None or report.failed is None else report.failed.reason
            return said or failed or (report.fault if report else "") or "it ended without a word"
    except TimeoutError:
        if process >= 0:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return "it did not end"
    finally:
        started.control.close()
        for descriptor in (started.stdout, started.stderr, started.release, process):
            if descriptor >= 0:
                os.close(descriptor)
    return ""


def _memory_file(name: str, content: bytes, flags: int = 0) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _stdin(content: bytes) -> int:
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    writable = _memory_file("stdin", content, os.MFD_ALLOW_SEALING)
    try:
        # A writable one would be storage that no limit counts, and opened for reading it can be opened anew.
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
