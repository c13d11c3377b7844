"""What every driver of a worker shares: built once, by `compose`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepgate.domain.ids import RunId
from stepgate.domain.policy.decide import Policy
from stepgate.domain.state import Actor
from stepgate.engine.policies import Policies
from stepgate.engine.spending import Spending
from stepgate.executors.base import Bounds
from stepgate.executors.registry import Registry
from stepgate.llm.protocol import ModelRouter
from stepgate.storage.answers import Answers
from stepgate.storage.approvals import Approvals
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.claim import Claims
from stepgate.storage.clock import DatabaseClock
from stepgate.storage.committer import Committer
from stepgate.storage.journals import Journals
from stepgate.storage.origins import Origins
from stepgate.storage.steps import Steps
from stepgate.storage.workspaces import Workspaces
from stepgate.worker.lanes import Lanes
from stepgate.worker.live import LiveOutput
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.isolated import Copies
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.locks import ApplyMarks
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.secrets import SecretFolder


@dataclass(frozen=True, slots=True)
class Tools:
    """One process's means; `sandbox` is None where none of the required strength works."""

    registry: Registry
    committer: Committer
    clock: DatabaseClock
    claims: Claims
    steps: Steps
    approvals: Approvals
    change_sets: ChangeSets
    answers: Answers
    journals: Journals
    workspaces: Workspaces
    origins: Origins
    copies: Copies
    workspace_root: Path
    blobs: BlobStore
    layers: Layers
    marks: ApplyMarks
    sandbox: Sandbox | None
    router: ModelRouter
    model_cache: str
    spending: Spending
    bounds: Bounds
    lanes: Lanes
    live: LiveOutput
    secrets: SecretFolder | None
    step_timeout_ms: int
    ring: Callable[[RunId], None]
    actor: Actor
    policies: Policies

    @property
    def policy(self) -> Policy:
        """The rules of now; between two looks they may be others."""
        return self.policies.current

    def sweep(self) -> None:
        """Removes what dead processes of this host left in the state folder; what living ones hold is locked."""
        self.layers.sweep()
        self.blobs.sweep()

    def keep(self, body: bytes) -> str:
        """Stores a body durably; returns its sha256."""
        sha256 = self.blobs.put(body)
        self.blobs.sync()
        return sha256

    async def change_sets_of(self, run_id: str) -> Sequence[ChangeSet]:
        """Every change set that a run applied, in the order it did."""
        return [ChangeSet.from_json(row.body) for row in await self.change_sets.applied(RunId(run_id))]
