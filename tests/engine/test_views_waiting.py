"""Why a run does not move, from what its tables say."""

from datetime import UTC, datetime

import pytest

from stepgate.domain.states import DRAINING, FINISHED, StepStatus
from stepgate.domain.states import RunStatus as R
from stepgate.engine.waiting import Kind, Reason, Standing, Stuck, waiting_for

LATER = datetime(2026, 1, 31, tzinfo=UTC)
ASKS = Stuck("a", StepStatus.AWAITING_APPROVAL, None, LATER)
RETRIES = Stuck("b", StepStatus.PENDING, LATER, None)
TROUBLED = Stuck("c", StepStatus.NEEDS_REVIEW, None, None)


def standing(
    phase: R,
    *,
    reason: str | None = None,
    moving: bool = False,
    started: bool = True,
    held_for: str | None = None,
    held_until: datetime | None = None,
) -> Standing:
    return Standing(phase, reason, moving, started, held_for, held_until)


def test_a_run_without_steps_waits_for_a_person() -> None:
    assert waiting_for(standing(R.CREATED, started=False), [], None) == [Reason(Kind.PERSON)]


def test_a_planned_run_waits_for_execute_of_its_first_step() -> None:
    assert waiting_for(standing(R.PLANNED, started=False), [], "a") == [Reason(Kind.EXECUTE, "a")]


def test_a_step_that_moves_hides_the_next_execute() -> None:
    assert waiting_for(standing(R.RUNNING, started=False, moving=True), [], "b") == []


def test_a_started_run_never_waits_for_execute() -> None:
    assert waiting_for(standing(R.QUEUED), [], "a") == []


def test_questions_and_retries_say_when_they_end_by_themselves() -> None:
    assert waiting_for(standing(R.RUNNING), [ASKS, RETRIES], None) == [
        Reason(Kind.APPROVAL, "a", LATER),
        Reason(Kind.RETRY, "b", LATER),
    ]


def test_a_held_workspace_is_a_reason_beside_the_others() -> None:
    held = standing(R.RUNNING, held_for="workspace", held_until=LATER)
    assert waiting_for(held, [ASKS], None) == [Reason(Kind.APPROVAL, "a", LATER), Reason(Kind.WORKSPACE, None, LATER)]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("manual", Kind.PERSON),
        ("approval_expired", Kind.PERSON),
        (None, Kind.PERSON),
        ("budget", Kind.BUDGET),
        ("executor_missing", Kind.EXECUTOR),
        ("sandbox_unavailable", Kind.SANDBOX),
    ],
)
def test_a_paused_run_waits_for_what_paused_it(reason: str | None, kind: Kind) -> None:
    assert waiting_for(standing(R.PAUSED, reason=reason), [RETRIES], "a") == [Reason(kind)]


def test_a_run_paused_for_review_names_the_steps_to_look_at() -> None:
    assert waiting_for(standing(R.PAUSED, reason="needs_review"), [ASKS, TROUBLED], None) == [Reason(Kind.REVIEW, "c")]


@pytest.mark.parametrize("phase", sorted(DRAINING))
def test_a_draining_run_waits_for_nobody(phase: R) -> None:
    assert waiting_for(standing(phase), [ASKS, RETRIES], "a") == []


@pytest.mark.parametrize("phase", sorted(FINISHED))
def test_a_finished_run_waits_only_for_its_undo(phase: R) -> None:
    assert waiting_for(standing(phase, started=False), [], "a") == []
    assert waiting_for(standing(phase), [ASKS], None) == [Reason(Kind.APPROVAL, "a", LATER)]
