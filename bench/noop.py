"""A step that does nothing, so that what is measured is the engine."""

from stepgate.executors.base import Context, Done, Executor, Outcome, Params


class NoopParams(Params):
    """Takes nothing."""


class Noop(Executor[NoopParams]):
    type = "noop"
    summary = "Does nothing."
    reads_workspace = False
    params = NoopParams

    async def execute(self, context: Context, params: NoopParams) -> Outcome:
        return Done({"ok": True})
