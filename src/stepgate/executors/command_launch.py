"""A command in its sandbox, from its layer to its outcome; the sandbox may be set up before the command may run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stepgate.domain import canonical
from stepgate.executors.base import Context, Done, Failed, Launched, Outcome, Prepared
from stepgate.executors.command_end import failure, output_of
from stepgate.executors.preview import stale
from stepgate.executors.secrets import Secrets
from stepgate.executors.threads import in_thread
from stepgate.workspace.drift import Snapshot
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import Capture, Layer
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.running import Running
from stepgate.workspace.sandbox.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Opened:
    """A layer and, where it matters, how the files that the command names stood before it was opened."""

    layer: Layer
    before: Snapshot | None


class LaunchedCommand(Launched):
    """A sandbox over a layer of its own."""

    def __init__(
        self,
        sandbox: Sandbox,
        command: Command,
        opened: Opened,
        running: Running,
        secrets: Secrets,
        *,
        action: Mapping[str, Any],
        allow_failure: bool,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._sandbox = sandbox
        self._command = command
        self._opened = opened
        self._running = running
        self._secrets = secrets
        self._action = action
        self._allow_failure = allow_failure
        self._close = close
        self._over = False

    @property
    def over(self) -> Capture:
        """What kind of layer it has."""
        return self._opened.layer.capture

    def fits(self, context: Context, prepared: Prepared) -> bool:
        """Whether it lives, is of this very action, and all files of that are what they were before the layer."""
        before, action = self._opened.before, dict(prepared.action)
        files = action.pop("files", None)
        if before is None or files is None or prepared.failure is not None or not self._running.alive:
            return False
        same = canonical.dumps(action) == canonical.dumps(dict(self._action))
        return same and files.keys() <= before.seen.keys() and not before.drifted(context.root)

    async def finish(self, context: Context) -> Outcome:
        """Raises WorkspaceConflict `drifted` where files changed under it, ChangeRefused for what no change set
        holds.
        """
        self._over = True
        try:
            return await self._outcome(context)
        except Exception as error:
            if (clean := self._secrets.cleaned(error)) is error:
                raise
            raise clean from None
        finally:
            await self._close()

    async def _outcome(self, context: Context) -> Outcome:
        layer, before = self._opened.layer, self._opened.before
        finished = await self._running.run(ready=context.ready)
        # It may have read a named file only now: what it did counts only if nobody changed one meanwhile.
        if before is not None and before.drifted(context.root):
            raise stale()
        if (failed := failure(finished, allow_failure=self._allow_failure)) is not None:
            return Failed(*failed, output=output_of(self._sandbox, finished, None), own_end=finished.killed is None)
        if layer.untouched():
            return Done(output_of(self._sandbox, finished, None))
        limits = self._command.limits
        if self._secrets.given:
            await in_thread(self._secrets.refuse_in, layer, context.root, limits.files)
        change_set = await in_thread(harvest, layer, context.root, context.blobs, limits)
        changed = change_set if change_set.changes else None
        return Done(output_of(self._sandbox, finished, changed), changed)

    async def discard(self) -> None:
        """Nothing of the command has run, and nothing is left."""
        if not self._over:
            self._over = True
            try:
                await self._running.discard()
            finally:
                await self._close()
