"""Gathers from the tables what decides why runs do not move, for one run or a page of them."""

from collections.abc import Sequence

from stepgate.domain.ids import RunId
from stepgate.domain.states import FINISHED, RunStatus, StepStatus
from stepgate.engine.waiting import Reason, Standing, Stuck, waiting_for
from stepgate.storage.reads import waiting as waiting_rows
from stepgate.storage.reads.snapshot import Row, Snapshot


async def reasons_of(connection: Snapshot, runs: Sequence[Row]) -> dict[RunId, list[Reason]]:
    """Why each of these runs does not move; a finished one can only wait for its undo."""
    ids = [RunId(row["id"]) for row in runs]
    open_ids = [RunId(row["id"]) for row in runs if RunStatus(row["phase"]) not in FINISHED]
    held_ids = [RunId(row["id"]) for row in runs if row["id"] in open_ids and row["allowance"] != "start"]
    stuck: dict[str, list[Stuck]] = {run_id: [] for run_id in ids}
    found = [
        *(await waiting_rows.questions(connection, ids) if ids else ()),
        *(await waiting_rows.trouble(connection, open_ids) if open_ids else ()),
    ]
    for row in sorted(found, key=_by_number):
        stuck[row["run_id"]].append(Stuck(row["id"], StepStatus(row["status"]), row["retry_at"], row["expires_at"]))
    following = await waiting_rows.next_steps(connection, held_ids) if held_ids else {}
    return {
        run_id: waiting_for(_standing(row), stuck[run_id], following.get(run_id))
        for run_id, row in zip(ids, runs, strict=True)
    }


def _by_number(row: Row) -> int:
    number: int = row["number"]
    return number


def _standing(row: Row) -> Standing:
    return Standing(
        phase=RunStatus(row["phase"]),
        reason=row["reason"],
        moving=row["moving"],
        started=row["allowance"] == "start",
        held_for=row["held_for"],
        held_until=row["held_until"],
    )
