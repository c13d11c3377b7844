"""Runs that are made of other runs: a delivery, a fork, a replay."""

from typing import TYPE_CHECKING

from stepgate.domain.commands import Command, Create, Start
from stepgate.domain.ids import RunId, StepId, new_id
from stepgate.domain.state import Actor, RunState
from stepgate.engine import planning
from stepgate.engine.commanding import Commanding
from stepgate.engine.delivery import DELIVERS, REPLAYS, Delivery, info_about
from stepgate.engine.forking import Forking
from stepgate.engine.places import IN_PLACE, ISOLATED, Places
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.committer import Attachments

if TYPE_CHECKING:
    from stepgate.workspace.git.branch import Branch


class Derived(Commanding):
    """The verbs that leave the run they are about as it is and make another one."""

    places: Places
    delivery: Delivery
    forking: Forking

    async def deliver(
        self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """A run of its own whose one step applies an isolated run's result to the folder, once it is approved.

        Returns that run and its step. Raises what `Delivery.check_apply` raises; then nothing was recorded.
        """
        loaded = await self.committer.load(run_id)
        path = self.places.check(loaded.info.workspace_path)
        delivered = await self.delivery.check_apply(run_id, path)
        made = RunId(new_id())
        place = await self.places.choose(made, loaded.info.tenant, path=str(path), name=None, mode=IN_PLACE)
        definitions = planning.define_delivery(delivered, self.registry)
        goal = f"Deliver the result of run {run_id}"
        info = info_about(made, delivered.info, place, actor, DELIVERS, goal)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(info.id, [Create(actor, info, definitions.specs), Start(actor)], attachments)
        return state, definitions.specs[0].id

    async def fork(
        self,
        run_id: RunId,
        from_step: str,
        actor: Actor,
        *,
        start: bool = False,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """A new run that keeps what ended before a step (key or number) and begins anew from there, on a private copy.

        No approval is taken over. Raises what `Forking.fork` raises; then nothing was recorded.
        """
        state, head = await self.committer.load_with_head(run_id)
        folder = self.places.check(state.info.workspace_path)
        forked = await self.forking.fork(state, head, from_step, folder)
        made = RunId(new_id())
        place = await self.places.choose(made, state.info.tenant, path=str(folder), name=None, mode=ISOLATED)
        info = state.info._replace(
            id=made,
            workspace_id=place.workspace_id,
            workspace_path=place.path,
            workspace_mode=place.mode,
            requester=actor,
            created_at=0,
            origin=forked.origin,
        )
        commands: list[Command] = [Create(actor, info, forked.definitions.specs, forked.inherited)]
        if start:
            commands.append(Start(actor))
        attachments = Attachments(
            inputs=dict(forked.definitions.inputs), outputs=dict(forked.outputs), idempotency=idempotency
        )
        return (await self._commit(made, commands, attachments))[0]

    async def replay(
        self, run_id: RunId, actor: Actor, *, printed: bool = True, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """A run of its own whose one step does another run again, in a throw-away copy and out of its record.

        `printed`: whether what commands print is compared too. Returns that run and its step.
        """
        state = await self.committer.load(run_id)
        folder = self.places.check(state.info.workspace_path)
        place = await self.places.beside(folder, state.info.tenant)
        made = RunId(new_id())
        definitions = planning.define_replay(run_id, self.registry, printed=printed)
        info = info_about(made, state.info, place, actor, REPLAYS, f"Replay run {run_id}")
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(made, [Create(actor, info, definitions.specs), Start(actor)], attachments)
        return state, definitions.specs[0].id

    async def deliver_branch(self, run_id: RunId, name: str) -> "Branch":
        """The result as a branch of the folder's repository; the same again changes nothing."""
        state = await self.committer.load(run_id)
        path = self.places.check(state.info.workspace_path)
        return await self.delivery.branch(run_id, name, path, self.places.root)
