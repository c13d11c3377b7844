"""Whole journals, read only where they hold."""

from stepgate.domain import journal
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId
from stepgate.storage import chains
from stepgate.storage.database import Database
from stepgate.storage.verify import verify


class Journals:
    """The journals of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def proved(self, run_id: RunId) -> list[Event]:
        """Every event, once chain, tables and bodies are proved to fit together.

        Raises NotFound, and IntegrityError saying what does not fit.
        """
        journal.require(await verify(self._database, run_id))
        async with self._database.raw() as connection:
            links = (await chains.after(connection, {run_id: 0})).get(run_id, [])
        return [journal.parse(link.body) for link in links]
