"""Everything that only looks: one run, all runs, their proof, their cost and what they changed."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepgate.cli import diffs, question, summary, words
from stepgate.cli.board import Board
from stepgate.cli.client import PAGE, RUNS, read
from stepgate.cli.connect import Connection, connect
from stepgate.cli.exits import Exit
from stepgate.cli.follow import Follower, StepPages
from stepgate.cli.moving import nobody
from stepgate.cli.run import read_labels
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain, plain_line
from stepgate.domain.states import CLOSED, StepStatus
from stepgate.engine import views
from stepgate.engine.cost_views import Cost, Costs, GroupCost


async def show(session: Session, name: str, *, follow: bool = False) -> Exit:
    """Its steps, why it does not move, and the open question with all that an approver must see.

    With `follow` what happens and what commands print is shown first, until the run has ended; nothing is moved.
    """
    async with connect(session.settings) as connection:
        if follow:
            name = await _watch(session, connection, name)
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


async def _watch(session: Session, connection: Connection, name: str) -> str:
    """Returns the run's id when it has ended."""
    run = await connection.api.run(name)
    steps = await StepPages(connection.api, run.id).read(run)
    told = frozenset(step.id for step in steps if step.status in CLOSED)
    with Board(session.terminal.progress, told, prints=True) as board:
        await Follower(connection, run.id, board, nobody(), patient=True).follow()
    return run.id


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
        found = read(Cost, document)
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
        for call in found.unknown:
            what = f"{plain_line(call.key)}, {plain_line(call.model or words.NOTHING)}, {plain_line(call.status)}"
            say(out, ("unknown  ", "dim"), what)
        if found.inherited is not None:
            say(out, f"inherited, paid in the run it was forked from: {summary.amount(found.inherited)}")
        return Exit.COMPLETED


async def costs(
    session: Session, group: str, label: str | None, only: Sequence[str], since: str | None, until: str | None
) -> Exit:
    """Over all runs, by group."""
    async with connect(session.settings) as connection:
        query = [("group_by", group), *(("only", one) for one in only)]
        query += [(name, value) for name, value in (("label", label), ("since", since), ("until", until)) if value]
        document = await connection.api.get(f"/v1/costs?{urlencode(query)}")
        if session.terminal.json:
            session.answer(document)
            return Exit.COMPLETED
        found = read(Costs, document)
        out = session.terminal.out
        if not found.items:
            say(out, "no model was called")
            return Exit.COMPLETED
        table = _cost_table(label or group, "runs", "calls", "tokens", "cost", "avoided")
        for one in found.items:
            table.add_row(*_cost_cells(one))
        out.print(table)
        return Exit.COMPLETED


def _cost_cells(one: GroupCost) -> tuple[str, ...]:
    avoided = words.NOTHING if one.avoided_cost_usd is None else words.usd(one.avoided_cost_usd)
    return (
        plain_line(one.name or words.NOTHING),
        str(one.runs),
        str(one.calls),
        words.tokens(one.tokens),
        summary.amount(one),
        avoided,
    )


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
    if run.workspace:
        rows.insert(4, ("named", plain_line(run.workspace)))
    if run.forked_from is not None:
        rows.append(("fork of", f"{run.forked_from.run_id} from {plain_line(run.forked_from.from_step)}"))
    if run.private_copy is not None:
        rows.append(("copy", _copy(run.private_copy)))
    if run.name:
        rows.insert(1, ("plan", plain_line(run.name)))
    if run.budget is not None:
        rows.append(("budget", words.budget(run.budget.spent, run.budget.held, run.budget.limit, run.budget.percent)))
    if run.completed_at:
        rows.append(("ended", words.local_time(run.completed_at)))
    if run.undone_at:
        rows.append(("undone", words.local_time(run.undone_at)))
    if run.labels:
        rows.append(("labels", plain_line(", ".join(f"{name}={value}" for name, value in run.labels.items()))))
    rows += [("waits for", Text(sentence, style="yellow")) for sentence in words.waits(run)]
    for name, value in rows:
        say(out, (f"{name:<10}", "dim"), value)


def _copy(copy: views.PrivateCopy) -> str:
    if copy.discarded_at is not None:
        return f"discarded at {words.local_time(copy.discarded_at)}"
    if copy.made_at is None:
        return "not made yet"
    left_out = f", {len(copy.left_out)} left out" if copy.left_out else ""
    return f"{exact_line(copy.path)} ({copy.files} files and folders, {words.size(copy.bytes)}{left_out})"


def _what_next(session: Session, run: views.RunDetail, steps: Sequence[views.Step]) -> None:
    if run.budget is not None and any(reason.kind == "budget" for reason in run.waiting_for):
        more = "--add-tokens" if run.budget.limit.cost_usd is None else "--add-usd"
        say(session.terminal.out, ("extend   ", "dim"), session.command("budget", run.id, more, "..."))
    for step in steps:
        if step.status is StepStatus.AWAITING_APPROVAL:
            say(session.terminal.out, ("approve  ", "dim"), session.command("approve", run.id, step.key))
            say(session.terminal.out, ("reject   ", "dim"), session.command("reject", run.id, step.key))
    for name, line in summary.deliveries(session.settings, run, steps):
        say(session.terminal.out, (f"{name}  ", "dim"), line)
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
