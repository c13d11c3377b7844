"""What every verb of the engine needs: to have a run decide commands, and to write down what it decided."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from stepgate.domain.commands import Command
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId
from stepgate.domain.state import RunState
from stepgate.executors.registry import Registry
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.committer import Attachments, Committer


class Commanding(ABC):
    """The base of each group of verbs; Engine puts them together."""

    committer: Committer
    registry: Registry

    @abstractmethod
    async def _commit(
        self, run_id: RunId, commands: Sequence[Command], attachments: Attachments
    ) -> tuple[RunState, tuple[Event, ...]]:
        """Decides and writes; whoever watches the run is told."""

    async def _do(self, run_id: RunId, command: Command, idempotency: IdempotencyRow | None) -> RunState:
        state, _ = await self._commit(run_id, [command], Attachments(idempotency=idempotency))
        return state
