"""What every driver of a worker shares: built once, by `compose`."""

from collections.abc import Callable
from dataclasses import dataclass

from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor
from stepgate.executors.base import Bounds
from stepgate.executors.registry import Registry
from stepgate.llm.protocol import ModelRouter
from stepgate.storage.approvals import Approvals
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.claim import Claims
from stepgate.storage.clock import DatabaseClock
from stepgate.storage.committer import Committer
from stepgate.storage.steps import Steps
from stepgate.storage.workspaces import Workspaces
from stepgate.worker.lanes import Lanes
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.locks import ApplyMarks
from stepgate.workspace.sandbox.bubblewrap import Sandbox


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
    workspaces: Workspaces
    blobs: BlobStore
    layers: Layers
    marks: ApplyMarks
    sandbox: Sandbox | None
    router: ModelRouter
    bounds: Bounds
    lanes: Lanes
    step_timeout_ms: int
    ring: Callable[[RunId], None]
    actor: Actor
