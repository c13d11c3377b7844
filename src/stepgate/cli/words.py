"""Numbers, times and states in the few words that tables and progress lines have room for."""

from datetime import UTC, datetime

from stepgate.cli.text import plain_line
from stepgate.domain.state import ApprovalStatus
from stepgate.domain.states import RunStatus, StepStatus
from stepgate.engine import views

UNKNOWN = "unknown"
NOTHING = "-"
UNITS = ("KiB", "MiB", "GiB", "TiB")

STEP_STYLES = {
    StepStatus.PENDING: "dim",
    StepStatus.PREPARING: "cyan",
    StepStatus.AWAITING_APPROVAL: "yellow",
    StepStatus.APPROVED: "cyan",
    StepStatus.RUNNING: "cyan",
    StepStatus.COMPUTED: "cyan",
    StepStatus.COMPLETED: "green",
    StepStatus.FAILED: "red",
    StepStatus.SKIPPED: "dim",
    StepStatus.REJECTED: "red",
    StepStatus.CANCELLED: "dim",
    StepStatus.NEEDS_REVIEW: "yellow",
}
STEP_MARKS = {
    StepStatus.COMPLETED: "✓",
    StepStatus.FAILED: "✗",
    StepStatus.REJECTED: "✗",
    StepStatus.SKIPPED: "-",
    StepStatus.CANCELLED: "-",
    StepStatus.AWAITING_APPROVAL: "?",
    StepStatus.NEEDS_REVIEW: "!",
}
RUN_STYLES = {
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
    RunStatus.FAILING: "red",
    RunStatus.AWAITING_APPROVAL: "yellow",
    RunStatus.PAUSED: "yellow",
    RunStatus.CANCELLED: "dim",
}
RISK_STYLES = {"low": "green", "medium": "yellow", "high": "bold red"}
WAITS = {
    "approval": "a decision on step {step}",
    "workspace": "another run to leave the workspace",
    "execute": "its next execute (step {step}), or its start",
    "retry": "the next attempt of step {step}",
    "budget": "a higher limit",
    "review": "somebody to look at step {step}",
    "executor": "a worker that has the executor of its next step",
    "sandbox": "a worker with a sandbox",
    "person": "somebody to go on with it",
}


def duration(milliseconds: float | None) -> str:
    """`12 ms`, `0.84 s`, `2 m 5 s`."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 100:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"


def usd(amount: str | None) -> str:
    """Dollars as they were recorded; what nobody knows is not nothing."""
    return UNKNOWN if amount is None else f"${amount}"


def tokens(counts: views.Tokens) -> str:
    """Input and output, where either is known."""
    if counts.input is None and counts.output is None:
        return NOTHING
    return f"{_count(counts.input)} in, {_count(counts.output)} out"


def amount(value: views.Amount, limit: views.Amount) -> str:
    """Money and tokens, as far as they are limited."""
    parts = []
    if limit.cost_usd is not None:
        parts.append(usd(value.cost_usd))
    if limit.tokens is not None:
        parts.append(f"{_count(value.tokens)} tokens")
    return ", ".join(parts)


def budget(spent: views.Amount, held: views.Amount, limit: views.Amount, percent: int) -> str:
    """`$0.31 of $1 (31 %), $0.02 held`."""
    open_ = held.cost_usd != "0" if limit.cost_usd is not None else bool(held.tokens)
    return f"{amount(spent, limit)} of {amount(limit, limit)} ({percent} %)" + (
        f", {amount(held, limit)} held" if open_ else ""
    )


def size(count: int | None) -> str:
    """`312 B`, `4.2 KiB`, `1.0 MiB`."""
    if count is None:
        return NOTHING
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(UNITS))
    return f"{count / 1024**power:.1f} {UNITS[power - 1]}"


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def local_time(text: str | None) -> str:
    """In the zone of whoever looks."""
    at = moment(text)
    return NOTHING if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span_ms(begin: str | None, end: str | None) -> float | None:
    """From one time to another, or to now."""
    first = moment(begin)
    last = moment(end) or datetime.now(UTC)
    return None if first is None else max(0.0, (last - first).total_seconds() * 1000)


def took(step: views.Step) -> float | None:
    """How long the step worked; for one at work, how long so far."""
    if step.latency_ms is not None:
        return step.latency_ms
    if step.status in (StepStatus.RUNNING, StepStatus.COMPUTED):
        return span_ms(step.started_at, None)
    return None


def step_status(step: views.Step) -> str:
    attempts = f" ({step.attempt} of {step.max_attempts})" if step.attempt > 1 else ""
    inherited = " (inherited)" if step.reason == "inherited" else ""
    return f"{step.status.value}{attempts}{inherited}{_approvals(step)}"


def _approvals(step: views.Step) -> str:
    approval = step.approval
    if approval is None or approval.required.count == 1 or approval.status is not ApprovalStatus.OPEN:
        return ""
    return f" (approvals: {progress(approval)})"


def progress(approval: views.ApprovalRef) -> str:
    """`1 of 2`."""
    return f"{len(approval.approvals)} of {approval.required.count}"


def approvers(approval: views.ApprovalRef) -> list[str]:
    """Who has approved, and for whom."""
    return [
        one.actor.id if one.on_behalf_of is None else f"{one.actor.id} for {one.on_behalf_of}"
        for one in approval.approvals
    ]


def needed(required: views.Required) -> str:
    """What it takes to approve in a few words; empty where whoever may decide is enough."""
    said = [] if required.count == 1 else [f"{required.count} persons"]
    said += [f"with the role {' or '.join(group)}" for group in required.roles]
    said += ["not the requester"] if required.exclude_requester else []
    return ", ".join(said)


def run_status(run: views.Run) -> str:
    more = [plain_line(run.reason)] if run.reason else []
    if run.undone_at is not None:
        more.append("undone")
    return f"{run.status.value} ({', '.join(more)})" if more else run.status.value


def waits(run: views.RunDetail, *, but: str | None = None) -> list[str]:
    """Why the run does not move, one phrase for each reason, but for one kind."""
    keys = {step.id: step.key for step in run.steps}
    sentences = []
    for reason in run.waiting_for:
        if reason.kind == but:
            continue
        step = keys.get(reason.step_id or "", reason.step_id or "")
        until = f", until {local_time(reason.until)}" if reason.until else ""
        sentences.append(WAITS[reason.kind].format(step=plain_line(step)) + until)
    return sentences


def _count(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"
