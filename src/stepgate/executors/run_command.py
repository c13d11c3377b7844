"""Runs a command in the sandbox over a throw-away layer; only what it leaves there can reach the workspace."""

import asyncio
import hashlib
import posixpath
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, Final

from stepgate.domain.errors import StepgateError
from stepgate.domain.policy.action import Reach
from stepgate.domain.policy.clarity import is_too_long
from stepgate.domain.state import Effect, Gate
from stepgate.executors.base import Context, Executor, Failed, Launched, Outcome, Prepared
from stepgate.executors.command_end import shown_end
from stepgate.executors.command_files import MAX_NAMED, command_paths, named_files, open_words
from stepgate.executors.command_launch import LaunchedCommand, Opened
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.command_risk import reasons
from stepgate.executors.command_sandbox import least_level, network, sandbox_for, shown_sandbox, warnings
from stepgate.executors.preview import SHOWN_FILES, hold_to, without_preview
from stepgate.executors.readings import disguised, exact, exact_line, plain
from stepgate.executors.screen import SHOWN_TEXT, visible
from stepgate.executors.secrets import Secrets
from stepgate.executors.threads import in_thread
from stepgate.workspace.drift import observe
from stepgate.workspace.layers.layer import WORKSPACE, Capture
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.sandbox import Sandbox

SHOWN_STDIN: Final = 4000
SHOWN_VALUE: Final = 300


class RunCommand(Executor[RunCommandParams]):
    """Without a sandbox of the required strength nothing runs (SandboxUnavailable)."""

    type = "run_command"
    varies = frozenset({"wall_ms", "cpu_ms", "peak_memory_bytes"})
    effect = Effect.WORKSPACE
    gate = Gate.ASK
    lasts = True
    sandboxed = True
    readies = True
    summary = "Runs a program in a sandbox without network; its changes to files become one change set."
    params = RunCommandParams

    def always_asks(self, params: RunCommandParams) -> bool:
        """What is given a secret is looked at by a person."""
        return bool(params.secrets)

    def reach(self, params: RunCommandParams) -> Reach:
        """The command and the paths that its words name; it can touch any other."""
        named = tuple(islice(command_paths(params.argv or (), params.command, params.cwd), MAX_NAMED + 1))
        open_ = tuple(islice(open_words(params.argv or (), params.command, params.cwd), MAX_NAMED + 1))
        return Reach(
            paths=tuple(dict.fromkeys(named[:MAX_NAMED])),
            cut=max(len(named), len(open_)) > MAX_NAMED or is_too_long(params.argv or (), params.command),
            words=open_[:MAX_NAMED],
            argv=None if params.argv is None else tuple(params.argv),
            shell=params.command,
            cwd=params.cwd,
            env=(*params.env, *params.secrets),
            planned_env=(*params.env, *params.secrets),
            stdin=params.stdin is not None,
        )

    async def prepare(self, context: Context, params: RunCommandParams) -> Prepared:
        """The command as it will run, what it names, and why it may be risky; nothing is started."""
        sandbox = sandbox_for(context, params)
        unsafe = warnings(sandbox)
        title = exact_line(f"Run {'WITHOUT A SANDBOX ' if unsafe else ''}{_shown_command(params)}", 200)
        # Outside of the block: without its secrets there is nothing that a person could approve.
        secrets = await Secrets.of(context, params.secrets)
        try:
            command = _command(context, params, secrets)
            action, reach = await asyncio.to_thread(self._look, context, sandbox, command, params, secrets)
        except StepgateError as error:
            return without_preview(title, params, error)
        why = unsafe + reasons(command.argv, params.command, command.env, action["executable"])
        why += _too_long(params, action) + _disguised(params, action)
        rendering = _rendering(title, params, action, why) | {"sandbox": shown_sandbox(sandbox, action)}
        rendering["undo_max_bytes"] = context.blobs.undo_max_bytes
        return Prepared(action, rendering, "high" if why else "medium", reach=reach, ahead=not unsafe)

    def _look(
        self, context: Context, sandbox: Sandbox, command: Command, params: RunCommandParams, secrets: Secrets
    ) -> tuple[dict[str, Any], Reach]:
        action = _with_files(context, sandbox, command, params, secrets)
        return action, self._reached(sandbox, params, action)

    def _reached(self, sandbox: Sandbox, params: RunCommandParams, action: Mapping[str, Any]) -> Reach:
        named = self.reach(params)
        paths = tuple(sorted({*named.paths, *action["files"]}))
        return replace(
            named,
            paths=paths,
            env=(*action["env"], *params.secrets),
            executable=action["executable"],
            resolved=True,
            sandbox_level=sandbox.level.value,
        )

    def previews(self, params: RunCommandParams) -> bool:
        """What is given a secret runs only once a person approved it."""
        return not params.secrets

    def show_outcome(self, outcome: Outcome) -> dict[str, Any]:
        return shown_end(outcome.output)

    async def launch(self, context: Context, params: RunCommandParams) -> Launched | None:
        """Not with secrets, nor over a copy: what is in that cannot be looked at once more."""
        if params.secrets or context.layers.probe().capture is not Capture.OVERLAY:
            return None
        try:
            launched = await self._launch(context, params, await Secrets.of(context, ()), ahead=True)
        except (StepgateError, OSError):
            return None
        if launched.over is Capture.OVERLAY:
            return launched
        await launched.discard()
        return None

    async def execute(self, context: Context, params: RunCommandParams) -> Outcome:
        """Raises what `LaunchedCommand.finish` raises, StaleApproval where the files are not what they were, and
        InvalidValue by field for limits over the worker's and a folder that is not there.
        """
        if params.secrets and context.prepared is None:
            return Failed("not_approved", "a command with secrets runs only once a person approved it", field="secrets")
        secrets = await Secrets.of(context, params.secrets)
        return await (await self._launch(context, params, secrets, ahead=False)).finish(context)

    async def _launch(
        self, context: Context, params: RunCommandParams, secrets: Secrets, *, ahead: bool
    ) -> LaunchedCommand:
        sandbox = sandbox_for(context, params)
        command = _command(context, params, secrets)
        stack = ExitStack()

        async def close() -> None:
            stack.close()
            if secrets.given:  # what it wrote of them in its layer is gone before the step is over
                await in_thread(context.layers.settle)

        try:
            opened = await in_thread(_open, stack, context, sandbox, command, params, secrets, ahead=ahead)
            action = _action(sandbox, command, params, secrets)
            running = sandbox.launch(command, opened.layer, on_output=context.on_output)
        except BaseException as error:
            await close()
            if not isinstance(error, Exception) or (clean := secrets.cleaned(error)) is error:
                raise
            raise clean from None
        allowed = params.allow_failure
        return LaunchedCommand(
            sandbox, command, opened, running, secrets, action=action, allow_failure=allowed, close=close
        )


def _command(context: Context, params: RunCommandParams, secrets: Secrets) -> Command:
    """Raises InvalidValue, with the field, for a limit over the worker's."""
    wanted = params.limits.model_dump(exclude_none=True) if params.limits else {}
    limits = context.bounds.command.narrowed(wanted)
    limits = replace(limits, output_bytes=min(limits.output_bytes, context.bounds.max_output_bytes))
    env = {**context.bounds.environment, **params.env, **secrets.environment}
    stdin = (params.stdin or "").encode()
    return Command(params.words(), params.cwd, env, stdin, limits, secrets.forms if secrets.given else None)


def _action(sandbox: Sandbox, command: Command, params: RunCommandParams, secrets: Secrets) -> dict[str, Any]:
    """What an approval covers, but the files."""
    return {
        "argv": list(command.argv),
        "executable": _executable(sandbox, command),
        "cwd": command.cwd,
        "env": {name: value for name, value in command.env.items() if name not in secrets.versions},
        "secrets": dict(secrets.versions),
        "stdin": hashlib.sha256(command.stdin).hexdigest(),
        "limits": asdict(command.limits),
        "allow_failure": params.allow_failure,
        "network": network(sandbox),
        "sandbox": least_level(sandbox, params).value,
    }


def _with_files(
    context: Context, sandbox: Sandbox, command: Command, params: RunCommandParams, secrets: Secrets
) -> dict[str, Any]:
    """All that an approval covers; reads the files that are named."""
    files = named_files(context.root, params.argv or (), params.command, command.cwd)
    return {**_action(sandbox, command, params, secrets), "files": files}


def _open(
    stack: ExitStack,
    context: Context,
    sandbox: Sandbox,
    command: Command,
    params: RunCommandParams,
    secrets: Secrets,
    *,
    ahead: bool,
) -> Opened:
    """A layer that is given up with the stack. Raises StaleApproval unless the action is the approved one.

    `ahead` of the approval's being looked at it is compared afterwards.
    """
    before = None
    if ahead or context.prepared is not None:
        known = () if context.prepared is None else context.prepared.action.get("files", ())
        before = observe(context.root, {*command_paths(params.argv or (), params.command, command.cwd), *known})
    if context.prepared is not None:
        hold_to(context, _with_files(context, sandbox, command, params, secrets))
    layer = context.layers.take(context.root)
    stack.callback(context.layers.retire, layer)
    return Opened(layer, before)


def _executable(sandbox: Sandbox, command: Command) -> str | None:
    """Where the program lies inside; None where there is none or the command's own PATH decides."""
    program = command.argv[0]
    if "/" not in program:
        return None if "PATH" in command.env else sandbox.resolve_executable(program)
    return sandbox.resolve_executable(posixpath.normpath(posixpath.join(WORKSPACE, command.cwd, program)))


def _shown_command(params: RunCommandParams) -> str:
    return shlex.join(params.argv) if params.argv is not None else params.command or ""


def _disguised(params: RunCommandParams, action: Mapping[str, Any]) -> list[str]:
    """What of it a person could take for something else."""
    words = (*params.words(), params.cwd, *action["env"], *action["env"].values(), *params.secrets, *action["files"])
    if not any(map(disguised, words)):
        return []
    return ["it has characters that act on a screen or pass for others; they are written out as escapes"]


def _too_long(params: RunCommandParams, action: Mapping[str, Any]) -> list[str]:
    """What of it does not fit on the approver's screen."""
    env = action["env"]
    parts = {
        "the command": len(_shown_command(params)) > SHOWN_TEXT,
        "standard input": len(params.stdin or "") > SHOWN_STDIN,
        "the environment": any(len(value) > SHOWN_VALUE for value in env.values()),
        "the list of files that it names": len(action["files"]) > SHOWN_FILES,
    }
    return [f"{name} is too long to be shown whole" for name, cut in parts.items() if cut]


def _rendering(title: str, params: RunCommandParams, action: Mapping[str, Any], why: list[str]) -> dict[str, Any]:
    named = [{"path": exact_line(path), "sha256": exact_line(sha256)} for path, sha256 in action["files"].items()]
    notes = [*why, *(["changes are kept even if it fails"] if params.allow_failure else [])]
    whole = len(_shown_command(params)) <= SHOWN_TEXT
    return {
        "title": title,
        "command": exact(_shown_command(params), SHOWN_TEXT),
        **({"argv": [exact(word, SHOWN_TEXT) for word in params.argv]} if params.argv and whole else {}),
        "shell": params.command is not None,
        "executable": exact_line(action["executable"]) if action["executable"] else None,
        "cwd": exact_line(action["cwd"]),
        "env": {exact_line(name): exact(value, SHOWN_VALUE) for name, value in action["env"].items()},
        "secrets": action["secrets"],
        "stdin": plain(params.stdin, SHOWN_STDIN) if params.stdin else None,
        "limits": action["limits"],
        "reads": named[:SHOWN_FILES],
        "notes": [visible(note) for note in notes],
    }
