"""`fork`: a new run that keeps what ended before a step, and is followed like any other."""

from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.run import recorded, to_the_end
from stepgate.cli.session import Session
from stepgate.cli.terminal import say


async def fork(session: Session, run_name: str, *, from_step: str, yes: bool, wait: bool) -> Exit:
    """It works on a private copy; the run it is made of stays as it is."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        step = await connection.api.step(run.id, from_step)
        made = await connection.api.fork(run.id, {"from_step": step.key, "start": True})
        session.run_id = made.id
        if not wait:
            return recorded(session, made)
        say(session.terminal.progress, f"run {made.id} in a private copy of ", (made.workspace_path, "bold"))
        return await to_the_end(session, connection, made, yes=yes)
