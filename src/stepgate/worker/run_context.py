"""What every attempt in a claimed run is given alike, whether it runs for the first time or is replayed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepgate.domain.ids import StepId
from stepgate.domain.state import StepState
from stepgate.executors.base import Bounds, Context, Prepared
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.secrets import SecretFolder

if TYPE_CHECKING:
    from stepgate.worker.claimed import ClaimedRun


class RunContext(Context):
    """The step, and the tools of the worker that holds the run."""

    __slots__ = ("_prepared", "_run", "_step")

    def __init__(self, run: "ClaimedRun", step: StepState, prepared: Prepared | None = None) -> None:
        self._run = run
        self._step = step
        self._prepared = prepared

    @property
    def step_id(self) -> StepId:
        return self._step.spec.id

    @property
    def step_key(self) -> str:
        return self._step.spec.key

    @property
    def blobs(self) -> BlobStore:
        return self._run.tools.blobs

    @property
    def layers(self) -> Layers:
        return self._run.tools.layers

    @property
    def bounds(self) -> Bounds:
        return self._run.tools.bounds

    @property
    def sandbox(self) -> Sandbox | None:
        return self._run.tools.sandbox

    @property
    def secrets(self) -> SecretFolder | None:
        secrets = self._run.tools.secrets
        return None if secrets is None else secrets.of(self._run.handle.state.info.tenant)

    @property
    def prepared(self) -> Prepared | None:
        return self._prepared

    async def sets_of(self, run_id: str) -> Sequence[ChangeSet]:
        return await self._run.tools.change_sets_of(run_id)
