"""What a step came to, in a few words and, where people wait for its text, in a few lines."""

from collections.abc import Mapping
from typing import Any

from stepgate.cli import words
from stepgate.cli.text import exact_line, plain, plain_line
from stepgate.domain.states import StepStatus
from stepgate.engine import views

EXCERPT_LINES = 14
OUTPUT_LINES = 6
MOST_PATHS = 3
TEXT_STEPS = frozenset({"analyze", "summarize"})


def brief(step: views.Step) -> str:
    """`README.md, 884 B`, `exit code 1`, `1 file changed`, an error, or nothing."""
    if step.error is not None:
        paths = [path for path in step.error.paths or () if path not in step.error.message]
        named = f": {', '.join(exact_line(path, 80) for path in paths[:MOST_PATHS])}" if paths else ""
        return plain_line(step.error.message, 200) + named
    output = step.output if isinstance(step.output, Mapping) else {}
    given = step.input or {}
    match step.step_type:
        case "read_file":
            read = words.size(_number(output.get("size")))
            return f"{exact_line(str(given.get('path', '')), 80)}, {read}" if output else ""
        case "run_command":
            return _exit(output)
        case "edit_file" | "undo":
            return _files(output)
        case _:
            return plain_line(step.model or "", 80)


def excerpt(step: views.Step) -> list[str]:
    """The beginning of what a model wrote, or the end of what a failed command printed."""
    output = step.output if isinstance(step.output, Mapping) else {}
    if step.step_type in TEXT_STEPS and isinstance(output.get("text"), str):
        lines = [line for line in plain(output["text"]).splitlines() if line.strip()]
        if len(lines) > EXCERPT_LINES:
            return [*lines[:EXCERPT_LINES], f"… {len(lines) - EXCERPT_LINES} more lines"]
        return lines
    if step.step_type == "run_command" and (output.get("exit_code") or step.status is StepStatus.FAILED):
        printed = str(output.get("stderr") or output.get("stdout") or "")
        lines = [line for line in plain(printed[-4000:]).splitlines() if line.strip()]
        return lines[-OUTPUT_LINES:]
    return []


def _exit(output: Mapping[str, Any]) -> str:
    if not output:
        return ""
    if output.get("killed"):
        return f"killed ({plain_line(str(output['killed']))})"
    if output.get("signal") is not None:
        return f"ended by signal {output['signal']}"
    changed = output.get("files") or ()
    return f"exit code {output.get('exit_code')}" + (f", {_files(output)}" if changed else "")


def _files(output: Mapping[str, Any]) -> str:
    files = output.get("files")
    if not isinstance(files, list):
        return ""
    count = _number(output.get("files_total")) or len(files)
    if count == 0:
        return "nothing changed"
    if count == 1:
        file = files[0]
        return f"{file.get('op', 'change')} {exact_line(str(file.get('path', '')), 80)}"
    return f"{count} files changed"


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
