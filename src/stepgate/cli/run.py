"""`run`: a plan becomes a run, and the run is followed to its end or to a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgate.cli import faults, moving
from stepgate.cli.client import Api
from stepgate.cli.connect import Connection, connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.follow import StepPages
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.domain.errors import InvalidPlan, Problem
from stepgate.domain.limits import MAX_PLAN_BYTES
from stepgate.domain.params import read_arguments
from stepgate.domain.plan_text import line_of, parse_plan_text
from stepgate.domain.states import CLOSED, FINISHED, RunStatus
from stepgate.engine import views
from stepgate.settings import Settings


@dataclass(frozen=True, slots=True)
class Where:
    """Where a run shall work: in a folder or a named workspace, itself or a private copy; nothing given: the root."""

    folder: str | None = None
    name: str | None = None
    isolated: bool = False

    def body(self, settings: Settings) -> dict[str, Any]:
        """The fields of a request that say so."""
        given: dict[str, Any] = {"workspace": self.name, "workspace_mode": "isolated" if self.isolated else None}
        if self.folder is not None:
            given["workspace_path"] = self.folder if settings.url else absolute(self.folder)
        return {name: value for name, value in given.items() if value is not None}


async def run_goal(session: Session, goal: str, *, where: Where, labels: Sequence[str], yes: bool, wait: bool) -> Exit:
    """A run with only a goal: a model plans it, and its steps are followed like those of a plan."""
    body = {"goal": goal, "labels": read_labels(labels), "start": True, **where.body(session.settings)}
    async with connect(session.settings) as connection:
        return await _follow(session, connection, await connection.api.create(body), yes=yes, wait=wait)


async def run_plan(
    session: Session,
    plan: Path,
    *,
    params: Sequence[str],
    where: Where,
    labels: Sequence[str],
    yes: bool,
    wait: bool,
) -> Exit:
    """Everything is checked before anything is made."""
    text = read_plan(plan)
    document = parse(plan, text)
    body: dict[str, Any] = {
        "plan": document,
        "params": read_arguments(document.get("params"), params),
        "labels": read_labels(labels),
        "start": True,
        **where.body(session.settings),
    }
    async with connect(session.settings) as connection:
        run = await create(connection.api, body, plan, text)
        return await _follow(session, connection, run, yes=yes, wait=wait)


async def _follow(session: Session, connection: Connection, run: views.RunDetail, *, yes: bool, wait: bool) -> Exit:
    session.run_id = run.id
    if not wait:
        return recorded(session, run)
    place = "a private copy of " if run.private_copy is not None else ""
    say(session.terminal.progress, f"run {run.id} in {place}", (run.workspace_path, "bold"))
    return await to_the_end(session, connection, run, yes=yes)


async def go_on(session: Session, name: str, *, yes: bool) -> Exit:
    """Takes a run up where it stands: a paused one is resumed, one that was never started is started."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        session.run_id = session.about = run.id
        match run.status:
            case RunStatus.PAUSED:
                run = await connection.api.verb(run.id, "resume")
            case RunStatus.PLANNED | RunStatus.CREATED:
                run = await connection.api.verb(run.id, "start")
            case _ if any(reason.kind == "execute" for reason in run.waiting_for):
                run = await connection.api.verb(run.id, "start")
            case _:
                pass
        target = await _open_undo(connection.api, run) if run.status in FINISHED else None
        return await to_the_end(session, connection, run, yes=yes, target=target)


async def to_the_end(
    session: Session, connection: Connection, run: views.RunDetail, *, yes: bool, target: str | None = None
) -> Exit:
    """Follows with questions; a question that nobody could be asked is an error of its own."""
    gates = moving.gates(session, yes=yes)
    stand = await moving.follow(session, connection, run, gates, target)
    if stand.asked and not stand.left and stand.exit is Exit.WAITING:
        moving.unanswered(stand)
        ended = await moving.conclude(session, connection, stand)
        return Exit.USAGE if ended is Exit.WAITING else ended
    return await moving.conclude(session, connection, stand)


async def create(api: Api, body: dict[str, Any], plan: Path, text: bytes) -> views.RunDetail:
    """Raises CliError whose faults say where in the file they are."""
    try:
        return await api.create(body)
    except CliError as error:
        error.problems = tuple(_placed(problem, plan, text) for problem in error.problems)
        raise


async def _open_undo(api: Api, run: views.RunDetail) -> str | None:
    """The one kind of step that a run which has ended can still have open."""
    steps = await StepPages(api, run.id).read(run)
    return next((step.id for step in steps if step.status not in CLOSED), None)


def recorded(session: Session, run: views.RunDetail) -> Exit:
    """The run is there and due; some worker will take it up."""
    go_on_command = session.command("run", "--continue", run.id)
    if session.terminal.json:
        session.answer({"run_id": run.id, "status": run.status.value, "continue_command": go_on_command})
    else:
        say(session.terminal.out, f"run {run.id} is recorded; a worker takes it up, or: {go_on_command}")
    return Exit.COMPLETED


def read_plan(path: Path) -> bytes:
    """The file's bytes; raises CliError where there is no such plan."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_PLAN_BYTES + 1)
    except FileNotFoundError as error:
        raise faults.usage("PLAN", f"there is no file {str(path)!r}", "name a plan, such as plans/x.yaml") from error
    except IsADirectoryError as error:
        raise faults.usage("PLAN", f"{str(path)!r} is a folder", "name a plan file in it") from error
    except (OSError, ValueError) as error:
        raise faults.usage("PLAN", f"{str(path)!r} cannot be read: {error}", "name a readable file") from error


def parse(path: Path, text: bytes) -> dict[str, Any]:
    """The plan as data; raises CliError with the line where it is no YAML or JSON."""
    try:
        return parse_plan_text(text, str(path))
    except InvalidPlan as error:
        line = error.details.get("line")
        place = f"{path}:{line}" if line else str(path)
        fault = faults.of_error(error)
        fault.problems = tuple(Problem(place, one.message, one.fix) for one in error.problems)
        raise fault from error


def read_labels(arguments: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a mapping; raises CliError for one that is none."""
    labels: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise faults.usage("--label", f"{argument!r} is not of the form name=value", "write --label team=core")
        if labels.setdefault(name, value) != value:
            raise faults.usage("--label", f"{name} is given two values", "give each label once")
    return labels


def absolute(path: str) -> str:
    """Relative to the current folder, not to the workspace root; links stay for the engine to look at."""
    return str(Path(path).absolute())


def _placed(problem: Problem, plan: Path, text: bytes) -> Problem:
    """The fault with file and line, where it lies in the plan."""
    field = problem.field.removeprefix("plan.")
    if not field.startswith(("version", "name", "goal", "params", "limits", "steps")):
        return problem
    line = line_of(text, field)
    return problem if line is None else Problem(f"{plan}:{line}: {field}", problem.message, problem.fix)
