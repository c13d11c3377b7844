"""Everything of one run that an audit bundle holds, as it was stored."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepgate.domain.errors import NotFound
from stepgate.domain.ids import RunId
from stepgate.domain.journal import Head
from stepgate.storage.change_sets import bodies_of_run
from stepgate.storage.database import Database

_HEAD = "SELECT head_seq, head_hash FROM stepgate.runs WHERE id = $1::uuid"
_EVENTS = "SELECT body FROM stepgate.events WHERE run_id = $1::uuid ORDER BY seq"
_POLICIES = """
SELECT DISTINCT version, content FROM stepgate.policy_versions
WHERE version IN (SELECT policy_version FROM stepgate.approval_requests WHERE run_id = $1::uuid)
"""
_RENDERINGS = "SELECT id::text, rendering FROM stepgate.approval_requests WHERE run_id = $1::uuid"


class Evidence(NamedTuple):
    """Events' hashed texts in order, the head recorded beside them, renderings (canonical JSON) by request, bodies of
    change sets by id, and the rules that questions were asked under by version.
    """

    events: list[str]
    head: Head
    renderings: Mapping[str, str]
    change_sets: Mapping[str, Mapping[str, Any]]
    policies: Mapping[str, str]


async def evidence(database: Database, run_id: RunId) -> Evidence:
    """One moment of the database; raises NotFound."""
    async with database.session() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        head = await connection.fetchrow(_HEAD, run_id)
        if head is None:
            raise NotFound(f"there is no run {run_id}", field="run_id")
        events = [row["body"] for row in await connection.fetch(_EVENTS, run_id)]
        renderings = {row["id"]: row["rendering"] for row in await connection.fetch(_RENDERINGS, run_id)}
        policies = {row["version"]: row["content"] for row in await connection.fetch(_POLICIES, run_id)}
        return Evidence(events, Head(*head), renderings, await bodies_of_run(connection, run_id), policies)
