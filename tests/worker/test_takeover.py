"""Workers that die, stand still or lose the database: what they left is brought to its end, once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from stepgate.domain.ids import RunId
from tests.fixtures.patience import PATIENCE_S
from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import (
    PERSON,
    Lab,
    Plan,
    eventually,
    processes,
    statuses,
    step_of,
    until_processes,
)
from tests.worker.rules import PREVIEW, policy_file
from tests.worker.steps import MAY_DIE

COMMAND = {
    "key": "c",
    "type": "run_command",
    "input": {"command": "echo line >> log; mkdir made; echo x > made/x; rm old; echo new > zz"},
}
AFTER = {"log": "before\nline\n", "made/x": "x\n", "zz": "new\n"}
Begin = Callable[..., "Process"]
Expire = Callable[[str], Awaitable[None]]


class Process:
    """A worker that can be killed for real."""

    def __init__(self, database_url: str, folder: Path, point: str, *, may_die: bool, **settings: Any) -> None:
        arguments = [database_url, str(folder), point, json.dumps(settings)]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.process", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({MAY_DIE: "1"} if may_die else {}),
            cwd=Path(__file__).parents[2],
        )
        assert self.popen.stdout is not None
        self._stdout = self.popen.stdout

    async def ready(self) -> str:
        """Its worker's id, once it claims."""
        return (await asyncio.to_thread(self._stdout.readline)).strip()

    async def heard(self, words: str) -> None:
        """Returns once it has logged these words."""
        while words not in (line := await asyncio.to_thread(self._stdout.readline)):
            assert line, f"it ended without saying {words!r}"

    async def stands_still(self) -> None:
        _, status = await asyncio.to_thread(os.waitpid, self.popen.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(PATIENCE_S)
        self._stdout.close()


@pytest.fixture
def begin(database_url: str, tmp_path: Path) -> Iterator[Begin]:
    """Starts worker processes over the test's database and folders."""
    started: list[Process] = []

    def start(point: str = "never", *, may_die: bool = False, **settings: Any) -> Process:
        started.append(Process(database_url, tmp_path, point, may_die=may_die, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def expire(superuser: Any) -> Expire:
    """Ends a worker's lease by the database's clock."""

    async def end(worker_id: str) -> None:
        query = "UPDATE stepgate.workers SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1"
        assert await superuser.execute(query, worker_id) == "UPDATE 1"

    return end


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


async def asking(open_lab: OpenLab) -> tuple[Lab, RunId]:
    """An approved run, and a process without a worker that watches it."""
    asked, watching = await open_lab(), await open_lab(worker=False)
    (asked.workspace / "log").write_text("before\n")
    (asked.workspace / "old").write_text("")
    run_id = await asked.create([COMMAND])
    await asked.until_step(run_id, "c", "awaiting_approval")
    await asked.worker.stop()
    await watching.approve(run_id, "c")
    return watching, run_id


@pytest.mark.parametrize("point", ["begun", "computed", "marked", "half", "applied", "completed"])
async def test_a_worker_killed_at_any_point_leaves_an_effect_that_happens_once(
    open_lab: OpenLab, begin: Begin, expire: Expire, tmp_path: Path, point: str
) -> None:
    lab, run_id = await asking(open_lab)
    victim = begin(point)
    worker_id = await victim.ready()
    await victim.stands_still()
    victim.kill()
    before = await lab.events(run_id, "c")
    assert ("step.computed" in before) == (point != "begun")
    await expire(worker_id)
    successor = await open_lab()
    state = await successor.until_status(run_id, "completed")
    await successor.until_idle()
    assert files(lab.workspace) == AFTER
    assert step_of(state, "c").attempt == 1
    events = await lab.events(run_id, "c")
    assert (events.count("step.computed"), events.count("step.completed")) == (1, 1)
    reader = await successor.create([{"key": "r", "type": "read_file", "input": {"path": "log"}}])
    await successor.until_status(reader, "completed")
    assert list((tmp_path / "state" / "layers").iterdir()) == []
    assert list((tmp_path / "state" / "applying").iterdir()) == []
    await lab.verify(run_id)


async def test_the_commands_of_a_killed_worker_die_with_it(open_lab: OpenLab, begin: Begin) -> None:
    asked, watching = await open_lab(), await open_lab(worker=False)
    marker = f"67.{os.getpid()}{id(asked)}"
    run_id = await asked.create([{"key": "c", "type": "run_command", "input": {"command": f"sleep {marker}; :"}}])
    await asked.until_step(run_id, "c", "awaiting_approval")
    await asked.worker.stop()
    await watching.approve(run_id, "c")
    victim = begin()
    await victim.ready()
    await until_processes(f"sleep\0{marker}", 1)
    victim.kill()
    await until_processes(marker, 0)


async def test_a_worker_that_stood_still_past_its_lease_writes_nothing_when_it_wakes(
    open_lab: OpenLab, begin: Begin, expire: Expire
) -> None:
    """A zombie writes over its successor: not the workspace, not the journal."""
    lab, run_id = await asking(open_lab)
    zombie = begin("computed")
    worker_id = await zombie.ready()
    await zombie.stands_still()
    await expire(worker_id)
    successor = await open_lab()
    await successor.until_status(run_id, "completed")
    assert files(lab.workspace) == AFTER
    (lab.workspace / "log").write_text("mine\n")
    (lab.workspace / "zz").unlink()
    events = await lab.events(run_id)
    zombie.send(signal.SIGCONT)
    await zombie.heard("another worker drives the run")
    zombie.kill()
    assert files(lab.workspace) == {"log": "mine\n", "made/x": "x\n"}
    assert await lab.events(run_id) == events
    await lab.verify(run_id)


async def test_the_commands_of_a_worker_that_lost_its_lease_die_when_it_wakes(open_lab: OpenLab, begin: Begin) -> None:
    """Until then they look at the workspace, so the successor computes the step and waits before it applies it."""
    lab, watching = await open_lab(), await open_lab(worker=False)
    marker = f"68.{os.getpid()}{id(lab)}"
    script = f"ls | grep -q . || sleep {marker}; echo d > out"
    run_id = await lab.create([{"key": "c", "type": "run_command", "input": {"command": script}}])
    await lab.until_step(run_id, "c", "awaiting_approval")
    await lab.worker.stop()
    await watching.approve(run_id, "c")
    zombie = begin(lease_s=1.0)
    await zombie.ready()
    await until_processes(f"sleep\0{marker}", 1)
    zombie.send(signal.SIGSTOP)
    (lab.workspace / "wake").write_text("")
    successor = await open_lab(worker_check_interval=0.1)
    await successor.until_step(run_id, "c", "computed")
    assert len(processes(f"sleep\0{marker}")) == 1
    zombie.send(signal.SIGCONT)
    await until_processes(marker, 0)
    await zombie.heard("lease lost")
    state = await successor.until_status(run_id, "completed")
    assert step_of(state, "c").attempt == 1
    assert (lab.workspace / "out").read_text() == "d\n"
    await lab.verify(run_id)


async def test_a_worker_that_lost_its_lease_works_on_under_a_new_one(open_lab: OpenLab, expire: Expire) -> None:
    lab = await open_lab(lease_s=1.0)
    run_id = await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}}])
    await lab.until(run_id, lambda state: bool(lab.kit.hold.inside))
    earlier = lab.worker.id
    await expire(earlier)

    async def anew() -> bool:
        return lab.worker.id != earlier and lab.kit.hold.begun["h"] == 2

    await eventually(anew, lambda: (lab.worker.id, lab.kit.hold.begun))
    assert lab.kit.hold.stopped == ["h"]
    lab.kit.hold.open["h"].set()
    state = await lab.until_status(run_id, "completed")
    assert step_of(state, "h").attempt == 1
    await lab.verify(run_id)


async def test_a_step_that_blocks_its_worker_does_not_cost_the_lease(open_lab: OpenLab, database_url: str) -> None:
    lab = await open_lab(lease_s=1.0)
    kit, worker_id = lab.kit, lab.worker.id

    async def beats() -> None:
        """Lets the step go once the lease was renewed three times while it held up the loop."""
        await asyncio.to_thread(kit.stubborn.inside.wait, PATIENCE_S)
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        seen: set[Any] = set()

        async def renewed() -> bool:
            seen.add(await connection.fetchval("SELECT lease_until FROM stepgate.workers WHERE id = $1", worker_id))
            return len(seen) > 3

        try:
            await eventually(renewed, lambda: seen)
        finally:
            kit.stubborn.released.set()
            await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(beats()))
    thread.start()
    run_id = await lab.create([{"key": "s", "type": "stubborn", "input": {}}])
    await lab.until_status(run_id, "completed")
    await asyncio.to_thread(thread.join)
    assert (await lab.output(run_id, "s")) == {"released": True}
    assert lab.worker.id == worker_id


async def test_a_worker_killed_before_it_asks_about_a_preview_leaves_one_question_and_no_layer(
    open_lab: OpenLab, begin: Begin, expire: Expire, tmp_path: Path
) -> None:
    policy = policy_file(tmp_path, PREVIEW)
    watching = await open_lab(worker=False)
    (watching.workspace / "log").write_text("before\n")
    (watching.workspace / "old").write_text("")
    run_id = await watching.create([COMMAND])
    victim = begin("shown", policy=str(policy))
    worker_id = await victim.ready()
    await victim.stands_still()
    victim.kill()
    assert await watching.events(run_id, "c") == ["step.preparing"]
    await expire(worker_id)
    successor = await open_lab(policy=policy)
    await successor.approve(run_id, "c")
    await successor.until_status(run_id, "completed")
    await successor.until_idle()
    events = await successor.events(run_id, "c")
    assert (events.count("approval.requested"), events.count("step.computed")) == (1, 1)
    assert files(watching.workspace) == AFTER
    assert not any((tmp_path / "state" / "layers").iterdir())
    await successor.verify(run_id)


async def test_a_second_worker_takes_over_what_a_lost_one_was_doing(open_lab: OpenLab, lose_lease: LoseLease) -> None:
    lost = await open_lab()
    run_id = await lost.create([{"key": "h", "type": "hold", "input": {"name": "h"}}, {"type": "noop", "input": {}}])
    await lost.until(run_id, lambda state: bool(lost.kit.hold.inside))
    await lose_lease(lost)
    successor = await open_lab()
    successor.kit.hold.open["h"].set()
    state = await successor.until_status(run_id, "completed")
    assert step_of(state, "h").attempt == 1
    events = await successor.events(run_id)
    lost.kit.hold.open["h"].set()
    await lost.until_idle()
    assert await successor.events(run_id) == events
    assert events.count("step.started") == 2
    await successor.verify(run_id)


async def test_a_lost_end_of_a_step_that_may_not_happen_twice_goes_to_a_person(
    open_lab: OpenLab, lose_lease: LoseLease
) -> None:
    lost = await open_lab()
    run_id = await lost.create([{"key": "o", "type": "once", "input": {"name": "o"}}, {"type": "noop", "input": {}}])
    await lost.until(run_id, lambda state: bool(lost.kit.once.inside))
    await lose_lease(lost)
    successor = await open_lab()
    state = await successor.until_status(run_id, "paused")
    step = step_of(state, "o")
    assert step.error is not None
    assert (state.reason, step.status, step.error["code"]) == ("needs_review", "needs_review", "lost_end")
    assert successor.kit.once.begun["o"] == 0
    await successor.engine.skip(run_id, step.id, PERSON, "it happened")
    await successor.engine.resume(run_id, PERSON)
    await successor.until_status(run_id, "completed")
    assert successor.kit.once.begun["o"] == 0
    await successor.verify(run_id)


@pytest.mark.parametrize("how", ["timeout", "pause"])
async def test_a_step_that_may_not_happen_twice_and_was_stopped_goes_to_a_person(lab: Lab, how: str) -> None:
    limit = {"timeout": 0.1} if how == "timeout" else {}
    retry = {"max_attempts": 3, "backoff": 0.01}
    run_id = await lab.create([{"key": "o", "type": "once", "input": {"name": "o"}, "retry": retry, **limit}])
    if how == "pause":
        await lab.until(run_id, lambda state: bool(lab.kit.once.inside))
        await lab.engine.pause(run_id, PERSON)
    state = await lab.until_status(run_id, "paused")
    assert statuses(state) == {"o": "needs_review"}
    await lab.until_idle()
    assert lab.kit.once.begun["o"] == 1
    await lab.verify(run_id)


async def test_after_two_lost_workers_every_start_is_recorded_one_step_at_a_time(
    open_lab: OpenLab, superuser: Any
) -> None:
    lab = await open_lab(worker=False)
    steps: Plan = [{"key": f"n{number}", "type": "brief", "input": {"name": "x"}, "needs": []} for number in range(3)]
    run_id = await lab.create(steps)
    await superuser.execute("UPDATE stepgate.runs SET lost_leases = 2")
    lab.kit.brief.open["x"].set()
    await lab.stack.start_worker()
    await lab.until_status(run_id, "completed")
    assert (await lab.events(run_id)).count("step.started") == 3
    assert lab.kit.brief.most == 1
    await lab.verify(run_id)


async def test_a_suspect_is_driven_with_no_other_run_beside_it(open_lab: OpenLab, superuser: Any) -> None:
    lab = await open_lab(worker=False)
    suspect = await lab.create([{"key": "h", "type": "hold", "input": {"name": "suspect"}}])
    other = await lab.create([{"key": "n", "type": "noop", "input": {}}])
    await superuser.execute("UPDATE stepgate.runs SET lost_leases = 2 WHERE id = $1", suspect)
    await lab.stack.start_worker()
    await lab.until(suspect, lambda state: bool(lab.kit.hold.inside))
    assert (lab.worker.driving, await lab.worker.claim()) == (1, 0)
    assert statuses(await lab.state(other)) == {"n": "pending"}
    lab.kit.hold.open["suspect"].set()
    await lab.until_status(suspect, "completed")
    await lab.until_status(other, "completed")


async def test_a_suspect_waits_for_the_runs_in_hand(open_lab: OpenLab, superuser: Any) -> None:
    lab, silent = await open_lab(), await open_lab(worker=False)
    await silent.stack.doorbell.stop()
    innocent = await lab.create([{"key": "h", "type": "hold", "input": {"name": "innocent"}}])
    await lab.until(innocent, lambda state: bool(lab.kit.hold.inside))
    suspect = await silent.create([{"key": "h", "type": "hold", "input": {"name": "suspect"}}])
    await superuser.execute("UPDATE stepgate.runs SET lost_leases = 2 WHERE id = $1", suspect)
    later = await silent.create([{"key": "n", "type": "noop", "input": {}}])
    await lab.worker.claim()
    await lab.until_status(later, "completed")
    assert statuses(await lab.state(suspect)) == {"h": "pending"}
    lab.kit.hold.open["innocent"].set()
    await lab.until_status(innocent, "completed")
    await lab.until(suspect, lambda state: bool(lab.kit.hold.inside))
    assert lab.worker.driving == 1
    lab.kit.hold.open["suspect"].set()
    await lab.until_status(suspect, "completed")


async def test_a_step_that_three_workers_died_of_is_put_before_a_person(
    open_lab: OpenLab, begin: Begin, expire: Expire
) -> None:
    lab = await open_lab(worker=False)
    run_id = await lab.create([{"key": "d", "type": "deadly", "input": {}}])
    for _ in range(3):
        victim = begin(may_die=True)
        worker_id = await victim.ready()
        assert await asyncio.to_thread(victim.popen.wait, PATIENCE_S) == -signal.SIGKILL
        await expire(worker_id)
    survivor = await open_lab()
    state = await survivor.until_status(run_id, "paused")
    step = step_of(state, "d")
    assert step.error is not None
    assert (state.reason, step.status, step.error["code"]) == ("needs_review", "needs_review", "poison")
    assert await survivor.events(run_id, "d") == ["step.started", "step.needs_review"]
    await survivor.engine.resume(run_id, PERSON)
    await survivor.until_status(run_id, "completed")
    await survivor.verify(run_id)


async def test_terminated_connections_lose_nothing(open_lab: OpenLab, superuser: Any) -> None:
    """Recovery drops work after a database blip: not here, however often it comes."""
    lab = await open_lab()
    holding = await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}}, {"type": "noop", "input": {}}])
    long = await lab.create([{"key": f"n{number}", "type": "noop", "input": {}} for number in range(300)])
    (lab.workspace / "a.txt").write_text("old\n")
    edit = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
    changing = await lab.create([edit, {"type": "noop", "input": {}}])
    await lab.until(holding, lambda state: bool(lab.kit.hold.inside))
    terminate = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """
    for _ in range(5):
        assert await superuser.fetchval(terminate) > 0
        await lab.until_available()
    await lab.approve(changing, "e")
    assert await superuser.fetchval(terminate) > 0
    lab.kit.hold.open["h"].set()
    await lab.until_available()
    for run_id in (holding, long, changing):
        state = await lab.until_status(run_id, "completed")
        assert set(statuses(state).values()) == {"completed"}
        await lab.verify(run_id)
    assert (lab.workspace / "a.txt").read_text() == "new\n"
    assert lab.kit.hold.begun["h"] == 1
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.runs WHERE lost_leases > 0") == 0


async def test_a_database_that_is_away_for_longer_than_the_lease_costs_a_lease_and_nothing_else(
    open_lab: OpenLab, superuser: Any, administrator: Any, database_url: str
) -> None:
    lab = await open_lab(lease_s=1.0)
    run_id = await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}}, {"type": "noop", "input": {}}])
    await lab.until(run_id, lambda state: bool(lab.kit.hold.inside))
    earlier, name = lab.worker.id, make_url(database_url).database
    await asyncio.to_thread(administrator.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await superuser.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def lost() -> bool:
        return lab.kit.hold.stopped == ["h"]

    await eventually(lost, lambda: "the step goes on without a lease")
    await asyncio.to_thread(administrator.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    lab.kit.hold.open["h"].set()
    await lab.until_available()
    state = await lab.until_status(run_id, "completed")
    assert step_of(state, "h").attempt == 1
    assert lab.worker.id != earlier
    await lab.verify(run_id)


async def test_a_run_claimed_and_never_driven_is_given_back_at_the_next_beat(open_lab: OpenLab, superuser: Any) -> None:
    """A job that is "running" for 91 days: claimed by a worker that does not know of it."""
    lab = await open_lab(lease_s=1.0)
    run_id = await lab.create([{"key": "n", "type": "noop", "input": {}}], start=False)
    await superuser.execute("UPDATE stepgate.runs SET worker_id = $1 WHERE id = $2", lab.worker.id, run_id)
    await lab.engine.start(run_id, PERSON)
    await lab.until_status(run_id, "completed")


async def test_a_damaged_journal_stops_its_own_run_only(open_lab: OpenLab, superuser: Any) -> None:
    lab = await open_lab(worker=False)
    damaged = await lab.create([{"key": "n", "type": "noop", "input": {}}])
    sound = await lab.create([{"key": "n", "type": "noop", "input": {}}])
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("UPDATE stepgate.events SET body = '{}' WHERE run_id = $1 AND seq = 2", damaged)
    await lab.stack.start_worker()
    await lab.until_status(sound, "completed")
    query = "SELECT worker_id IS NULL AND held_until > now() FROM stepgate.runs WHERE id = $1"
    assert await superuser.fetchval(query, damaged)
