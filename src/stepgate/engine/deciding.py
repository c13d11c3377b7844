"""What people answer when they are asked: a command each, for every channel the same."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepgate.domain import canonical
from stepgate.domain.commands import Approve, Reject, Skip
from stepgate.domain.decide.answering import check_no_agent
from stepgate.domain.errors import InvalidValue, StaleSteps
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.quorum import OWN, Authority
from stepgate.domain.state import Actor, RunState
from stepgate.engine import planning
from stepgate.engine.commanding import Commanding
from stepgate.engine.editing import edit_of
from stepgate.engine.policies import Policies
from stepgate.engine.replanning import feedback, no_planner
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.committer import Attachments
from stepgate.storage.database import Database
from stepgate.storage.steps import Steps

ADD_ATTEMPTS = 5


class Deciding(Commanding):
    """The verbs that answer a question, or make it needless."""

    database: Database
    _policies: Policies
    _plans: bool
    _max_replans: int
    _local_trust: bool

    @abstractmethod
    def planning_step(self, input_: Mapping[str, Any], key: str = "plan", *, approval: bool = False) -> dict[str, Any]:
        """A step that has a model plan."""

    async def skip(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        reason: str | None,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        return await self._do(run_id, Skip(actor, step_id, check_reason(reason)), idempotency)

    async def approve(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        *,
        action_hash: str | None,
        reason: str | None = None,
        authority: Authority = OWN,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """Without a hash only where this installation trusts local callers, and only for a first revision."""
        self._check_decision(actor, action_hash)
        command = Approve(actor, step_id, action_hash, check_reason(reason), authority)
        return await self._do(run_id, command, idempotency)

    async def reject(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        *,
        action_hash: str | None,
        reason: str | None = None,
        then: str = "abort",
        authority: Authority = OWN,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """`then`: `abort` ends the run, `skip` goes on without the step, `replan` has a model that is told why plan the
        rest anew. Saying no needs no hash.
        """
        if then not in ("abort", "skip", "replan"):
            fix = "send abort, skip or replan"
            raise InvalidValue(f"{then!r} is not one of abort, skip, replan", field="then", fix=fix)
        check_no_agent(actor)
        command = Reject(actor, step_id, action_hash, check_reason(reason), then, authority)
        if then != "replan":
            return await self._do(run_id, command, idempotency)
        if not self._plans:
            raise no_planner()
        for _ in range(ADD_ATTEMPTS):
            try:
                return await self._replan(run_id, command, idempotency)
            except StaleSteps:
                continue
        raise StaleSteps("other steps keep being added", fix="send the request again")

    async def _replan(self, run_id: RunId, command: Reject, idempotency: IdempotencyRow | None) -> RunState:
        """The step that plans anew is added by the very decision that rejects."""
        state = await self.committer.load(run_id)
        rejected = state.steps.get(command.step_id)
        if rejected is None:
            return await self._do(run_id, command, idempotency)
        given = await feedback(state, rejected, command.reason, Steps(self.database))
        raw = {**self.planning_step(given, f"replan-{len(state.steps) + 1}"), "needs": given["context"]}
        definitions = planning.define(planning.steps_of([raw], self.registry, state), self.registry, state)
        command = replace(command, planner=definitions.specs[0], most_replans=self._max_replans)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        return (await self._commit(run_id, [command], attachments))[0]

    async def edit(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        *,
        action_hash: str,
        new_input: Any,
        reason: str | None = None,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """Gives a step that is asked about another input; it is prepared, ruled on and asked about anew.

        Raises InvalidPlan naming each field of `input`, Conflict where the step is not asked about under this hash, or
        where the rules deny what it would do.
        """
        state, policy = await self.committer.load(run_id), await self._policies.load()
        given = (state, step_id, actor, action_hash, new_input, check_reason(reason))
        command, text = edit_of(*given, self.registry, policy, self.database.clock.now())
        attachments = Attachments(inputs={step_id: text}, idempotency=idempotency)
        state, _ = await self._commit(run_id, [command], attachments)
        return state

    def _check_decision(self, actor: Actor, action_hash: str | None) -> None:
        check_no_agent(actor)
        if action_hash is None and not self._local_trust:
            raise InvalidValue(
                "an approval names the action it approves",
                field="action_hash",
                fix="send the action_hash shown with the request, or set STEPGATE_LOCAL_TRUST=1",
            )


def check_reason(reason: str | None) -> str | None:
    """Free text of at most 2,000 characters."""
    if reason is None:
        return None
    canonical.check_text(reason, "reason")
    if len(reason) > 2000:
        raise InvalidValue("more than 2,000 characters", field="reason", fix="shorten the reason")
    return reason
