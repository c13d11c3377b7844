"""What a dead worker left is swept by a worker that was there all along, without anybody starting anew."""

from pathlib import Path
from typing import Any

from tests.crash.conftest import Begin
from tests.crash.matrix import SCRIPT
from tests.crash.points import ARMED, COMMAND
from tests.crash.watch import watching
from tests.workspace import trees


async def test_a_worker_that_takes_over_sweeps_the_layer_and_the_half_written_blobs_of_the_dead_one(
    begin: Begin, superuser: Any, database_url: str, tmp_path: Path
) -> None:
    async with watching(database_url, tmp_path, superuser) as watch:
        victim = await begin("blob-written", sandbox=True)
        trees.write(watch.workspace, {"log": trees.File(b"before\n"), "old": trees.File(), "narrow": trees.File()})
        await watch.create([{"key": "s", "type": COMMAND, "input": {"command": f"{SCRIPT} # {watch.marker}"}}])
        await watch.asks_and_rests()
        (tmp_path / ARMED).touch()
        await watch.approve()
        await victim.hear("stopped")
        survivor = await begin(sandbox=True, worker_check_interval=0.2)
        before = watch.left_in_state()
        await victim.kill()
        assert before
        assert watch.left_in_state() == before
        await watch.expire_leases(but=survivor.pid)
        assert await watch.settled() == "completed"
        await watch.nothing_is_left_of(before)
        await survivor.close()
        assert watch.leftovers() == []
