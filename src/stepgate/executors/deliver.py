"""Applies what an isolated run did to its copy to the person's folder, as one change that is shown and approved."""

import asyncio

from pydantic import Field

from stepgate.domain.errors import StepgateError
from stepgate.domain.ids import new_id
from stepgate.domain.policy.action import Reach
from stepgate.domain.state import Effect, Gate
from stepgate.executors.base import Context, Done, Executor, Params, Prepared
from stepgate.executors.preview import change_digest, hold_to, listed, risk_of, shown, touched, without_preview
from stepgate.executors.screen import one_line
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.deliverable import deliverable
from stepgate.workspace.diff import unified

DELIVER = "deliver"


class DeliverParams(Params):
    """Whose result."""

    run_id: str = Field(description="the isolated run whose result is applied")


class Deliver(Executor[DeliverParams]):
    """The only step of a run of its own, so that undoing that run takes the delivery back."""

    type = DELIVER
    effect = Effect.WORKSPACE
    gate = Gate.ASK
    internal = True
    summary = "Applies the result of an isolated run to the folder that its copy was made of."
    params = DeliverParams

    async def prepare(self, context: Context, params: DeliverParams) -> Prepared:
        """The net change and its diff; no preview where somebody changed the files since."""
        title = one_line(f"Apply the result of run {params.run_id}")
        try:
            change_set = await _net(context, params)
        except StepgateError as error:
            return without_preview(title, params, error)
        seen = await asyncio.to_thread(shown, change_set, context.blobs)
        notes = [] if change_set.changes else ["nothing is left to apply"]
        rendering = {"title": title, "notes": notes, **seen}
        reach = Reach(paths=change_set.paths, complete=True)
        return Prepared(_action(params, change_set), rendering, risk_of(seen), reach=reach, change=touched(change_set))

    async def execute(self, context: Context, params: DeliverParams) -> Done:
        """Raises WorkspaceConflict, with the paths, where somebody changed the files since."""
        change_set = await _net(context, params)
        hold_to(context, _action(params, change_set))
        diff = await asyncio.to_thread(unified, change_set, context.blobs, max_bytes=context.bounds.max_output_bytes)
        output = {"run_id": params.run_id, **listed(change_set), "diff": diff}
        return Done(output, change_set if change_set.changes else None)


def _action(params: DeliverParams, change_set: ChangeSet) -> dict[str, object]:
    return {"run_id": params.run_id, "change_set": change_digest(change_set)}


async def _net(context: Context, params: DeliverParams) -> ChangeSet:
    applied = await context.sets_of(params.run_id)
    return await asyncio.to_thread(deliverable, context.root, applied, new_id())
