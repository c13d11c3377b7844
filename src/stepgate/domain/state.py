"""The folded state of one run: what the journal adds up to, in persistent maps so that a fold costs O(change).

`RunState` and `StepState` are named tuples and not dataclasses because `_replace` on the hot path costs a third.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from rpds import HashTrieMap, HashTrieSet

from stepgate.domain.ids import RequestId, RunId, StepId
from stepgate.domain.states import FINISHED, RunStatus, StepStatus

UNDO = "undo"
"""The step type of an undo: the one step a finished run still accepts."""


class Effect(StrEnum):
    """What a step does to the world, which decides how it is recovered."""

    NONE = "none"
    WORKSPACE = "workspace"
    ONCE = "once"


class Gate(StrEnum):
    """Whether a person is asked before a step's effect."""

    ALLOW = "allow"
    ASK = "ask"


class Actor(NamedTuple):
    """Who caused an event. `kind`: person, service, agent or system; `channel`: api, cli, console or worker."""

    id: str
    kind: str
    channel: str


class StepSpec(NamedTuple):
    """What a step is; never changes after `step.added`."""

    id: StepId
    key: str
    number: int
    type: str
    effect: Effect
    gate: Gate
    needs: tuple[StepId, ...]
    max_attempts: int
    backoff_ms: int
    timeout_ms: int | None
    on_error: str
    input_sha256: str
    input_size: int
    created_at: int
    why: str | None = None


class ApprovalStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    VOID = "void"


class Approval(NamedTuple):
    """One revision of a question and, once given, its one standing decision."""

    request_id: RequestId
    revision: int
    action_hash: str
    risk: str
    rendering_sha256: str
    required: int
    expires_at: int | None
    on_expiry: str
    policy_version: str
    matched_rules: tuple[str, ...]
    requested_at: int
    status: ApprovalStatus = ApprovalStatus.OPEN
    decided_at: int | None = None
    decided_by: Actor | None = None
    reason: str | None = None
    then: str | None = None
    implied: bool = False


class Usage(NamedTuple):
    """Model calls summed: `priced` of `calls` have a known cost; token sums are None while none is known."""

    calls: int = 0
    priced: int = 0
    cost_usd: Decimal = Decimal(0)
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    source: str | None = None
    model: str | None = None

    @property
    def unknown(self) -> int:
        """How many calls have no known cost (yet)."""
        return self.calls - self.priced

    @property
    def total_usd(self) -> Decimal | None:
        """The cost, or None while the cost of any call is unknown."""
        return self.cost_usd if self.calls == self.priced else None


NO_USAGE = Usage()


class StepResult(NamedTuple):
    """What a computed or completed step left behind; bodies are stored by digest."""

    output_sha256: str
    output_size: int
    change_set_id: str | None = None
    change_set_digest: str | None = None
    workspace_before: str | None = None
    workspace_after: str | None = None
    latency_ms: int | None = None


class StepState(NamedTuple):
    spec: StepSpec
    status: StepStatus = StepStatus.PENDING
    blocked: int = 0
    """How many of its needs are not yet satisfied."""
    granted: bool = False
    """Whether an `execute` named it."""
    attempt: int = 0
    retry_at: int | None = None
    reason: str | None = None
    error: Mapping[str, Any] | None = None
    result: StepResult | None = None
    approvals: tuple[Approval, ...] = ()
    usage: Usage = NO_USAGE
    open_calls: tuple[str, ...] = ()
    """Model calls made and not yet settled."""
    started_at: int | None = None
    completed_at: int | None = None

    @property
    def id(self) -> StepId:
        return self.spec.id

    @property
    def approval(self) -> Approval | None:
        """The latest revision of its question."""
        return self.approvals[-1] if self.approvals else None

    @property
    def authorised(self) -> bool:
        """Whether its gate is open: the latest revision approved, or no question needed and none ever asked."""
        if self.approvals:
            return self.approvals[-1].status is ApprovalStatus.APPROVED
        return self.spec.gate is Gate.ALLOW


class RunInfo(NamedTuple):
    """What a run is; never changes after `run.created`."""

    id: RunId
    goal: str
    name: str | None
    workspace_id: str
    workspace_path: str
    workspace_mode: str
    pool: str
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    requester: Actor
    limits: Mapping[str, Any]
    created_at: int


NO_STEPS: "HashTrieMap[StepId, StepState]" = HashTrieMap()
NO_LINKS: "HashTrieMap[StepId, tuple[StepId, ...]]" = HashTrieMap()
NO_KEYS: "HashTrieMap[str, StepId]" = HashTrieMap()
NO_IDS: "HashTrieSet[StepId]" = HashTrieSet()


class RunState(NamedTuple):
    info: RunInfo
    phase: RunStatus = RunStatus.CREATED
    """The recorded part of the status; `status` adds what follows from the steps."""
    reason: str | None = None
    drain: str | None = None
    """While draining: `kill` stops what runs, `finish` lets it end."""
    allowance: str | None = None
    """`start`: every ready step may run; `execute`: only granted ones; None: nothing may."""
    revision: int = 0
    keys: "HashTrieMap[str, StepId]" = NO_KEYS
    total: int = 0
    """Planned steps (undo steps are not counted)."""
    last_step: StepId | None = None
    """The planned step with the highest number."""
    usage: Usage = NO_USAGE
    queued_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    undone_at: int | None = None

    last_at: int = 0
    """From here on: what an event about a step can change (see `filing`)."""
    workspace_rev: str | None = None
    steps: "HashTrieMap[StepId, StepState]" = NO_STEPS
    dependents: "HashTrieMap[StepId, tuple[StepId, ...]]" = NO_LINKS
    """step -> the steps that had to wait for it when they were added."""
    ready: "HashTrieSet[StepId]" = NO_IDS
    """Startable now: unblocked, allowed, no retry pending."""
    held: "HashTrieSet[StepId]" = NO_IDS
    """Unblocked, waiting for `start` or the next `execute`."""
    in_flight: "HashTrieSet[StepId]" = NO_IDS
    asking: "HashTrieSet[StepId]" = NO_IDS
    review: "HashTrieSet[StepId]" = NO_IDS
    retrying: "HashTrieSet[StepId]" = NO_IDS
    """Startable again, once `retry_at` has come."""
    timers: tuple[tuple[int, StepId], ...] = ()
    """When a step must be looked at, soonest first: for its retry, or for the expiry of its question."""
    open: int = 0
    """Steps not closed."""
    done: int = 0
    """Planned steps closed."""

    @property
    def status(self) -> RunStatus:
        """The phase, or `awaiting_approval` where only a person's decision can move the run."""
        if (
            self.asking
            and self.phase in (RunStatus.RUNNING, RunStatus.QUEUED)
            and not self.ready
            and not self.in_flight
            and not self.retrying
        ):
            return RunStatus.AWAITING_APPROVAL
        return self.phase

    @property
    def next_timer(self) -> int | None:
        return self.timers[0][0] if self.timers else None

    @property
    def finished(self) -> bool:
        return self.phase in FINISHED

    @property
    def settled(self) -> bool:
        """Nothing is in flight."""
        return not self.in_flight

    def step(self, step_id: StepId) -> StepState | None:
        return self.steps.get(step_id)


def satisfies(step: StepState) -> bool:
    """Whether its dependents may go on: done, left out, or failed or refused where the plan says to continue."""
    match step.status:
        case StepStatus.COMPLETED | StepStatus.SKIPPED:
            return True
        case StepStatus.FAILED:
            return step.spec.on_error == "continue"
        case StepStatus.REJECTED:
            approval = step.approval
            return approval is not None and approval.then == "skip"
        case _:
            return False
