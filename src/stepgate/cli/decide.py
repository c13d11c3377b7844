"""`approve`, `reject`, `skip`, `cancel` and `undo`: one decision, then the run is followed as far as it goes."""

from dataclasses import asdict, dataclass

from stepgate.cli import faults, moving, words
from stepgate.cli.connect import Connection, connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.follow import Stand
from stepgate.cli.gates import Answer, Left
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.domain.states import CLOSED, FINISHED, StepStatus
from stepgate.engine import views


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody says with a decision: about which action, why, and for whom."""

    action_hash: str | None = None
    reason: str | None = None
    on_behalf_of: str | None = None


async def approve(session: Session, run_name: str, step_name: str, said: Said, *, yes: bool, wait: bool) -> Exit:
    """Without a hash the action is shown, and the hash of what was shown is what gets approved."""
    async with connect(session.settings) as connection:
        run, step = await find(session, connection, run_name, step_name)
        body: dict[str, str | None] = asdict(said)
        if said.action_hash is None and _is_open(step):
            answer = await _look_and_say(session, step, yes=yes)
            if isinstance(answer, Left):
                return await _left_open(session, connection, run)
            body |= {**answer.body, "reason": said.reason or answer.body.get("reason")}
        elif said.action_hash is None:
            # What stands decides: the same decision again changes nothing, any other is refused with the reason.
            body["action_hash"] = step.approval.action_hash if step.approval else "0" * 64
        return await _decided(session, connection, run, step, "approve", body, wait=wait)


async def reject(session: Session, run_name: str, step_name: str, said: Said, *, then: str, wait: bool) -> Exit:
    """Saying no needs no hash."""
    async with connect(session.settings) as connection:
        run, step = await find(session, connection, run_name, step_name)
        body: dict[str, str | None] = {**asdict(said), "then": then}
        return await _decided(session, connection, run, step, "reject", body, wait=wait)


async def skip(session: Session, run_name: str, step_name: str, *, reason: str | None, wait: bool) -> Exit:
    """The step is left out; those that need it go on."""
    async with connect(session.settings) as connection:
        run, step = await find(session, connection, run_name, step_name)
        return await _decided(session, connection, run, step, "skip", {"reason": reason}, wait=wait)


async def cancel(session: Session, run_name: str) -> Exit:
    """Ends the run; what is being applied is applied to its end first."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        run = await connection.api.verb(run.id, "cancel")
        stand = await moving.follow(session, connection, run, moving.nobody())
        ended = await moving.conclude(session, connection, stand)
        return Exit.COMPLETED if ended is Exit.CANCELLED else ended


async def undo(session: Session, run_name: str, *, to: str | None, yes: bool, wait: bool) -> Exit:
    """Adds the undo step, shows the net change, asks, and follows that step alone."""
    if wait and not yes and not session.terminal.can_ask:
        raise CliError(
            "an undo asks before it changes files, and there is no terminal to ask on",
            exit=Exit.USAGE,
            code="no_terminal",
            fix="run it in a terminal, add --yes to approve it, or --no-wait to only record it",
        )
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        key = None if to is None else (await connection.api.step(run.id, to)).key
        undone = await connection.api.undo(run.id, key)
        if not wait:
            return recorded(session, undone.run, undone.step)
        gates = moving.gates(session, yes=yes, choices=("approve", "reject", "view"))
        stand = await moving.follow(session, connection, undone.run, gates, undone.step.id)
        return await moving.conclude(session, connection, stand)


async def find(
    session: Session, connection: Connection, run_name: str, step_name: str
) -> tuple[views.RunDetail, views.Step]:
    """The run and the whole step that are meant."""
    run = await connection.api.run(run_name)
    session.about = run.id
    return run, await connection.api.step(run.id, step_name)


def _is_open(step: views.Step) -> bool:
    return step.status is StepStatus.AWAITING_APPROVAL and step.approval is not None


async def _look_and_say(session: Session, step: views.Step, *, yes: bool) -> Answer | Left:
    if not yes and not session.terminal.can_ask:
        raise faults.usage(
            "--hash",
            "an approval names the action it approves, and there is no terminal to show it on",
            "add --hash with the action_hash that `show` prints, or --yes to approve what is there now",
        )
    return await moving.gates(session, yes=yes, choices=("approve", "view")).ask(step)


async def _left_open(session: Session, connection: Connection, run: views.RunDetail) -> Exit:
    return await moving.conclude(session, connection, Stand(run, (), None, left=True))


async def _decided(
    session: Session,
    connection: Connection,
    run: views.RunDetail,
    step: views.Step,
    verb: str,
    body: dict[str, str | None],
    *,
    wait: bool,
) -> Exit:
    done = await connection.api.decide(step, verb, body)
    session.run_id = run.id
    word = {"approve": "approved", "reject": "rejected"}.get(verb, "skipped")
    if verb == "approve" and done.approval is not None and done.approval.decision is None:
        word = f"approval {words.progress(done.approval)}"
    say(session.terminal.progress, f"{step.key}: ", (word, "bold"))
    run = await connection.api.run(run.id)
    if not wait:
        return recorded(session, run, done)
    # In a run that has ended only this step can still move: an undo.
    target = step.id if run.status in FINISHED and step.status not in CLOSED else None
    stand = await moving.follow(session, connection, run, moving.nobody(), target)
    return await moving.conclude(session, connection, stand)


def recorded(session: Session, run: views.RunDetail, step: views.Step) -> Exit:
    """What was asked for is in the journal; some worker goes on with it."""
    go_on = session.command("run", "--continue", run.id)
    if session.terminal.json:
        session.answer(
            {
                "run_id": run.id,
                "status": run.status.value,
                "step": step.key,
                "step_status": step.status.value,
                "continue_command": go_on,
            }
        )
    else:
        say(session.terminal.out, f"recorded: step {step.key} is {step.status.value}; a worker goes on, or: {go_on}")
    return Exit.COMPLETED
