"""Why a run does not move: a pure function of what the tables say, for every surface that shows a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stepgate.domain.states import DRAINING, FINISHED, StepStatus
from stepgate.domain.states import RunStatus as R


class Kind(StrEnum):
    APPROVAL = "approval"
    """A decision on the step."""
    WORKSPACE = "workspace"
    """Another run changes the workspace."""
    EXECUTE = "execute"
    """The next `execute`, or `start`."""
    RETRY = "retry"
    """The time of the step's next attempt."""
    BUDGET = "budget"
    """A higher limit, then `resume`."""
    REVIEW = "review"
    """A look at the step, then `resume`."""
    EXECUTOR = "executor"
    """A worker that has the step's executor, then `resume`."""
    SANDBOX = "sandbox"
    """A worker with a sandbox, then `resume`."""
    PERSON = "person"
    """Steps to be added, or `resume`."""


_PAUSED = {"budget": Kind.BUDGET, "executor_missing": Kind.EXECUTOR, "sandbox_unavailable": Kind.SANDBOX}


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a run's row decides; `moving`: it needs nothing but a worker, or a worker has it."""

    phase: R
    reason: str | None
    moving: bool
    started: bool
    """Whether it was started as a whole, so that no step waits for `execute`."""
    held_for: str | None
    held_until: datetime | None


@dataclass(frozen=True, slots=True)
class Stuck:
    """A step that asks, waits for its next attempt, or needs a look."""

    step_id: str
    status: StepStatus
    retry_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason; `until` is when it ends by itself, None where it does not."""

    kind: Kind
    step_id: str | None = None
    until: datetime | None = None


def waiting_for(run: Standing, steps: Iterable[Stuck], next_step: str | None) -> list[Reason]:
    """Every reason, in order of step number; empty where the run moves, or has come to its end.

    `steps` are the run's stuck ones in that order, `next_step` the one that the next `execute` would let run.
    """
    if run.phase in DRAINING:
        return []
    if run.phase is R.PAUSED:
        return _paused(run, steps)
    reasons = [reason for step in steps if (reason := _of_step(step)) is not None]
    if run.held_for is not None:
        reasons.append(Reason(Kind.WORKSPACE, None, run.held_until))
    if run.phase in FINISHED:
        return reasons
    if run.phase is R.CREATED:
        return [*reasons, Reason(Kind.PERSON)]
    if next_step is not None and not run.started and not run.moving:
        reasons.append(Reason(Kind.EXECUTE, next_step))
    return reasons


def _paused(run: Standing, steps: Iterable[Stuck]) -> list[Reason]:
    looked_at = [Reason(Kind.REVIEW, step.step_id) for step in steps if step.status is StepStatus.NEEDS_REVIEW]
    if looked_at:
        return looked_at
    return [Reason(_PAUSED.get(run.reason or "", Kind.PERSON))]


def _of_step(step: Stuck) -> Reason | None:
    match step.status:
        case StepStatus.AWAITING_APPROVAL:
            return Reason(Kind.APPROVAL, step.step_id, step.expires_at)
        case StepStatus.NEEDS_REVIEW:
            return Reason(Kind.REVIEW, step.step_id)
        case _ if step.retry_at is not None:
            return Reason(Kind.RETRY, step.step_id, step.retry_at)
        case _:
            return None
