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
    """A goal was accepted, for one workspace."""
    RUN_PLANNING = "run.planning"
    """A planner is to write the steps; the step that has it do so follows."""
    RUN_PLANNED = "run.planned"
    """The run has its plan, or a new revision of it; the steps come inside it."""
    RUN_QUEUED = "run.queued"
    """Somebody said `start`, or `execute` for the one step it names."""
    RUN_STARTED = "run.started"
    """A worker recorded its first fact."""
    RUN_PAUSING = "run.pausing"
    """The run is to stand still; `drain` says whether what runs is stopped or may finish."""
    RUN_PAUSED = "run.paused"
    """Nothing is in flight any more; the run stands still."""
    RUN_RESUMED = "run.resumed"
    """Somebody let the run go on."""
    RUN_CANCELLING = "run.cancelling"
    """The run is to end; what is in flight comes to its end first."""
    RUN_CANCELLED = "run.cancelled"
    """The run ended because a person wanted it to."""
    RUN_FAILING = "run.failing"
    """A step failed for good; what is in flight comes to its end first."""
    RUN_FAILED = "run.failed"
    """The run ended because a step failed."""
    RUN_COMPLETED = "run.completed"
    """The last step came to its end; all of them count as done."""
    RUN_UNDONE = "run.undone"
    """What the run changed in its workspace was taken back; its status stays."""
    STEP_ADDED = "step.added"
    """One more step, after the plan; to a finished run only an undo."""
    STEP_INHERITED = "step.inherited"
    """In a fork: the step ended in the run that was forked, and is not executed again."""
    STEP_PREPARING = "step.preparing"
    """A worker began the effect-free work whose result the approver will see."""
    STEP_PREPARED = "step.prepared"
    """That work is done; the question follows."""
    STEP_STARTED = "step.started"
    """A worker began an attempt, or (`again`) the one that another worker lost."""
    STEP_COMPUTED = "step.computed"
    """The change set is recorded and durable; from here it is applied to its end."""
    STEP_COMPLETED = "step.completed"
    """The step is done: its output is recorded and its change set applied."""
    STEP_FAILED = "step.failed"
    """The step ended in an error; no attempt is left."""
    STEP_RETRIED = "step.retried"
    """The step goes back to be taken up again, at once or at `retry_at`."""
    STEP_SKIPPED = "step.skipped"
    """A person left the step out."""
    STEP_REJECTED = "step.rejected"
    """A person said no, or the question's time was over."""
    STEP_CANCELLED = "step.cancelled"
    """The step was closed because its run is ending."""
    STEP_DISCARDED = "step.discarded"
    """A report came too late to count; nothing moves."""
    STEP_NEEDS_REVIEW = "step.needs_review"
    """The engine stopped at something only a person can judge."""
    APPROVAL_REQUESTED = "approval.requested"
    """This exact action, under this hash, was put before a person."""
    APPROVAL_COUNTED = "approval.counted"
    """One of the persons that it takes said yes to exactly that action; the question stays open."""
    APPROVAL_APPROVED = "approval.approved"
    """A person, or the last of those that it takes, said yes to exactly that action."""
    APPROVAL_REJECTED = "approval.rejected"
    """A person said no; `then` says whether the run ends or goes on."""
    APPROVAL_REMINDED = "approval.reminded"
    """Half, or nine tenths, of the time to decide is over and nobody has."""
    APPROVAL_EDITED = "approval.edited"
    """A person gave the step another input; what was asked is void, and it is asked about anew."""
    APPROVAL_EXPIRED = "approval.expired"
    """Nobody decided in time."""
    MODEL_CALLED = "model.called"
    """A model is about to be called; the call may be billed even if its answer is lost."""
    MODEL_SETTLED = "model.settled"
    """The call ended; what it cost is known, or known to be unknown."""
    BUDGET_ALERTED = "budget.alerted"
    """So much of a budget is spent: 50, 80 or 100 percent."""
    BUDGET_EXTENDED = "budget.extended"
    """Somebody added to what the run may spend."""


R, S, E = RunStatus, StepStatus, EventType

ACTIVE: Final = frozenset({R.PLANNING, R.QUEUED, R.RUNNING})
"""Run statuses in which steps may be taken up, unless the run has finished."""
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
RECORDED: Final = frozenset({S.RUNNING, S.COMPUTED})
"""Step statuses of an attempt whose beginning, or whose result, is in the journal."""

_PAUSE = {E.RUN_PAUSING: (R.PAUSING,)}
_CANCEL = {E.RUN_CANCELLING: (R.CANCELLING,)}
_MONEY = (E.BUDGET_ALERTED, E.BUDGET_EXTENDED)


def _stays(phase: RunStatus, *events: EventType) -> dict[EventType, tuple[RunStatus, ...]]:
    return dict.fromkeys(events, (phase,))


RUN_TRANSITIONS: Final[Mapping[RunStatus, Mapping[EventType, tuple[RunStatus, ...]]]] = MappingProxyType(
    {
        R.CREATED: {
            **_stays(R.CREATED, *_MONEY),
            E.RUN_PLANNED: (R.PLANNED,),
            E.RUN_PLANNING: (R.PLANNING,),
            **_CANCEL,
        },
        R.PLANNING: {
            **_stays(R.PLANNING, E.RUN_QUEUED, E.STEP_ADDED, *_MONEY),
            E.RUN_PLANNED: (R.PLANNED, R.QUEUED),
            **_PAUSE,
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
            E.RUN_COMPLETED: (R.COMPLETED,),
        },
        R.PLANNED: {**_stays(R.PLANNED, E.STEP_ADDED, *_MONEY), E.RUN_QUEUED: (R.QUEUED,), **_PAUSE, **_CANCEL},
        R.QUEUED: {
            **_stays(R.QUEUED, E.RUN_PLANNED, E.RUN_QUEUED, E.STEP_ADDED, *_MONEY),
            E.RUN_STARTED: (R.RUNNING,),
            **_PAUSE,
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
            E.RUN_COMPLETED: (R.COMPLETED,),
        },
        R.RUNNING: {
            **_stays(R.RUNNING, E.RUN_PLANNED, E.RUN_QUEUED, E.STEP_ADDED, *_MONEY),
            **_PAUSE,
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
            E.RUN_COMPLETED: (R.COMPLETED,),
        },
        R.PAUSING: {
            **_stays(R.PAUSING, E.RUN_PLANNED, E.STEP_ADDED, *_MONEY),
            E.RUN_PAUSED: (R.PAUSED,),
            **_CANCEL,
            E.RUN_FAILING: (R.FAILING,),
        },
        R.PAUSED: {
            **_stays(R.PAUSED, E.RUN_PLANNED, E.STEP_ADDED, *_MONEY),
            E.RUN_RESUMED: (R.QUEUED, R.RUNNING, R.PLANNED, R.PLANNING),
            **_CANCEL,
        },
        R.CANCELLING: {**_stays(R.CANCELLING, *_MONEY), **_CANCEL, E.RUN_CANCELLED: (R.CANCELLED,)},
        R.FAILING: {**_stays(R.FAILING, *_MONEY), E.RUN_FAILED: (R.FAILED,), **_CANCEL},
        R.CANCELLED: _stays(R.CANCELLED, E.STEP_ADDED, E.RUN_UNDONE, E.BUDGET_ALERTED),
        R.FAILED: _stays(R.FAILED, E.STEP_ADDED, E.RUN_UNDONE, E.BUDGET_ALERTED),
        R.COMPLETED: _stays(R.COMPLETED, E.STEP_ADDED, E.RUN_UNDONE, E.BUDGET_ALERTED),
    }
)
"""phase -> event -> the phases it may lead to. `awaiting_approval` is a view: no row."""

_LEAVE = {E.STEP_SKIPPED: (S.SKIPPED,), E.STEP_CANCELLED: (S.CANCELLED,)}
_TROUBLE = {E.STEP_FAILED: (S.FAILED,), E.STEP_NEEDS_REVIEW: (S.NEEDS_REVIEW,)}
_RESULT = {E.STEP_COMPUTED: (S.COMPUTED,), E.STEP_COMPLETED: (S.COMPLETED,)}
_CALLS = (E.MODEL_CALLED, E.MODEL_SETTLED)

STEP_TRANSITIONS: Final[Mapping[StepStatus, Mapping[EventType, tuple[StepStatus, ...]]]] = MappingProxyType(
    {
        S.PENDING: {
            E.STEP_INHERITED: (S.COMPLETED, S.SKIPPED, S.FAILED),
            E.STEP_PREPARING: (S.PREPARING,),
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            E.RUN_QUEUED: (S.PENDING,),
            E.STEP_RETRIED: (S.PENDING,),
            **_RESULT,
            **_TROUBLE,
            **_LEAVE,
        },
        S.PREPARING: {
            E.STEP_PREPARING: (S.PREPARING,),
            E.STEP_PREPARED: (S.PREPARING,),
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            E.STEP_RETRIED: (S.PENDING,),
            **_TROUBLE,
            E.STEP_CANCELLED: (S.CANCELLED,),
        },
        S.AWAITING_APPROVAL: {
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_COUNTED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_APPROVED: (S.APPROVED,),
            E.APPROVAL_REJECTED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_REMINDED: (S.AWAITING_APPROVAL,),
            E.APPROVAL_EDITED: (S.PENDING,),
            E.APPROVAL_EXPIRED: (S.AWAITING_APPROVAL,),
            E.STEP_RETRIED: (S.PENDING,),
            E.STEP_REJECTED: (S.REJECTED,),
            **_LEAVE,
        },
        S.APPROVED: {
            E.APPROVAL_REQUESTED: (S.AWAITING_APPROVAL,),
            E.STEP_STARTED: (S.RUNNING,),
            E.RUN_QUEUED: (S.APPROVED,),
            E.STEP_RETRIED: (S.APPROVED,),
            **_RESULT,
            **_TROUBLE,
            **_LEAVE,
        },
        S.RUNNING: {
            E.STEP_STARTED: (S.RUNNING,),
            E.STEP_RETRIED: (S.PENDING, S.APPROVED),
            **_RESULT,
            **_TROUBLE,
            E.STEP_CANCELLED: (S.CANCELLED,),
        },
        S.COMPUTED: {E.STEP_COMPLETED: (S.COMPLETED,), E.STEP_NEEDS_REVIEW: (S.NEEDS_REVIEW,)},
        S.NEEDS_REVIEW: {E.STEP_RETRIED: (S.PENDING, S.APPROVED, S.COMPUTED), **_LEAVE},
        S.COMPLETED: {},
        S.FAILED: {},
        S.SKIPPED: {},
        S.REJECTED: {},
        S.CANCELLED: {},
    }
)
"""status -> event -> the statuses it may lead to."""

ANYTIME: Final = frozenset({E.STEP_DISCARDED, *_CALLS})
"""Step events that record a fact without moving the step: a late result, a call and what it cost."""


_STEP_TARGETS = {status: {**row, **dict.fromkeys(ANYTIME, (status,))} for status, row in STEP_TRANSITIONS.items()}


def run_targets(phase: RunStatus, event: EventType) -> tuple[RunStatus, ...]:
    """The phases this event may lead to from here; empty where it is not allowed."""
    return RUN_TRANSITIONS.get(phase, {}).get(event, ())


def step_targets(status: StepStatus, event: EventType) -> tuple[StepStatus, ...]:
    """The statuses this event may lead to from here; empty where it is not allowed."""
    return _STEP_TARGETS[status].get(event, ())
