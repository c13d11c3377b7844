"""What an executor is given: made for every attempt of every step, so it holds little and finds the rest."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgate.domain.errors import InvalidReference
from stepgate.domain.forking import is_material
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import StepState
from stepgate.domain.states import StepStatus
from stepgate.engine.model_cache import CachedModels, shared
from stepgate.engine.model_calls import JournaledModels
from stepgate.engine.spending import RunSpending
from stepgate.executors.base import AppliedSet, FinishedStep, Models, Planning, Prepared, Replaying
from stepgate.storage.live import Place
from stepgate.worker.planning import RunPlanning
from stepgate.worker.replaying import RunReplaying
from stepgate.worker.run_context import RunContext
from stepgate.workspace.access import Root
from stepgate.workspace.changes import ChangeSet

if TYPE_CHECKING:
    from stepgate.worker.claimed import ClaimedRun


class StepContext(RunContext):
    """The run, its step, the action that was approved, where one was, and what tells that its start is recorded."""

    __slots__ = ("_ready",)

    def __init__(
        self, run: "ClaimedRun", step: StepState, prepared: Prepared | None, ready: "asyncio.Future[None] | None"
    ) -> None:
        super().__init__(run, step, prepared)
        self._ready = ready

    @property
    def run_id(self) -> RunId:
        return self._run.handle.run_id

    @property
    def goal(self) -> str:
        return self._run.handle.state.info.goal

    @property
    def root(self) -> Root:
        return self._run.root

    @property
    def models(self) -> Models:
        tools = self._run.tools
        step_id, submit = self._step.spec.id, self._run.submit
        spending = RunSpending(tools.spending, self._run.handle, tools.actor, submit)
        models = JournaledModels(tools.router, spending, tools.actor, step_id, submit, tools.keep, self._on_text)
        wanted = shared(tools.model_cache, self._run.handle.state.info)
        if wanted is None:
            return models
        answers, load = tools.answers, tools.blobs.get
        return CachedModels(models, answers, wanted, load, tools.router, tools.actor, step_id, submit)

    @property
    def planning(self) -> Planning:
        return RunPlanning(self._run.handle.state, self._run.tools)

    @property
    def replaying(self) -> Replaying:
        return RunReplaying(self._run)

    @property
    def ready(self) -> "asyncio.Future[None] | None":
        return self._ready

    async def finished(self, keys: Sequence[str] | None) -> Sequence[FinishedStep]:
        state = self._run.handle.state
        for key in keys or ():
            if key not in state.keys:
                raise InvalidReference(f"the run has no step {key!r}", field="input.context")
        steps = [step for step in state.steps.values() if is_material(step, keys)]
        steps = sorted((s for s in steps if s.status is StepStatus.COMPLETED), key=lambda s: s.spec.number)
        outputs = await self._run.outputs_of([step.spec.key for step in steps])
        return [FinishedStep(s.spec.key, s.spec.number, s.spec.type, outputs[s.spec.key]) for s in steps]

    async def applied(self) -> Sequence[AppliedSet]:
        state = self._run.handle.state
        found = []
        for row in await self._run.tools.change_sets.applied(self.run_id):
            spec = state.steps[StepId(row.step_id)].spec
            found.append(AppliedSet(row.step_id, spec.key, spec.number, ChangeSet.from_json(row.body)))
        return found

    async def shown(self) -> Mapping[str, Any] | None:
        return await self._run.shown(self._step)

    def _on_text(self, text: str) -> None:
        self.on_output("model", text.encode())

    def on_output(self, stream: str, data: bytes) -> None:
        """Also what a preview prints: models see nothing but the recorded outputs of ended steps."""
        handle, step_id = self._run.handle, self._step.spec.id
        place = Place(handle.run_id, step_id, handle.epoch or 0, handle.state.steps[step_id].attempt)
        self._run.tools.live.take(place, stream, data)
