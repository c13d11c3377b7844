"""`replay`: a run done again out of its record, and where it comes out otherwise."""

import asyncio

from stepgate.cli.client import RUNS, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.domain.states import CLOSED, FINISHED, RunStatus
from stepgate.engine import views

LOOK_S = 0.2


async def replay(session: Session, run_name: str, *, printed: bool) -> Exit:
    """Follows the replay to its end; exit code 7 where a step came out otherwise."""
    async with connect(session.settings) as connection:
        api = connection.api
        run = await api.run(run_name)
        session.about = run.id
        made = read(views.Replayed, await api.post(f"{RUNS}/{run.id}/replay?wait_s=0", {"printed": printed}))
        session.run_id = made.run.id
        await connection.start_worker(made.run.id)
        step = made.step
        while step.status not in CLOSED and (await api.run(step.run_id)).status not in (*FINISHED, RunStatus.PAUSED):
            await asyncio.sleep(LOOK_S)
            step = await api.step(step.run_id, step.id)
        step = await api.step(step.run_id, step.id)
        if not isinstance(step.output, dict) or "agreed" not in step.output:
            why = step.error.message if step.error is not None else f"the step is {step.status}"
            raise CliError(why, exit=Exit.FAILED, code="not_replayed", fix=session.command("show", step.run_id))
        report = views.Report(**step.output)
        if session.terminal.json:
            session.answer({"replay_run_id": step.run_id, **report.model_dump(mode="json")})
        else:
            _tell(session, report)
        return Exit.COMPLETED if report.divergence is None else Exit.UNVERIFIED


def _tell(session: Session, report: views.Report) -> None:
    out, found = session.terminal.out, report.divergence
    if report.taken:
        say(out, ("taken from the record  ", "dim"), plain_line(", ".join(report.taken)))
    if found is None:
        say(out, (f"replayed: {report.agreed} steps agree", "green"))
        return
    say(out, (f"step {plain_line(found.step)} came out otherwise: {plain_line(found.what)}", "bold red"))
    for name, value in (("expected", found.expected), ("found", found.found), ("in", ", ".join(found.names))):
        if value:
            say(out, (f"{name:<9}", "dim"), plain_line(value, 2000))
    say(out, f"{report.agreed} steps before it agree")
