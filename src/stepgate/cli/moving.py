"""What the verbs that move a run have in common: a worker where there is none, following, and the end of it."""

from stepgate.cli import faults, summary
from stepgate.cli.board import Board
from stepgate.cli.connect import Connection
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.follow import Follower, Stand, StepPages
from stepgate.cli.gates import Gates
from stepgate.cli.session import Session
from stepgate.domain.states import CLOSED
from stepgate.engine import views


async def follow(
    session: Session, connection: Connection, run: views.RunDetail, gates: Gates, target: str | None = None
) -> Stand:
    """Moves the run on, showing what happens from now on."""
    session.run_id = run.id
    await connection.start_worker(run.id)
    steps = await StepPages(connection.api, run.id).read(run)
    told = frozenset(step.id for step in steps if step.status in CLOSED)
    with Board(session.terminal.progress, told, answers=gates.can_decide) as board:
        return await Follower(connection, run.id, board, gates, target).follow()


async def conclude(session: Session, connection: Connection, stand: Stand) -> Exit:
    """Tells how the run stands and what can be done next; the exit code says the same."""
    told = await summary.gather(connection.api, session.settings, stand.run.id)
    if session.terminal.json:
        session.answer(summary.document(told))
    else:
        summary.show(session.terminal.out, session.settings, told)
    if not told.verification.verified:
        return Exit.UNVERIFIED
    return stand.exit


def gates(session: Session, *, yes: bool, choices: tuple[str, ...] = ("approve", "reject", "skip", "view")) -> Gates:
    """Who answers: the person at the terminal, `--yes`, or nobody."""
    return Gates(session.terminal.asking, session.terminal.progress, yes, choices)


def nobody() -> Gates:
    """For verbs that decide one thing and leave the next question to another command."""
    from rich.console import Console  # noqa: PLC0415 - a console that is never printed to

    return Gates(None, Console(quiet=True))


def unanswered(stand: Stand) -> None:
    """Says why questions were left open where nobody could be asked."""
    keys = ", ".join(step.key for step in stand.asked)
    faults.show(
        CliError(
            f"the run waits for a decision ({keys}), and there is no terminal to ask on",
            exit=Exit.USAGE,
            code="no_terminal",
            fix="use --yes to approve everything, or approve and reject, which need no terminal",
        )
    )
