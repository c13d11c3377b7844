"""How a command ended: what the step records of it, why that is a failure, and what a person sees of it."""

import codecs
import signal
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, assert_never

from stepgate.domain import canonical
from stepgate.executors.preview import listed
from stepgate.executors.screen import visible
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.sandbox.command import Finished, Killed
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox

SHOWN_OUTPUT: Final = 8000


def shown_end(output: Mapping[str, Any]) -> dict[str, Any]:
    """How it ended, and the last of what it printed, for a person."""
    (stdout, out_cut), (stderr, err_cut) = _tail(str(output["stdout"])), _tail(str(output["stderr"]))
    return {
        "exit_code": output["exit_code"],
        "signal": output["signal"],
        "stdout": stdout,
        "stderr": stderr,
        "cut": bool(output["truncated"]) or out_cut or err_cut,
        "wall_ms": output["wall_ms"],
    }


def _tail(text: str) -> tuple[str, bool]:
    """The last of it, visible; and whether something stands before."""
    cut = len(text) > SHOWN_OUTPUT
    return visible(text[-SHOWN_OUTPUT:], SHOWN_OUTPUT), cut


def failure(finished: Finished, *, allow_failure: bool) -> tuple[str, str] | None:
    """Code and message of the step's failure, None where the command did what it should."""
    if finished.killed is not None:
        return "killed", _why_killed(finished.killed, finished.limits)
    if finished.exit_code == 0 or allow_failure:
        return None
    if finished.signal is not None:
        return "exit_nonzero", _why_signalled(finished.signal, finished.limits)
    return "exit_nonzero", f"exit code {finished.exit_code}"


def _why_signalled(number: int, limits: Limits) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else ""
    why = {
        "SIGXFSZ": f": a file would have been over {limits.file_bytes} bytes",
        "SIGXCPU": ": too much processor time",
    }
    return f"ended by signal {number}" + (f" ({name}{why.get(name, '')})" if name else "")


def _why_killed(killed: Killed, limits: Limits) -> str:
    match killed:
        case Killed.WALL:
            return f"killed after {limits.wall_s:g} s"
        case Killed.CPU:
            return f"killed: over {limits.cpu_s:g} s of processor time"
        case Killed.MEMORY:
            return f"killed: over {limits.memory_bytes} bytes of memory"
        case Killed.OUTPUT:
            return f"killed: over {limits.output_kill_bytes} bytes of output"
        case Killed.DISK:
            return f"killed: over {limits.written_bytes} bytes written"
        case Killed.FILES:
            return f"killed: over {limits.files} files"
        case Killed.TMP:
            return f"killed: over {limits.tmp_bytes} bytes in /tmp"
        case Killed.PIDS:
            return f"killed: over {limits.pids} processes"
        case Killed.CANCEL:
            return "killed: the run was stopped"
        case _:
            assert_never(killed)


def output_of(sandbox: Sandbox, finished: Finished, change_set: ChangeSet | None) -> dict[str, Any]:
    """The step's output."""
    most = finished.limits.output_bytes
    (stdout, out_cut), (stderr, err_cut) = _text(finished.stdout, most), _text(finished.stderr, most)
    return {
        "exit_code": finished.exit_code,
        "signal": finished.signal,
        "stdout": stdout,
        "stderr": stderr,
        "truncated": finished.truncated or out_cut or err_cut,
        "killed": finished.killed.value if finished.killed else None,
        "level": finished.level.value,
        "limits": asdict(finished.limits),
        "limited_by": sandbox.limited_by,
        "wall_ms": finished.wall_ms,
        "cpu_ms": finished.cpu_ms,
        "peak_memory_bytes": finished.peak_memory_bytes,
        "change_set_id": change_set.id if change_set else None,
        **(listed(change_set) if change_set else {"files": []}),
    }


def _text(data: bytes, most: int) -> tuple[str, bool]:
    """UTF-8, with U+FFFD for what is not and for NUL, which PostgreSQL's JSON cannot hold; and whether it was cut."""
    # Cut at the limit, a last character may be incomplete: it is left out rather than shown as an error.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final=len(data) < most).replace("\x00", "\ufffd")
    cut = False
    # Bytes that are no text grow when they are written as JSON, up to sixfold.
    while (size := len(canonical.dumps(text))) > most * 3 // 2 + 2:
        text, cut = text[: len(text) * most // size], True
    return text, cut
