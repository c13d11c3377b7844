"""What a replayed step is given: the throw-away copy, the recorded answers, and what it could see then."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgate.domain.forking import is_material
from stepgate.domain.state import RunState, StepState
from stepgate.executors.base import (
    AppliedSet,
    FinishedStep,
    Models,
    Planning,
    Prepared,
    Replaying,
)
from stepgate.llm.protocol import ModelAnswer, ModelRequest, request_hash
from stepgate.llm.recorded import answer_from
from stepgate.storage.answers import RecordedCall
from stepgate.worker.planning import RunPlanning
from stepgate.worker.run_context import RunContext
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore

if TYPE_CHECKING:
    from stepgate.worker.claimed import ClaimedRun
    from stepgate.worker.replaying import Recorded

NAMED = 20
OK = "ok"


class NotKept(Exception):
    """The step cannot be done again: its effect was outside, it is the engine's own, or an answer was not kept."""


class Diverged(Exception):
    """A step came out otherwise than recorded; `names` are the fields or paths in question."""

    def __init__(self, what: str, expected: str, found: str, names: Sequence[str] = ()) -> None:
        super().__init__(f"{what}: {expected} was recorded, {found} was found")
        self._told = {"what": what, "expected": expected, "found": found, "names": list(names[:NAMED])}

    def told(self) -> Mapping[str, Any]:
        """`{what, expected, found, names}`."""
        return self._told


class RecordedModels(Models):
    """Answers from the record, each once and only to the very question it was given to; no router is there."""

    def __init__(self, calls: Sequence[RecordedCall], blobs: BlobStore) -> None:
        self._calls = [call for call in calls if call.status == OK]
        self._blobs = blobs

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """Raises Diverged for a question that was not asked then, NotKept for one whose answer is not there."""
        asked = request_hash(request)
        call = next((one for one in self._calls if one.request_hash == asked), None)
        if call is None:
            expected = self._calls[0].request_hash if self._calls else "none"
            raise Diverged("question to a model", expected, asked)
        self._calls.remove(call)
        if call.answer_sha256 is None or not self._blobs.has(call.answer_sha256):
            raise NotKept
        return answer_from(await asyncio.to_thread(self._blobs.get, call.answer_sha256))


class ReplayedContext(RunContext):
    """`before` is the run's state when the step began, `seen` the steps that were done by then."""

    def __init__(
        self,
        run: "ClaimedRun",
        root: Root,
        step: StepState,
        before: RunState,
        seen: Collection[str],
        recorded: "Recorded",
    ) -> None:
        super().__init__(run, step)
        self._root = root
        self._before = before
        self._seen = seen
        self._recorded = recorded
        own = [call for call in recorded.calls if call.step_id == step.id]
        self._models = RecordedModels(own, run.tools.blobs)

    def hold(self, prepared: Prepared) -> None:
        """From now on it is executed as an approved action."""
        self._prepared = prepared

    @property
    def run_id(self) -> str:
        return self._recorded.state.info.id

    @property
    def goal(self) -> str:
        return self._recorded.state.info.goal

    @property
    def root(self) -> Root:
        return self._root

    @property
    def models(self) -> Models:
        return self._models

    @property
    def planning(self) -> Planning:
        return RunPlanning(self._before, self._run.tools)

    @property
    def replaying(self) -> Replaying:
        raise NotKept

    @property
    def ready(self) -> "asyncio.Future[None] | None":
        return None

    async def finished(self, keys: Sequence[str] | None) -> Sequence[FinishedStep]:
        steps = [one for one in self._recorded.state.steps.values() if one.id in self._seen]
        wanted = sorted((s for s in steps if is_material(s, keys)), key=lambda s: s.spec.number)
        outputs = self._recorded.outputs
        return [FinishedStep(s.spec.key, s.spec.number, s.spec.type, outputs[s.spec.key]) for s in wanted]

    async def applied(self) -> Sequence[AppliedSet]:
        return ()

    async def shown(self) -> Mapping[str, Any] | None:
        approval = self._step.approval
        if approval is None:
            return None
        approvals = self._run.tools.approvals
        shown: Mapping[str, Any] | None = await approvals.rendering(self._recorded.state.info.id, approval.request_id)
        return shown

    def on_output(self, stream: str, data: bytes) -> None:
        """Nobody watches."""
