"""Brings a fork's private copy to where the workspace was at the step it forks from."""

import asyncio

from pydantic import Field

from stepgate.domain.ids import new_id
from stepgate.domain.state import FORK, Effect
from stepgate.executors.base import Context, Done, Executor, Params
from stepgate.executors.preview import listed
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.diff import unified
from stepgate.workspace.rewind import rewind


class ForkParams(Params):
    """Whose workspace, and when."""

    run_ids: list[str] = Field(min_length=1, description="the run that was forked, behind those that it is a fork of")
    from_step: str = Field(description="the key of its first step that begins anew")
    kept: list[str] = Field(description="its change sets that stay; all others are taken back")


class Fork(Executor[ForkParams]):
    """The first step of a fork. Its change set is to the person's folder, so that a delivery has all that differs."""

    type = FORK
    effect = Effect.WORKSPACE
    internal = True
    summary = "Brings a fork's private copy to where the workspace was at a step of the run."
    params = ForkParams

    async def execute(self, context: Context, params: ForkParams) -> Done:
        """Raises WorkspaceConflict or Conflict `cannot_fork`, with the paths."""
        applied, kept = list[ChangeSet](), frozenset(params.kept)
        for run_id in params.run_ids:
            applied += await context.sets_of(run_id)
        change_set = await asyncio.to_thread(rewind, context.root, applied, kept, context.blobs, new_id())
        diff = await asyncio.to_thread(unified, change_set, context.blobs, max_bytes=context.bounds.max_output_bytes)
        output = {"run_id": params.run_ids[-1], "from_step": params.from_step, **listed(change_set), "diff": diff}
        return Done(output, change_set if change_set.changes else None)
