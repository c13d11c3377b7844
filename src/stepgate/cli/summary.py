"""The end of a followed run: a table of its steps, what it cost, whether its journal holds, and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepgate.cli import words
from stepgate.cli.client import RUNS, Api
from stepgate.cli.follow import StepPages
from stepgate.cli.invocation import command
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain, plain_line
from stepgate.domain.states import FINISHED, StepStatus
from stepgate.engine import views
from stepgate.engine.cost_views import Cost, Usage
from stepgate.settings import Settings

FEW_STEPS = 100


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is told about a run in the end."""

    run: views.RunDetail
    steps: Sequence[views.Step]
    cost: Cost
    verification: views.Verification
    undo_command: str | None

    @property
    def models(self) -> str | None:
        names = sorted({one.model for one in self.cost.by_model if one.model})
        return ", ".join(names) or None

    @property
    def duration_ms(self) -> float | None:
        """From the first step's start to the end; with the time that questions waited."""
        return words.span_ms(self.run.started_at, self.run.completed_at) if self.run.completed_at else None


async def gather(api: Api, settings: Settings, run_id: str) -> Summary:
    """Asks for what a summary tells."""
    run = await api.run(run_id)
    steps = await StepPages(api, run.id).read(run)
    cost = await api.read(Cost, f"{RUNS}/{run.id}/cost")
    verification = await api.read(views.Verification, f"{RUNS}/{run.id}/verify")
    undo = command(settings, "undo", run.id) if undoable(run, steps) else None
    return Summary(run, steps, cost, verification, undo)


def deliveries(settings: Settings, run: views.RunDetail, steps: Sequence[views.Step]) -> list[tuple[str, str]]:
    """What can be done with the result of an isolated run."""
    if run.private_copy is None or not undoable(run, steps):
        return []
    return [
        ("apply it to the folder", command(settings, "deliver", run.id, "--apply")),
        ("write it as a patch", command(settings, "deliver", run.id, "--patch", "FILE")),
        ("make it a branch", command(settings, "deliver", run.id, "--branch", "NAME")),
    ]


def undoable(run: views.Run, steps: Sequence[views.Step]) -> bool:
    """Whether the run has ended and left changes behind."""
    changed = any(step.change_set_id is not None and step.status is StepStatus.COMPLETED for step in steps)
    return changed and run.status in FINISHED and run.undone_at is None


def document(summary: Summary) -> dict[str, Any]:
    """For programs: the one object of `--json`."""
    run, ms = summary.run, summary.duration_ms
    return {
        "run_id": run.id,
        "status": run.status.value,
        "reason": run.reason,
        "waiting_for": [reason.model_dump(mode="json") for reason in run.waiting_for],
        "verified": summary.verification.verified,
        "events": summary.verification.events,
        "workspace_path": run.workspace_path,
        "steps": [_step_document(step) for step in summary.steps],
        "total_cost_usd": summary.cost.total_cost_usd,
        "tokens": run.tokens.model_dump(mode="json"),
        "duration_s": None if ms is None else round(ms / 1000, 3),
        "model": summary.models,
        "undone": run.undone_at is not None,
        "undo_command": summary.undo_command,
    }


def _step_document(step: views.Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "key": step.key,
        "number": step.number,
        "step_type": step.step_type,
        "status": step.status.value,
        "latency_ms": step.latency_ms,
        "cost_usd": step.cost_usd,
        "cost_source": step.cost_source,
        "tokens": step.tokens.model_dump(mode="json"),
        "error": None if step.error is None else step.error.model_dump(mode="json"),
    }


def show(console: Console, settings: Settings, summary: Summary) -> None:
    """The same for people."""
    console.print()
    console.print(table(summary.steps[:FEW_STEPS]))
    if len(summary.steps) > FEW_STEPS:
        say(console, (f"and {len(summary.steps) - FEW_STEPS} more steps", "dim"))
    run = summary.run
    say(console, f"run {run.id}: ", (words.run_status(run), words.RUN_STYLES.get(run.status, "")), _after(summary))
    say(console, f"total: {total(summary.cost)}")
    verification(console, summary.verification)
    kept = " (unchanged: the run worked on a private copy)" if run.private_copy is not None else ""
    say(console, f"workspace: {exact_line(run.workspace_path)}{kept}")
    next_commands(console, settings, summary)


def table(steps: Sequence[views.Step]) -> Table:
    """A row for each step: what it is, how it stands, how long it took and what it cost."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("#", justify="right", no_wrap=True)
    for name in ("step", "type", "status"):
        shown.add_column(name, no_wrap=True)
    for name in ("time", "tokens", "cost"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("cost source", no_wrap=True)
    for step in steps:
        asked_a_model = step.cost_source is not None or step.model is not None
        shown.add_row(
            str(step.number),
            Text(plain_line(step.key), style="bold"),
            step.step_type,
            Text(words.step_status(step), style=words.STEP_STYLES[step.status]),
            words.duration(words.took(step)),
            words.tokens(step.tokens) if asked_a_model else words.NOTHING,
            words.usd(step.cost_usd) if asked_a_model else words.NOTHING,
            plain_line(step.cost_source or words.NOTHING),
        )
    return shown


def verification(console: Console, found: views.Verification) -> None:
    """`journal verified: N events`, or where it breaks."""
    if found.verified:
        say(console, (f"journal verified: {found.events} events", "green"))
        return
    where = f" at event {found.first_bad_seq}" if found.first_bad_seq is not None else ""
    say(console, (f"journal NOT verified{where}: {plain(found.reason or 'no reason given')}", "bold red"))


def next_commands(console: Console, settings: Settings, summary: Summary) -> None:
    """Commands to copy: look at it, answer it, take it back."""
    run = summary.run
    rows = [("look at it", command(settings, "show", run.id))]
    if any(step.change_set_id is not None for step in summary.steps):
        rows.append(("what changed", command(settings, "diff", run.id)))
    for step in summary.steps:
        if step.status is StepStatus.AWAITING_APPROVAL:
            rows.append((f"approve {step.key}", command(settings, "approve", run.id, step.key)))
            rows.append((f"reject {step.key}", command(settings, "reject", run.id, step.key)))
    if run.status not in FINISHED:
        rows.append(("go on", command(settings, "run", "--continue", run.id)))
        rows.append(("end it", command(settings, "cancel", run.id)))
    rows += deliveries(settings, run, summary.steps)
    if summary.undo_command is not None:
        rows.append(("undo it", summary.undo_command))
    for sentence in words.waits(run):
        say(console, ("waits for ", "yellow"), sentence)
    width = max(len(name) for name, _ in rows)
    for name, line in rows:
        say(console, (f"{name:<{width}}  ", "dim"), line)


def _after(summary: Summary) -> str:
    ms = summary.duration_ms
    return "" if ms is None else f" after {words.duration(ms)}"


def total(cost: Cost) -> str:
    """The sum and of how many calls; or what of it is known."""
    calls = f"{cost.calls} model call{'' if cost.calls == 1 else 's'}"
    if cost.total_cost_usd is not None:
        spared = f", {words.usd(cost.avoided_cost_usd)} avoided by caches" if cost.avoided_cost_usd else ""
        return f"{words.usd(cost.total_cost_usd)}, {calls}{spared}"
    return f"{amount(cost)}; the cost of {cost.unknown_calls} of {calls} is unknown"


def amount(cost: Usage) -> str:
    """The sum, or what of it is known."""
    if cost.total_cost_usd is not None:
        return words.usd(cost.total_cost_usd)
    return f"{words.UNKNOWN} (known: {words.usd(cost.known_cost_usd)})"
