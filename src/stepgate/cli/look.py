"""Everything that only looks: one run, all runs, their proof, their cost and what they changed."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepgate.cli import diffs, question, summary, words
from stepgate.cli.client import PAGE, RUNS, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.follow import StepPages
from stepgate.cli.run import read_labels
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain, plain_line
from stepgate.domain.states import StepStatus
from stepgate.engine import views


async def show(session: Session, name: str) -> Exit:
    """Its steps, why it does not move, and the open question with all that an approver must see."""
    async with connect(session.settings) as connection:
        document = await connection.api.get(f"{RUNS}/{(await connection.api.run(name)).id}")
        run = read(views.RunDetail, document)
        if session.terminal.json:
            session.answer(document)
            return Exit.COMPLETED
        steps = await StepPages(connection.api, run.id).read(run)
        out = session.terminal.out
        _describe(out, run)
        out.print(summary.table(steps))
        for step in steps:
            if step.error is not None:
                say(out, (f"{plain_line(step.key)}: ", "bold"), (plain(step.error.message), "red"))
        say(out, f"total cost: {words.usd(run.total_cost_usd)}, {run.head_seq} events")
        for step in steps:
            if step.status is StepStatus.AWAITING_APPROVAL:
                whole = await connection.api.step(run.id, step.id)
                question.show(out, whole, whole=True)
                out.print()
        _what_next(session, run, steps)
        return Exit.COMPLETED


async def runs(session: Session, *, statuses: Sequence[str], labels: Sequence[str], limit: int) -> Exit:
    """The newest first."""
    wanted: dict[str, Any] = {"status": list(statuses), "limit": min(limit, PAGE)}
    wanted["label"] = [f"{name}={value}" for name, value in read_labels(labels).items()]
    async with connect(session.settings) as connection:
        document: dict[str, Any] = {"items": [], "next_cursor": None}
        while True:
            page = await connection.api.get(RUNS, **{name: value for name, value in wanted.items() if value})
            document["items"] += page["items"]
            document["next_cursor"] = page["next_cursor"]
            missing = limit - len(document["items"])
            if page["next_cursor"] is None or missing <= 0:
                break
            wanted |= {"cursor": page["next_cursor"], "limit": min(missing, PAGE)}
        if session.terminal.json:
            session.answer(document)
            return Exit.COMPLETED
        found = read(views.Page[views.Run], document)
        _list(session.terminal.out, found.items)
        if found.next_cursor is not None:
            say(session.terminal.out, ("there are more; --limit shows them", "dim"))
        return Exit.COMPLETED


async def verify(session: Session, name: str) -> Exit:
    """Whether the journal holds and the tables are what it adds up to."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        document = await connection.api.get(f"{RUNS}/{run.id}/verify")
        found = read(views.Verification, document)
        if session.terminal.json:
            session.answer(document)
        else:
            summary.verification(session.terminal.out, found)
            say(session.terminal.out, ("head ", "dim"), found.head_hash)
        return Exit.COMPLETED if found.verified else Exit.UNVERIFIED


async def cost(session: Session, name: str) -> Exit:
    """By step and by model; what nobody knows is not nothing."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        document = await connection.api.get(f"{RUNS}/{run.id}/cost")
        if session.terminal.json:
            session.answer(document)
            return Exit.COMPLETED
        found = read(views.Cost, document)
        out = session.terminal.out
        table = _cost_table("step", "model", "calls", "tokens", "cost", "source")
        for step in found.by_step:
            table.add_row(
                plain_line(step.key),
                plain_line(step.model or words.NOTHING),
                str(step.calls),
                words.tokens(step.tokens),
                words.usd(step.total_cost_usd),
                plain_line(step.cost_source or words.NOTHING),
            )
        if found.by_step:
            out.print(table)
        say(out, f"total: {summary.total(found)}")
        return Exit.COMPLETED


async def diff(session: Session, name: str, step_name: str | None, *, raw: bool) -> Exit:
    """What a step changed, or the run as a whole."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        path = f"{RUNS}/{run.id}"
        if step_name is not None:
            path += f"/steps/{(await connection.api.step(run.id, step_name)).id}"
        document = await connection.api.get(f"{path}/diff")
        if session.terminal.json:
            session.answer(document)
            return Exit.COMPLETED
        found = read(views.Diff, document)
        out = session.terminal.out
        if raw:
            out.file.write(found.diff)
        elif not found.diff:
            say(session.terminal.progress, ("nothing was changed", "dim"))
        else:
            out.print(diffs.coloured(found.diff), soft_wrap=True)
        if found.diff and not found.applied:
            print_to_stderr("this change is recorded and not applied")
        return Exit.COMPLETED


def print_to_stderr(text: str) -> None:
    """A remark that does not belong to the result."""
    import sys  # noqa: PLC0415

    print(text, file=sys.stderr)


def _describe(out: Console, run: views.RunDetail) -> None:
    rows: list[tuple[str, str | Text]] = [
        ("run", run.id),
        ("goal", plain_line(run.goal)),
        ("status", Text(words.run_status(run), style=words.RUN_STYLES.get(run.status, ""))),
        ("workspace", exact_line(run.workspace_path)),
        ("asked by", f"{plain_line(run.requester.id)} ({plain_line(run.requester.channel)})"),
        ("created", words.local_time(run.created_at)),
    ]
    if run.name:
        rows.insert(1, ("plan", plain_line(run.name)))
    if run.completed_at:
        rows.append(("ended", words.local_time(run.completed_at)))
    if run.undone_at:
        rows.append(("undone", words.local_time(run.undone_at)))
    if run.labels:
        rows.append(("labels", plain_line(", ".join(f"{name}={value}" for name, value in run.labels.items()))))
    rows += [("waits for", Text(sentence, style="yellow")) for sentence in words.waits(run)]
    for name, value in rows:
        say(out, (f"{name:<10}", "dim"), value)


def _what_next(session: Session, run: views.RunDetail, steps: Sequence[views.Step]) -> None:
    for step in steps:
        if step.status is StepStatus.AWAITING_APPROVAL:
            say(session.terminal.out, ("approve  ", "dim"), session.command("approve", run.id, step.key))
            say(session.terminal.out, ("reject   ", "dim"), session.command("reject", run.id, step.key))
    if summary.undoable(run, steps):
        say(session.terminal.out, ("undo it  ", "dim"), session.command("undo", run.id))


def _list(out: Console, found: Sequence[views.Run]) -> None:
    if not found:
        say(out, ("no runs", "dim"))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "status", "steps", "cost", "created"):
        table.add_column(name, no_wrap=True)
    table.add_column("goal", overflow="ellipsis", no_wrap=True)
    for run in found:
        table.add_row(
            run.id,
            Text(words.run_status(run), style=words.RUN_STYLES.get(run.status, "")),
            f"{run.progress.done}/{run.progress.total}",
            words.usd(run.total_cost_usd),
            words.local_time(run.created_at),
            Text(plain_line(run.name or run.goal, 200)),
        )
    out.print(table)


def _cost_table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("calls", "tokens", "cost") else "left", no_wrap=True)
    return table
