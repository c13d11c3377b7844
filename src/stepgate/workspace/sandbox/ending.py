"""What the end of a sandbox says of a command that did not run in it."""

import errno
from typing import Final

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.start import Report

SIGNALLED: Final = 128
"""An exit code above it tells the signal that ended a program."""
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


def code_without_run(command: Command, stderr: bytes, code: int | None, report: Report | None) -> int:
    """The exit code a shell gives where a program cannot be started.

    Raises InvalidValue (field `cwd`) where the folder was the reason, SandboxUnavailable where the sandbox was.
    """
    text = stderr.decode(errors="replace").strip()
    failed = report.failed if report is not None else None
    if text.startswith("bwrap: execvp ") or (failed is not None and failed.stage == "exec"):
        missing = failed.number == errno.ENOENT if failed else text.endswith("No such file or directory")
        return _NOT_FOUND if missing else _NOT_EXECUTABLE
    if text.startswith("bwrap: Can't chdir") or (failed is not None and failed.stage == "chdir"):
        raise InvalidValue(
            f"there is no folder {command.cwd!r} to run in", field="cwd", fix="name a folder of the workspace"
        )
    fault = failed.reason if failed is not None else report.fault if report is not None else ""
    reason = text if text.startswith("bwrap: ") else fault or f"its processes were killed from outside ({code})"
    raise SandboxUnavailable(f"the sandbox did not come up or did not last: {reason}", details={"stderr": text})
