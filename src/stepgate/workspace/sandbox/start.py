"""Starting one sandbox: the descriptors it gets, and what comes back about it."""

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgate.workspace.sandbox import launcher as program
from stepgate.workspace.sandbox.launch import Files, Launcher


@dataclass(frozen=True, slots=True)
class Report:
    """A sandbox's end: bubblewrap's exit code, whether the command began, and usage summed over all its processes."""

    code: int
    ran: bool
    cpu_us: int
    peak_bytes: int | None
    fault: str = ""

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> "Report":
        if "fault" in message:
            return cls(-1, False, 0, None, message["fault"])
        return cls(message["code"], message["ran"], message["cpu_us"], message["peak"])


@dataclass(slots=True)
class Started:
    """`control` tells first the descriptor of the first process, then the report; all are the owner's to close."""

    control: socket.socket
    stdout: int
    stderr: int


def start(
    launcher: Launcher,
    bwrap: str,
    arguments: Sequence[str],
    argv: Sequence[str],
    rlimits: Mapping[str, int],
    program_bytes: bytes,
    stdin: bytes = b"",
    after_ns: int = 0,
    hold: bool = False,
) -> Started:
    """Hands a sandbox to the launcher without waiting; its command begins after `after_ns` by the clock of files.

    With `hold` it waits for `go` on `control` too. Raises SandboxUnavailable without a launcher.
    """
    options = (
        *("--seccomp", str(program.FILTER_FD), "--json-status-fd", str(program.STATUS_FD)),
        *("--block-fd", str(program.BLOCK_FD)),
    )
    spec = json.dumps(
        {"bwrap": bwrap, "argv": list(argv), "rlimits": dict(rlimits), "hold": hold, "after_ns": after_ns}
    ).encode()
    packed = b"".join(os.fsencode(part) + b"\0" for part in (*arguments, *options))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = [theirs.detach()]
    kept: list[int] = []
    try:
        given += [_memory_file("spec", spec), _stdin(stdin)]
        for _ in range(2):
            read, write = os.pipe()
            kept.append(read)
            given.append(write)
        given += [_memory_file("arguments", packed), _memory_file("filter", program_bytes)]
        launcher.start(Files(*given))
    except BaseException:
        ours.close()
        for descriptor in kept:
            os.close(descriptor)
        raise
    finally:
        for descriptor in given:
            os.close(descriptor)
    return Started(ours, *kept)


def run_plainly(
    launcher: Launcher, bwrap: str, arguments: Sequence[str], argv: Sequence[str], program_bytes: bytes
) -> str:
    """Runs a command of our own that is known to be short and waits for it; returns "" or what went wrong."""
    started = start(launcher, bwrap, arguments, argv, {"RLIMIT_CPU": 10, "RLIMIT_FSIZE": 1 << 20}, program_bytes)
    process = -1
    try:
        started.control.settimeout(20)
        data, descriptors = program.receive(started.control, 1)
        if descriptors:
            process = descriptors[0]
            data, _none = program.receive(started.control, 1)
        said = os.read(started.stderr, 4096).decode(errors="replace").strip()
        report = Report.of(json.loads(data)) if data else None
        if report is None or not report.ran or report.code:
            return said or (report.fault if report else "") or "it ended without a word"
    except TimeoutError:
        if process >= 0:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return "it did not end"
    finally:
        started.control.close()
        for descriptor in (started.stdout, started.stderr, process):
            if descriptor >= 0:
                os.close(descriptor)
    return ""


def _memory_file(name: str, content: bytes) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _stdin(content: bytes) -> int:
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    writable = _memory_file("stdin", content)
    try:
        # A writable one would be storage that no limit counts.
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
