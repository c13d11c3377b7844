"""Runs that are coming to their end when their worker is lost."""

from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import statuses


async def test_a_sibling_that_may_finish_is_begun_again_by_the_next_worker(
    open_lab: OpenLab, lose_lease: LoseLease
) -> None:
    lost = await open_lab()
    run_id = await lost.create(
        [
            {"key": "sibling", "type": "hold", "input": {"name": "s"}, "needs": []},
            {"key": "gate", "type": "hold", "input": {"name": "g"}, "needs": []},
            {"key": "bad", "type": "refusing", "input": {}, "needs": ["gate"]},
        ]
    )
    await lost.until(run_id, lambda state: len(lost.kit.hold.inside) == 2)
    lost.kit.hold.open["g"].set()
    await lost.until_status(run_id, "failing")
    await lose_lease(lost)
    successor = await open_lab()
    successor.kit.hold.open["s"].set()
    state = await successor.until_status(run_id, "failed")
    assert statuses(state) == {"sibling": "completed", "gate": "completed", "bad": "failed"}
    lost.kit.hold.open["s"].set()
    await lost.until_idle()
    await successor.verify(run_id)
