"""The two state machines as data: every status, every event, and the one table of allowed transitions for each.

A transition that is not a row here cannot be folded, whoever asks for it.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class RunStatus(StrEnum):
    CREATED = "created"
    """Has a goal and no steps yet."""
    PLANNING = "planning"
    """A planner is writing the steps."""
    PLANNED = "planned"
    """Has steps; nobody has said start or execute."""
    QUEUED = "queued"
    """May run; no worker has recorded anything yet."""
    RUNNING = "running"
    """A worker has recorded at least one fact; more can move, or it waits for the next `execute`."""
    AWAITING_APPROVAL = "awaiting_approval"
    """A person must decide, and nothing else of the run can move. Derived from the steps, never recorded."""
    PAUSING = "pausing"
    """No new step starts; what runs is being stopped, what is computed is applied to its end."""
    PAUSED = "paused"
    """Stands still until somebody resumes it; `reason` says why."""
    CANCELLING = "cancelling"
    """No new step starts; the run ends `cancelled` once nothing is in flight."""
    CANCELLED = "cancelled"
    """Ended by a person (cancel, or a rejection that aborts)."""
    FAILING = "failing"
    """A step failed; siblings in flight finish, then the run ends `failed`."""
    FAILED = "failed"
    """Ended by a failed step."""
    COMPLETED = "completed"
    """Every step came to an end that counts as done."""


class StepStatus(StrEnum):
    PENDING = "pending"
    """Waits for its needs, for the next `execute`, for a retry, or for a worker."""
    PREPARING = "preparing"
    """Effect-free work whose result the approver will see."""
    AWAITING_APPROVAL = "awaiting_approval"
    """Waits for a person's decision on exactly the action shown."""
    APPROVED = "approved"
    """May start, if the action is still the one that was approved."""
    RUNNING = "running"
    """A worker executes it."""
    COMPUTED = "computed"
    """Its change set is recorded and durable; it will be applied to its end."""
    COMPLETED = "completed"
    """Finished; its output is recorded and its effect applied."""
    FAILED = "failed"
    """Ended in an error, its retries used up."""
    SKIPPED = "skipped"
    """Left out by a person; its dependents go on."""
    REJECTED = "rejected"
    """A person said no (or the question expired)."""
    CANCELLED = "cancelled"
    """Ended because the run ended."""
    NEEDS_REVIEW = "needs_review"
    """The engine cannot know what is right; a person must look."""


class EventType(StrEnum):
    RUN_CREATED = "run.created"
    RUN_PLANNED = "run.planned"
    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    RUN_PAUSING = "run.pausing"
    RUN_PAUSED = "run.paused"
    RUN_RESUMED = "run.resumed"
    RUN_CANCELLING = "run.cancelling"
    RUN_CANCELLED = "run.cancelled"
    RUN_FAILING = "run.failing"
    RUN_FAILED = "run.failed"
    RUN_COMPLETED = "run.completed"
    RUN_UNDONE = "run.undone"
    STEP_ADDED = "step.added"
    STEP_PREPARING = "step.preparing"
    STEP_PREPARED = "step.prepared"
    STEP_STARTED = "step.started"
    STEP_COMPUTED = "step.computed"
    STEP_COMPLETED = "step.completed"
    STEP_FAILED = "step.failed"
    STEP_RETRIED = "step.retried"
    STEP_SKIPPED = "step.skipped"
    STEP_REJECTED = "step.rejected"
    STEP_CANCELLED = "step.cancelled"
    STEP_DISCARDED = "step.discarded"
    STEP_NEEDS_REVIEW = "step.needs_review"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_EXPIRED = "approval.expired"
    MODEL_CALLED = "model.called"
    MODEL_SETTLED = "model.settled"


R, S, E = RunStatus, StepStatus, EventType

FINISHED: Final = frozenset({R.CANCELLED, R.FAILED, R.COMPLETED})
"""Run statuses that never change again."""
DRAINING: Final = frozenset({R.PAUSING, R.CANCELLING, R.FAILING})
"""Run statuses in which nothing new starts and what is in flight comes to an end."""
CLOSED: Final = frozenset({S.COMPLETED, S.FAILED, S.SKIPPED, S.REJECTED, S.CANCELLED})
"""Step statuses that never change again."""
IN_FLIGHT: Final = frozenset({S.PREPARING, S.RUNNING, S.COMPUTED})
"""Step statuses in which a worker has recorded that it works on the step."""
STARTABLE: Final = frozenset({S.PENDING, S.APPROVED})
"""Step statuses a worker may take up."""

_PAUSE = {E.RUN_PAUSING: (R.PAUSING,)}
_CANCEL = {E.RUN_CANCELLING: (R.CANCELLING,)}

RUN_TRANSITIONS: Final[Mapping[RunStatus, Mapping[EventType, tuple[RunStatus, ...]]]] = MappingProxyType(
    {
        R.CREATED: {E.RUN_PLANNED: (R.PLANNED,), **_CANCEL},
        R.PLANNED: {E.RUN_QUEUED: (R.QUEUED,), E.RUN_PLANNED: (R.PLANNED,), **_PAUSE, **_CANCEL},
        R.QUEUED: {
            E.RUN_QUEUED: (R.QUEUED,),
            E.RUN_PLANNED: (R.QUEUED,),
            E.RUN_STARTED: (R.RUNNING,),
            **_PAUSE,
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
            E.RUN_COMPLETED: (R.COMPLETED,),
        },
        R.RUNNING: {
            E.RUN_QUEUED: (R.RUNNING,),
            E.RUN_PLANNED: (R.RUNNING,),
            **_PAUSE,
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
            E.RUN_COMPLETED: (R.COMPLETED,),
        },
        R.PAUSING: {E.RUN_PAUSED: (R.PAUSED,), **_CANCEL, E.RUN_FAILING: (R.FAILING,)},
        R.PAUSED: {
            E.RUN_RESUMED: (R.QUEUED, R.RUNNING, R.PLANNED),
            E.RUN_PLANNED: (R.PAUSED,),
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
        },
        R.CANCELLING: {E.RUN_CANCELLED: (R.CANCELLED,)},
        R.FAILING: {E.RUN_FAILED: (R.FAILED,), **_CANCEL},
        R.CANCELLED: {E.RUN_UNDONE: (R.CANCELLED,)},
        R.FAILED: {E.RUN_UNDONE: (R.FAILED,)},
        R.COMPLETED: {E.RUN_UNDONE: (R.COMPLETED,)},
    }
)
"""phase -> event -> the phases it may lead to. `awaiting_approval` is a view of `queued` and `running`: no row."""

_LEAVE = {E.STEP_SKIPPED: (S.SKIPPED,), E.STEP_CANCELLED: (S.CANCELLED,)}
_TROUBLE = {
    E.STEP_FAILED: (S.FAILED,),
    E.STEP_RETRIED: (S.PENDING, S.APPROVED),
    E.STEP_NEEDS_REVIEW: (S.NEEDS_REVIEW,),
}
_RESULT = {E.STEP_COMPUTED: (S.COMPUTED,), E.STEP_COMPLETED: (S.COMPLETED,)}
_CALLS = (E.MODEL_CALLED, E.MODEL_SETTLED)

STEP_TRANSITIONS: Final[Mapping[StepStatus, Mapping[EventType, tuple[StepStatus, ...]]]] = MappingProxyType(
    {
        S.PENDING: {
            E.STEP_PREPARING: (S.PREPARING,),
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            E.RUN_QUEUED: (S.PENDING,),
            **_RESULT,
            **_TROUBLE,
            **_LEAVE,
        },
        S.PREPARING: {
            E.STEP_PREPARING: (S.PREPARING,),
            E.STEP_PREPARED: (S.PREPARING,),
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            **_TROUBLE,
            **_LEAVE,
        },
        S.AWAITING_APPROVAL: {
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_APPROVED: (S.APPROVED,),
            E.APPROVAL_REJECTED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_EXPIRED: (S.AWAITING_APPROVAL,),
            E.STEP_REJECTED: (S.REJECTED,),
            **_LEAVE,
        },
        S.APPROVED: {
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            E.RUN_QUEUED: (S.APPROVED,),
            **_RESULT,
            **_TROUBLE,
            **_LEAVE,
        },
        S.RUNNING: {
            E.STEP_STARTED: (S.RUNNING,),
            **_RESULT,
            **_TROUBLE,
            E.STEP_CANCELLED: (S.CANCELLED,),
        },
        S.COMPUTED: {E.STEP_COMPLETED: (S.COMPLETED,), E.STEP_NEEDS_REVIEW: (S.NEEDS_REVIEW,)},
        S.NEEDS_REVIEW: {E.STEP_RETRIED: (S.PENDING, S.APPROVED, S.COMPUTED), **_LEAVE},
        S.COMPLETED: {E.RUN_UNDONE: (S.COMPLETED,)},
        S.FAILED: {},
        S.SKIPPED: {},
        S.REJECTED: {},
        S.CANCELLED: {},
    }
)
"""status -> event -> the statuses it may lead to."""

ANYTIME: Final = frozenset({E.STEP_DISCARDED, *_CALLS})
"""Step events that record a fact without moving the step: a late result, a call and what it cost."""


def run_targets(phase: RunStatus, event: EventType) -> tuple[RunStatus, ...]:
    """The phases this event may lead to from here; empty where it is not allowed."""
    return RUN_TRANSITIONS.get(phase, {}).get(event, ())


def step_targets(status: StepStatus, event: EventType) -> tuple[StepStatus, ...]:
    """The statuses this event may lead to from here; empty where it is not allowed."""
    if event in ANYTIME:
        return (status,)
    return STEP_TRANSITIONS[status].get(event, ())
