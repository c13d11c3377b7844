"""When a question that nobody answers must be looked at: for a reminder on the way, and when its time is over."""

from typing import Final

from stepgate.domain.state import Approval, ApprovalStatus

REMINDERS: Final = (50, 90)
"""How much of its time is over when somebody is reminded of a question, in percent."""


def next_look(question: Approval) -> int | None:
    """The next reminder, or else the end, in microseconds; None where the question is closed or has no end."""
    if question.status is not ApprovalStatus.OPEN or question.expires_at is None:
        return None
    coming = (percent for percent in REMINDERS if percent > question.reminded)
    return next((_reached(question, question.expires_at, percent) for percent in coming), question.expires_at)


def due_reminder(question: Approval, now: int) -> int | None:
    """The percentage to remind of now, None where there is none; what was missed meanwhile is one with the latest."""
    if question.status is not ApprovalStatus.OPEN or question.expires_at is None:
        return None
    passed = [percent for percent in REMINDERS if now >= _reached(question, question.expires_at, percent)]
    return passed[-1] if passed and passed[-1] > question.reminded else None


def is_over(question: Approval, now: int) -> bool:
    """Whether its time has come to an end."""
    return question.expires_at is not None and now >= question.expires_at


def _reached(question: Approval, end: int, percent: int) -> int:
    return question.requested_at + (end - question.requested_at) * percent // 100
