"""The folded state of one run: what the journal adds up to, in persistent maps so that a fold costs O(change).

`RunState` and `StepState` are named tuples and not dataclasses because `_replace` on the hot path costs a third.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from rpds import HashTrieMap, HashTrieSet

from stepgate.domain import canonical
from stepgate.domain.budget import NO_BUDGET, Budget
from stepgate.domain.ids import RequestId, RunId, StepId
from stepgate.domain.quorum import Approver, Quorum
from stepgate.domain.states import ACTIVE, CLOSED, FINISHED, RunStatus, StepStatus

UNDO = "undo"
"""The step type of an undo: the one step a finished run still accepts."""
FORK = "fork"
"""The step type that begins a fork: it brings its private copy to where the workspace was."""
_GOAL_ALONE = canonical.digest(canonical.dumps({"add": True}))
"""The input of a planner that is told nothing but the run's goal: whoever starts one asks for nothing else."""


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


SYSTEM = "system"
"""The kind of actors that are no callers: workers, and rules."""
POLICY = Actor("policy", SYSTEM, "worker")
"""Who approves what a rule allows."""


class StepSpec(NamedTuple):
    """What a step is; only a person's edit changes it after `step.added`, and of it only the input."""

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
    insists: bool = False
    """Whether the plan itself wants a person asked, which no rule can loosen."""
    added_by: str | None = None
    """Who put it into the run, as its journal says; None before that, and where no caller did."""
    planner: StepId | None = None
    """The step that wrote it, as the run's journal says; None where a caller did."""
    asked_by: tuple[str, ...] = ()
    """Who asked in another run for what it does in this one."""


class ApprovalStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EDITED = "edited"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    VOID = "void"


class Voice(NamedTuple):
    """One person's answer to a question; `verdict` is approved or rejected."""

    actor: Actor
    verdict: ApprovalStatus
    at: int
    reason: str | None
    implied: bool
    roles: tuple[str, ...] = ()
    on_behalf_of: str | None = None

    @property
    def approver(self) -> Approver:
        return Approver(self.actor.id, self.actor.kind, self.roles, self.on_behalf_of)


class Approval(NamedTuple):
    """One revision of a question, who answered it and, once given, its one standing decision."""

    request_id: RequestId
    revision: int
    action_hash: str
    risk: str
    rendering_sha256: str
    required: Quorum
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
    voices: tuple[Voice, ...] = ()
    """Every answer in order; the one that settled the question is the last."""
    reminded: int = 0
    """How much of its time was over, in percent, when somebody was last reminded of it."""

    @property
    def approvers(self) -> tuple[Approver, ...]:
        return tuple(voice.approver for voice in self.voices if voice.verdict is ApprovalStatus.APPROVED)


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


class Inherited(NamedTuple):
    """How a step of a fork ended in the run that was forked; its output is stored by digest."""

    step_id: StepId
    origin_step_id: StepId
    status: StepStatus
    attempt: int
    error: Mapping[str, Any] | None
    output_sha256: str | None
    output_size: int | None
    started_at: int | None
    completed_at: int
    usage: Usage


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
    inherited: Usage | None = None
    """Of a step that ended in the run that was forked: what it cost there; no part of `usage`."""

    @property
    def id(self) -> StepId:
        return self.spec.id

    def less_blocked(self) -> "StepState":
        """With one need satisfied (by position: `_replace` costs three times as much)."""
        return StepState._make((self.spec, self.status, self.blocked - 1, *self[3:]))

    @property
    def approval(self) -> Approval | None:
        """The latest revision of its question."""
        return self.approvals[-1] if self.approvals else None

    @property
    def editor(self) -> Actor | None:
        """Who gave it the input that it has; None where it is the plan's."""
        return next((one.decided_by for one in reversed(self.approvals) if one.status is ApprovalStatus.EDITED), None)

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
    tenant: str
    """Whose it is: nobody else can see or move it."""
    origin: Mapping[str, Any] | None = None
    """Of a fork: `{run_id, from_step, head_seq, head_hash, requesters, inherited}`; the head is that run's then."""


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
    budget: Budget = NO_BUDGET
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
    """When a step must be looked at, soonest first: for its retry, or for a reminder or the end of its question."""
    open: int = 0
    """Steps not closed."""
    done: int = 0
    """Planned steps closed."""

    @property
    def status(self) -> RunStatus:
        """The phase, or `awaiting_approval` where only a person's decision can move the run."""
        if self.asking and self.phase in ACTIVE and not self.ready and not self.in_flight and not self.retrying:
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

    def requesters(self, step: StepState) -> tuple[str, ...]:
        """Who asked for the step: with the run, by adding it to somebody else's, by having it planned, or in the run
        that was forked or is delivered.
        """
        requester, added_by, origin = self.info.requester.id, step.spec.added_by, self.info.origin or {}
        planner = None if step.spec.planner is None else self.steps[step.spec.planner]
        told = planner is not None and planner.spec.input_sha256 != _GOAL_ALONE
        behind = self.authors(planner) if planner is not None and told else ()
        others = (added_by, *behind, *step.spec.asked_by, *origin.get("requesters", ()))
        return (requester, *dict.fromkeys(one for one in others if one is not None and one != requester))

    def authors(self, step: StepState) -> tuple[str, ...]:
        """Who asked for the step as it is: its requesters, and whoever gave it the input that it has."""
        return (*self.requesters(step), *(() if step.editor is None else (step.editor.id,)))


_DONE = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})


def is_gone(step: StepState) -> bool:
    """Whether it has ended so that its dependents never begin."""
    return step.status in CLOSED and not satisfies(step)


def satisfies(step: StepState) -> bool:
    """Whether its dependents may go on: done, left out, or failed or refused where the plan says to continue."""
    if step.status in _DONE:
        return True
    match step.status:
        case StepStatus.FAILED:
            return step.spec.on_error == "continue"
        case StepStatus.REJECTED:
            approval = step.approval
            return approval is not None and approval.then == "skip"
        case _:
            return False
