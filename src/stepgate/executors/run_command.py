"""Runs a command in the sandbox over a throw-away layer; only what it leaves there can reach the workspace."""

import asyncio
import codecs
import hashlib
import posixpath
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, assert_never

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from stepgate.domain import canonical
from stepgate.domain.errors import StepgateError
from stepgate.domain.state import Effect, Gate
from stepgate.executors.base import Context, Done, Executor, Failed, Outcome, Params, Prepared
from stepgate.executors.command_files import command_paths, named_files
from stepgate.executors.command_risk import reasons
from stepgate.executors.fields import RelativeFolder, Text
from stepgate.executors.preview import SHOWN_FILES, hold_to, listed, stale, without_preview
from stepgate.executors.screen import SHOWN_TEXT, one_line, visible
from stepgate.executors.threads import in_thread
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.drift import Snapshot, observe
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import WORKSPACE
from stepgate.workspace.sandbox.bubblewrap import Sandbox
from stepgate.workspace.sandbox.command import Command, Finished, Killed
from stepgate.workspace.sandbox.limits import Limits

# Linux takes no single argument over 128 KiB, and a character can have four bytes.
MAX_ARGUMENT_CHARS: Final = 32_000
MAX_STDIN_CHARS: Final = 4 * 1024 * 1024
SHOWN_STDIN: Final = 4000
SHOWN_VALUE: Final = 300
SHELL: Final = ("/bin/sh", "-c")

Argument = Annotated[Text, Field(max_length=MAX_ARGUMENT_CHARS)]
Bytes = Annotated[int, Field(ge=1, le=2**53)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]


class CommandLimits(Params):
    """Lower limits than the worker's; the worker's hold where one is not given."""

    wall_s: float | None = Field(default=None, gt=0, description="seconds until it is killed")
    cpu_s: float | None = Field(default=None, gt=0, description="seconds of processor time, of all its processes")
    memory_bytes: Bytes | None = Field(default=None, description="memory of all its processes")
    pids: int | None = Field(default=None, ge=1, description="processes and threads at a time")
    file_bytes: Bytes | None = Field(default=None, description="size of any one file")
    open_files: int | None = Field(default=None, ge=8, description="open files of each process")
    tmp_bytes: Bytes | None = Field(default=None, description="what lies in /tmp and /dev/shm")
    written_bytes: Bytes | None = Field(default=None, description="what it writes in the workspace")
    files: int | None = Field(default=None, ge=1, description="how many files it may leave")
    output_bytes: Bytes | None = Field(default=None, description="how much of each output stream is kept")
    output_kill_bytes: Bytes | None = Field(default=None, description="output after which it is killed")


class RunCommandParams(Params):
    """The command, as exactly one of `argv` and `command`, and its surroundings."""

    argv: list[Argument] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="the program and its arguments, run without a shell",
        examples=[["python3", "-m", "unittest"]],
    )
    command: Annotated[Argument, Field(min_length=1)] | None = Field(
        default=None, description="text for /bin/sh -c, where operators or expansions are needed"
    )
    cwd: RelativeFolder = Field(default=".", description="the folder to run in, relative to the workspace")
    env: dict[EnvironmentName, Argument] = Field(
        default_factory=dict, max_length=200, description="environment variables besides the sandbox's own"
    )
    stdin: Annotated[Text, Field(max_length=MAX_STDIN_CHARS)] | None = Field(
        default=None, description="text for standard input; empty if not given"
    )
    limits: CommandLimits | None = Field(default=None, description="limits to lower for this command")
    allow_failure: bool = Field(
        default=False, description="true: another exit code than 0 is a result, and its changes are kept"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, raw: Any) -> Any:
        """Checked on what was written, so that it holds before references are resolved."""
        if isinstance(raw, Mapping) and not set(raw) - set(cls.model_fields):
            given = [name for name in ("argv", "command") if raw.get(name) is not None]
            if len(given) != 1:
                what = "argv and command are both given" if given else "there is no command"
                raise PydanticCustomError("shape", "{message}", {"message": what, "fix": "give one, argv or command"})
        return raw

    @field_validator("argv")
    @classmethod
    def _names_a_program(cls, argv: list[str] | None) -> list[str] | None:
        if argv is not None and not argv[0]:
            raise PydanticCustomError("refused", "the first element names no program", {"fix": "name a program"})
        return argv

    def words(self) -> tuple[str, ...]:
        """What is executed."""
        return tuple(self.argv) if self.argv is not None else (*SHELL, self.command or "")


class RunCommand(Executor[RunCommandParams]):
    """Without a sandbox of the required strength nothing runs (SandboxUnavailable)."""

    type = "run_command"
    effect = Effect.WORKSPACE
    gate = Gate.ASK
    lasts = True
    summary = "Runs a program in a sandbox without network; its changes to files become one change set."
    params = RunCommandParams

    async def prepare(self, context: Context, params: RunCommandParams) -> Prepared:
        """The command as it will run, what it names, and why it may be risky; nothing is started."""
        sandbox = context.require_sandbox()
        title = one_line(f"Run {_shown_command(params)}", 200)
        try:
            command = _command(context, params)
            action = await asyncio.to_thread(_action, context, sandbox, command, params)
        except StepgateError as error:
            return without_preview(title, params, error)
        why = reasons(command.argv, params.command, params.env, action["executable"]) + _too_long(params)
        return Prepared(action, _rendering(title, params, action, why), "high" if why else "medium")

    async def execute(self, context: Context, params: RunCommandParams) -> Outcome:
        """Raises WorkspaceConflict `drifted` where files changed under it, ChangeRefused for what no change set holds,
        InvalidValue by field for limits over the worker's and a folder that is not there.
        """
        sandbox = context.require_sandbox()
        command = _command(context, params)
        before = await asyncio.to_thread(_held, context, sandbox, command, params)
        stack = ExitStack()
        try:
            layer = await in_thread(stack.enter_context, context.layers.open(context.root))
            finished = await sandbox.run(command, layer, on_output=context.on_output)
            # It may have read a named file only now: what it did counts only if nobody changed one meanwhile.
            if before is not None and before.drifted(context.root):
                raise stale()
            if (failed := _failure(finished, allow_failure=params.allow_failure)) is not None:
                return Failed(*failed, output=_output(finished, None))
            change_set = await in_thread(harvest, layer, context.root, context.blobs, command.limits)
        finally:
            await in_thread(stack.close)
        changed = change_set if change_set.changes else None
        return Done(_output(finished, changed), changed)


def _command(context: Context, params: RunCommandParams) -> Command:
    """Raises InvalidValue, with the field, for a limit over the worker's."""
    wanted = params.limits.model_dump(exclude_none=True) if params.limits else {}
    limits = context.bounds.command.narrowed(wanted)
    limits = replace(limits, output_bytes=min(limits.output_bytes, context.bounds.max_output_bytes))
    return Command(params.words(), params.cwd, params.env, (params.stdin or "").encode(), limits)


def _action(context: Context, sandbox: Sandbox, command: Command, params: RunCommandParams) -> dict[str, Any]:
    return {
        "argv": list(command.argv),
        "executable": _executable(sandbox, command),
        "cwd": command.cwd,
        "env": dict(command.env),
        "stdin": hashlib.sha256(command.stdin).hexdigest(),
        "limits": asdict(command.limits),
        "allow_failure": params.allow_failure,
        "network": "none",
        "sandbox": sandbox.level.value,
        "files": named_files(context.root, params.argv or (), params.command, command.cwd),
    }


def _held(context: Context, sandbox: Sandbox, command: Command, params: RunCommandParams) -> Snapshot | None:
    """How the files named stand; raises StaleApproval unless the action is the approved one, where one was."""
    if context.prepared is None:
        return None
    names = command_paths(params.argv or (), params.command, command.cwd)
    seen = observe(context.root, {*names, *context.prepared.action.get("files", ())})
    hold_to(context, _action(context, sandbox, command, params))
    return seen


def _executable(sandbox: Sandbox, command: Command) -> str | None:
    """Where the program lies inside; None where there is none or the command's own PATH decides."""
    program = command.argv[0]
    if "/" not in program:
        return None if "PATH" in command.env else sandbox.resolve_executable(program)
    return sandbox.resolve_executable(posixpath.normpath(posixpath.join(WORKSPACE, command.cwd, program)))


def _shown_command(params: RunCommandParams) -> str:
    return shlex.join(params.argv) if params.argv is not None else params.command or ""


def _too_long(params: RunCommandParams) -> list[str]:
    """What of it does not fit on the approver's screen."""
    parts = {
        "the command": len(_shown_command(params)) > SHOWN_TEXT,
        "standard input": len(params.stdin or "") > SHOWN_STDIN,
        "the environment": any(len(value) > SHOWN_VALUE for value in params.env.values()),
    }
    return [f"{name} is too long to be shown whole" for name, cut in parts.items() if cut]


def _rendering(title: str, params: RunCommandParams, action: Mapping[str, Any], why: list[str]) -> dict[str, Any]:
    named = [{"path": one_line(path), "sha256": one_line(sha256)} for path, sha256 in action["files"].items()]
    notes = [*why, *(["changes are kept even if it fails"] if params.allow_failure else [])]
    return {
        "title": title,
        "command": visible(_shown_command(params)),
        "shell": params.command is not None,
        "executable": one_line(action["executable"]) if action["executable"] else None,
        "cwd": one_line(action["cwd"]),
        "env": {name: visible(value, SHOWN_VALUE) for name, value in params.env.items()},
        "stdin": visible(params.stdin, SHOWN_STDIN) if params.stdin else None,
        "sandbox": {"level": action["sandbox"], "network": "none"},
        "limits": action["limits"],
        "reads": named[:SHOWN_FILES],
        "notes": [visible(note) for note in notes],
    }


def _failure(finished: Finished, *, allow_failure: bool) -> tuple[str, str] | None:
    if finished.killed is not None:
        return "killed", _why_killed(finished.killed, finished.limits)
    if finished.exit_code == 0 or allow_failure:
        return None
    if finished.signal is not None:
        return "exit_nonzero", f"ended by signal {finished.signal}"
    return "exit_nonzero", f"exit code {finished.exit_code}"


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


def _output(finished: Finished, change_set: ChangeSet | None) -> dict[str, Any]:
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
