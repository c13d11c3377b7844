"""Recorded change sets, to apply one again after a crash and to show or undo what a run did."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from stepgate.domain.errors import NotFound
from stepgate.domain.ids import ChangeSetId, RunId, StepId
from stepgate.domain.states import StepStatus
from stepgate.storage.database import Database

FORMAT = 1
# One text for each set, put together in the order of its files; the parts are canonical JSON already.
_BODIES = """
SELECT change_set.id::text AS id, change_set.step_id::text AS step_id, change_set.applied_seq,
       file.path, file.op, file.before, file.after
FROM stepgate.change_sets AS change_set
LEFT JOIN stepgate.change_set_files AS file
       ON file.run_id = change_set.run_id AND file.change_set_id = change_set.id
WHERE {which}
ORDER BY change_set.applied_seq, file.position
"""
_ONE = _BODIES.format(which="change_set.id = $1::uuid")
_APPLIED = _BODIES.format(which="change_set.run_id = $1::uuid AND change_set.applied_seq IS NOT NULL")
_OF_RUN = _BODIES.format(which="change_set.run_id = $1::uuid")
_STEP_STATUS = """
SELECT step.status FROM stepgate.change_sets AS change_set
JOIN stepgate.steps AS step ON step.run_id = change_set.run_id AND step.id = change_set.step_id
WHERE change_set.id = $1::uuid
"""


class AppliedSet(NamedTuple):
    """A change set that was applied; `seq` is the event that says so, `body` as in `ChangeSets.body`."""

    id: ChangeSetId
    step_id: StepId
    seq: int
    body: Mapping[str, Any]


class ChangeSets:
    """Change sets are written with the events of their steps; here they are only read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def body(self, change_set_id: ChangeSetId) -> Mapping[str, Any]:
        """`{v, id, changes: [{path, op, before, after}]}`, changes in the order they are applied. Raises NotFound."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_ONE, change_set_id)
        if not rows:
            raise NotFound(f"there is no change set {change_set_id}")
        return _body(rows)

    async def applied(self, run_id: RunId) -> list[AppliedSet]:
        """Every set the run applied, in the order it did."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_APPLIED, run_id)
        return [
            AppliedSet(ChangeSetId(key), StepId(group[0]["step_id"]), group[0]["applied_seq"], _body(group))
            for key, group in _groups(rows).items()
        ]

    async def step_status(self, change_set_id: ChangeSetId) -> StepStatus | None:
        """The status of the step that made the set; None where there is no such set."""
        async with self._database.session() as connection:
            status = await connection.fetchval(_STEP_STATUS, change_set_id)
        return None if status is None else StepStatus(status)


async def bodies_of_run(connection: Any, run_id: RunId) -> Mapping[str, Mapping[str, Any]]:
    """The body of every set the run computed, applied or not, by id."""
    return {key: _body(group) for key, group in _groups(await connection.fetch(_OF_RUN, run_id)).items()}


def _groups(rows: list[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row["id"], []).append(row)
    return groups


def _body(rows: list[Any]) -> Mapping[str, Any]:
    changes = [
        {"path": row["path"], "op": row["op"], "before": _node(row["before"]), "after": _node(row["after"])}
        for row in rows
        if row["path"] is not None
    ]
    return {"v": FORMAT, "id": rows[0]["id"], "changes": changes}


def _node(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
