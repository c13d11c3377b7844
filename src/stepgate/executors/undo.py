"""Takes back what a run did to its workspace, as one change that is shown, approved and undoable like any other."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from stepgate.domain.errors import InvalidValue, StepgateError
from stepgate.domain.ids import new_id
from stepgate.domain.policy.action import Reach
from stepgate.domain.state import UNDO, Effect, Gate
from stepgate.executors.base import AppliedSet, Context, Done, Executor, Params, Prepared
from stepgate.executors.preview import change_digest, hold_to, listed, risk_of, shown, touched, without_preview
from stepgate.executors.screen import one_line
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.diff import unified
from stepgate.workspace.netundo import net_undo


class UndoParams(Params):
    """How far to go back."""

    to: Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="the key or number of the last step whose changes stay; not given: everything is undone",
    )


class Undo(Executor[UndoParams]):
    """Undo to S keeps what was applied up to S and takes back the rest."""

    type = UNDO
    effect = Effect.WORKSPACE
    gate = Gate.ASK
    internal = True
    summary = "Takes back the changes that the run's steps made to the workspace."
    params = UndoParams

    async def prepare(self, context: Context, params: UndoParams) -> Prepared:
        """The net change and its diff; no preview where somebody changed the files since."""
        title = "Undo everything the run changed" if params.to is None else one_line(f"Undo back to step {params.to}")
        try:
            change_set = await _net(context, params)
        except StepgateError as error:
            return without_preview(title, params, error)
        seen = await asyncio.to_thread(shown, change_set, context.blobs)
        notes = [] if change_set.changes else ["nothing is left to undo"]
        rendering = {"title": title, "notes": notes, **seen}
        reach = Reach(paths=change_set.paths, complete=True)
        return Prepared(_action(params, change_set), rendering, risk_of(seen), reach=reach, change=touched(change_set))

    async def execute(self, context: Context, params: UndoParams) -> Done:
        """Raises WorkspaceConflict, with the paths, where somebody changed the files since, InvalidValue for `to`."""
        change_set = await _net(context, params)
        hold_to(context, _action(params, change_set))
        diff = await asyncio.to_thread(unified, change_set, context.blobs, max_bytes=context.bounds.max_output_bytes)
        return Done({"to": params.to, **listed(change_set), "diff": diff}, change_set if change_set.changes else None)


def _action(params: UndoParams, change_set: ChangeSet) -> dict[str, object]:
    return {"to": params.to, "change_set": change_digest(change_set)}


async def _net(context: Context, params: UndoParams) -> ChangeSet:
    numbers = {step.key: step.number for step in await context.finished(None)} if isinstance(params.to, str) else {}
    change_sets = sets_after(await context.applied(), params.to, numbers)
    return await asyncio.to_thread(net_undo, context.root, change_sets, context.blobs, new_id())


def sets_after(applied: Sequence[AppliedSet], to: str | int | None, numbers: Mapping[str, int]) -> Sequence[ChangeSet]:
    """What was applied after step `to` (a key, or a number); where it changed nothing, by steps of a higher number.

    `numbers` are those of finished steps by key. Raises InvalidValue where none is meant.
    """
    number = int(to) if isinstance(to, int) or (to is not None and to.isdecimal()) else None
    own = [index for index, one in enumerate(applied) if to == one.step_key or number == one.step_number]
    if to is None:
        left = applied
    elif own:
        left = applied[own[-1] + 1 :]
    else:
        number = numbers.get(str(to), number)
        if number is None:
            raise InvalidValue(f"no finished step has the key {to!r}", field="to", fix="name a step by key or number")
        left = [one for one in applied if one.step_number > number]
    return [one.change_set for one in left]
