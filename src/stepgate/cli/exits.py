"""What the exit code of every command means, and how runs and errors become one."""

from enum import IntEnum
from typing import assert_never

from stepgate.domain.errors import (
    DatabaseUnavailable,
    SandboxUnavailable,
    SchemaMismatch,
    StepgateError,
    Unauthenticated,
    Unavailable,
)
from stepgate.domain.states import RunStatus, StepStatus


class Exit(IntEnum):
    """A verb that moves a run ends with how the run stands."""

    COMPLETED = 0
    """The run completed, or what was asked is done."""
    FAILED = 1
    """The run failed."""
    USAGE = 2
    """Bad input, or a question that nobody could be asked."""
    CANCELLED = 3
    """The run was cancelled, or an action rejected."""
    WAITING = 4
    """The run waits for somebody."""
    ENVIRONMENT = 5
    """Database, port, server or another part of the environment."""
    NO_SANDBOX = 6
    """Commands cannot run here."""
    UNVERIFIED = 7
    """The journal does not hold."""
    INTERRUPTED = 130
    """Ctrl-C: the run was handed back."""


def of_run(status: RunStatus, reason: str | None) -> Exit:
    """How a run that is followed no further stands."""
    match status:
        case RunStatus.COMPLETED:
            return Exit.COMPLETED
        case RunStatus.FAILED | RunStatus.FAILING:
            return Exit.FAILED
        case RunStatus.CANCELLED | RunStatus.CANCELLING:
            return Exit.CANCELLED
        case RunStatus.PAUSED if reason == "sandbox_unavailable":
            return Exit.NO_SANDBOX
        case (
            RunStatus.CREATED
            | RunStatus.PLANNING
            | RunStatus.PLANNED
            | RunStatus.QUEUED
            | RunStatus.RUNNING
            | RunStatus.AWAITING_APPROVAL
            | RunStatus.PAUSING
            | RunStatus.PAUSED
        ):
            return Exit.WAITING
        case _:
            assert_never(status)


def of_step(status: StepStatus) -> Exit:
    """How a step that was followed for its own sake (an undo) stands."""
    match status:
        case StepStatus.COMPLETED | StepStatus.SKIPPED:
            return Exit.COMPLETED
        case StepStatus.FAILED:
            return Exit.FAILED
        case StepStatus.REJECTED | StepStatus.CANCELLED:
            return Exit.CANCELLED
        case (
            StepStatus.PENDING
            | StepStatus.PREPARING
            | StepStatus.AWAITING_APPROVAL
            | StepStatus.APPROVED
            | StepStatus.RUNNING
            | StepStatus.COMPUTED
            | StepStatus.NEEDS_REVIEW
        ):
            return Exit.WAITING
        case _:
            assert_never(status)


def of_error(error: StepgateError) -> Exit:
    """What an error of this process means."""
    match error:
        case SandboxUnavailable():
            return Exit.NO_SANDBOX
        case DatabaseUnavailable() | SchemaMismatch() | Unavailable() | Unauthenticated():
            return Exit.ENVIRONMENT
        case _:
            return Exit.USAGE


def of_problem(status: int, code: str) -> Exit:
    """What an error that the API answered means."""
    if code == "sandbox_unavailable":
        return Exit.NO_SANDBOX
    if status == 401 or status >= 500:
        return Exit.ENVIRONMENT
    return Exit.USAGE
