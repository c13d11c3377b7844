"""Group commit: the transitions of all runs of a process go to the database as one statement after another.

While a batch is in flight the next one gathers. A run has at most one entry in a batch and is decided again when
somebody else moved its head, so that whatever is committed was decided on exactly the state it was written on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from stepgate.domain.commands import Command
from stepgate.domain.errors import Conflict, DatabaseUnavailable, LeaseLost, NotFound
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId
from stepgate.domain.journal import Head
from stepgate.domain.state import RunState
from stepgate.storage import chains
from stepgate.storage.attachments import (
    NOTHING,
    Attachments,
    ChangeSetRow,
    IdempotencyRow,
    ModelCallRow,
    SettledCallRow,
)
from stepgate.storage.database import HOT_SETTINGS, Database
from stepgate.storage.direct import Direct
from stepgate.storage.entry import Entry, RunHandle, Submission
from stepgate.storage.errors import is_lost, is_transient, translate
from stepgate.storage.writing import write

__all__ = [
    "Attachments",
    "ChangeSetRow",
    "Committer",
    "IdempotencyRow",
    "ModelCallRow",
    "RunHandle",
    "SettledCallRow",
]

LARGEST_BATCH = 256
SMALLEST_SHARE = 16
LARGEST_OUTPUTS = 16 * 1024 * 1024
MAX_ATTEMPTS = 20
STATEMENT_TIMEOUT_S = 30.0
RECONNECT_S = 60.0
LONGEST_WAIT_S = 2.0


class Committer:
    """One per process. `start` before the first `submit`; `stop` returns when everything sent has its answer.

    `tells_ends` says whether anybody may want to be told when runs end: then the end of one takes the statement that
    fills the outbox.
    """

    def __init__(self, database: Database, tells_ends: Callable[[], bool] = lambda: False) -> None:
        self._database = database
        self._tells_ends = tells_ends
        self._clock = database.clock
        self._direct = Direct(database)
        self._queue: deque[RunHandle] = deque()
        self._written = 0
        self._arrived = asyncio.Event()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Raises DatabaseUnavailable."""
        self._connection = await self._database.connect("committer", HOT_SETTINGS)
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="stepgate-committer")

    async def stop(self) -> None:
        """What was submitted is committed (or failed) first; submitting afterwards is an error."""
        if self._task is None:
            return
        self._stopping = True
        self._arrived.set()
        await self._task
        self._task = None
        await self._close()

    # The worker's path

    def submit(
        self, handle: RunHandle, commands: Sequence[Command], attachments: Attachments | None = None
    ) -> asyncio.Future[tuple[Event, ...]]:
        """Decides the commands on the handle's state; the future gives their events once they are durable.

        Whatever `decide` raises goes to this caller alone, by the future. It raises LeaseLost when the run's lease is
        another's now, DatabaseUnavailable when the database stays away; then it is unknown whether the events were
        written.
        """
        if self._task is None or self._stopping:
            raise RuntimeError("the committer does not run")
        future: asyncio.Future[tuple[Event, ...]] = asyncio.get_running_loop().create_future()
        self._offer(handle, Submission(commands, attachments or NOTHING, future))
        return future

    async def refresh(self, handle: RunHandle) -> None:
        """Takes up what others wrote to the run; a write that follows one under way does so by itself."""
        if handle.entry is not None:
            await self.submit(handle, ())  # nothing of its own: answered once what is under way has its answer
        async with self._database.raw() as connection:
            links = (await chains.after(connection, {handle.run_id: handle.head.seq})).get(handle.run_id, [])
        if handle.entry is None and links and links[0].seq == handle.head.seq + 1:
            _advance(handle, handle.state, links)

    # The API's path

    async def submit_once(
        self, run_id: RunId, commands: Command | Sequence[Command], attachments: Attachments | None = None
    ) -> tuple[RunState, tuple[Event, ...]]:
        """Decides on the newest state, without a lease, in a transaction of its own; `Create` makes the run.

        Raises NotFound for an unknown run, what `decide` raises, and Conflict with the code `idempotency_in_use`
        where the same key was written meanwhile.
        """
        sequence = commands if isinstance(commands, Sequence) else (commands,)
        return await self._direct.submit(run_id, sequence, attachments or NOTHING)

    async def load(self, run_id: RunId) -> RunState:
        """The newest state of a run. Raises NotFound."""
        return (await self._direct.load(run_id))[0]

    async def load_with_head(self, run_id: RunId) -> tuple[RunState, Head]:
        """The newest state and the head of the journal that gives it. Raises NotFound."""
        return await self._direct.load(run_id)

    # Gathering

    def _offer(self, handle: RunHandle, submission: Submission) -> None:
        try:
            self._place(handle, submission)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever sent the submission
            submission.failed(error)

    def _place(self, handle: RunHandle, submission: Submission) -> None:
        entry = handle.entry
        if entry is None:
            entry = Entry(handle.run_id, handle.state, handle.head, handle.epoch)
            entry.decide(submission, self._clock.now())
            if not entry.events:
                submission.accepted()
                return
            handle.entry = entry
            self._queue.append(handle)
            self._arrived.set()
        elif entry.sent:
            handle.waiting.append(submission)
        else:
            entry.decide(submission, self._clock.now())

    def _take(self) -> list[RunHandle]:
        """Half of the runs that come by, so that one half is decided while the other is written.

        Those written last will be back; less is taken where outputs are large.
        """
        waiting = len(self._queue)
        size = min(LARGEST_BATCH, max(SMALLEST_SHARE, (waiting + self._written + 1) // 2), waiting)
        batch: list[RunHandle] = []
        weight = 0
        while len(batch) < size and weight < LARGEST_OUTPUTS:
            handle = self._queue.popleft()
            batch.append(handle)
            if handle.entry is not None:
                weight += handle.entry.weight
        self._written = len(batch)
        return batch

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                batch = self._take()
                if self._tells_ends():
                    for handle in batch:
                        if handle.entry is not None:
                            handle.entry.tell_end()
                plain = [handle for handle in batch if handle.entry is not None and handle.entry.hot]
                other = [handle for handle in batch if handle.entry is not None and not handle.entry.hot]
                for handles in (plain, other):
                    if handles:
                        await self._commit(handles)
            if self._stopping:
                return

    # Writing

    async def _commit(self, handles: Sequence[RunHandle]) -> None:
        entries = [handle.entry for handle in handles if handle.entry is not None]
        for entry in entries:
            entry.sent = True
        try:
            if self._connection is None:
                self._connection = await self._database.connect("committer", HOT_SETTINGS)
            accepted = await write(self._connection, self._clock, entries, STATEMENT_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - each submitter must get an answer
            await self._after_error(handles, error)
            return
        refused = []
        for handle, entry, committed in zip(handles, entries, accepted, strict=True):
            if committed:
                self._accept(handle, entry, ())
            else:
                refused.append(handle)
        if refused:
            try:
                await self._settle(refused, known=True)
            except Exception as error:  # noqa: BLE001 - sorted out where every error of a batch is
                await self._after_error(refused, error)

    def _accept(self, handle: RunHandle, entry: Entry, later: Sequence[chains.Link]) -> None:
        handle.entry = None
        handle.head = entry.head
        handle.released = entry.over
        if later:
            _advance(handle, entry.after, later)
        else:
            handle.state = entry.after
        entry.accepted()
        if handle.waiting:
            self._place_waiting(handle)

    def _place_waiting(self, handle: RunHandle) -> None:
        waiting, handle.waiting = handle.waiting, []
        for submission in waiting:
            self._offer(handle, submission)

    def _fail(self, handle: RunHandle, error: BaseException) -> None:
        entry, handle.entry = handle.entry, None
        if entry is not None:
            entry.failed(error)
        self._place_waiting(handle)

    async def _after_error(self, handles: Sequence[RunHandle], error: Exception) -> None:
        """A lost connection leaves the outcome open; any other error means that nothing was written."""
        if is_lost(error) or isinstance(error, DatabaseUnavailable):
            await self._reconnect(handles, error)
        elif is_transient(error):
            for handle in handles:
                self._again(handle)
        elif len(handles) > 1:
            for handle in handles:
                await self._commit([handle])
        else:
            self._fail(handles[0], translate(error, self._database.place) or error)

    async def _reconnect(self, handles: Sequence[RunHandle], error: BaseException) -> None:
        loop = asyncio.get_running_loop()
        deadline, wait = loop.time() + RECONNECT_S, 0.05
        while True:
            await self._close()
            try:
                self._connection = await self._database.connect("committer", HOT_SETTINGS)
                await self._settle(handles, known=False)
            except Exception as again:  # noqa: BLE001 - every entry gets it when the time is over
                error = again
            else:
                return
            if (
                self._stopping
                or loop.time() + wait > deadline
                or not (is_lost(error) or isinstance(error, DatabaseUnavailable))
            ):
                break
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)
        for handle in handles:
            self._fail(handle, translate(error, self._database.place) or error)

    async def _settle(self, handles: Sequence[RunHandle], *, known: bool) -> None:
        """What became of entries that were refused (`known`), or of whose commit nothing is known."""
        bases = {handle.run_id: handle.entry.base.seq for handle in handles if handle.entry is not None}
        rows = await self._connection.fetch(
            "SELECT id::text AS id, lease_epoch FROM stepgate.runs WHERE id = ANY($1::uuid[])", list(bases)
        )
        epochs = {row["id"]: row["lease_epoch"] for row in rows}
        found = await chains.after(self._connection, bases)
        for handle in handles:
            entry = handle.entry
            if entry is None:
                continue
            links = found.get(handle.run_id, [])
            if chains.contains(links, entry.head):
                self._accept(handle, entry, links[entry.head.seq - entry.base.seq :])
            elif handle.run_id not in epochs:
                self._fail(handle, NotFound("no such run"))
            elif entry.epoch is not None and epochs[handle.run_id] != entry.epoch:
                self._fail(handle, LeaseLost("another worker drives the run now"))
            elif links or known:
                _advance(handle, handle.state, links)
                self._redecide(handle, entry)
            else:
                self._again(handle)

    def _redecide(self, handle: RunHandle, entry: Entry) -> None:
        fresh = Entry(handle.run_id, handle.state, handle.head, handle.epoch)
        fresh.attempts = entry.attempts
        for submission in entry.submissions:
            try:
                fresh.decide(submission, self._clock.now())
            except Exception as error:  # noqa: BLE001 - it belongs to whoever sent the submission
                submission.failed(error)
        if fresh.events:
            handle.entry = fresh
            self._again(handle)
        else:
            handle.entry = None
            fresh.accepted()
            self._place_waiting(handle)

    def _again(self, handle: RunHandle) -> None:
        """Queues the entry as it is: sent before or not, it stays recognisable by its hash."""
        entry = handle.entry
        if entry is None:
            return
        entry.attempts += 1
        if entry.attempts > MAX_ATTEMPTS:
            self._fail(handle, Conflict("the run keeps changing", code="try_again", fix="send the request again"))
            return
        self._queue.append(handle)
        self._arrived.set()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _advance(handle: RunHandle, state: RunState, links: Sequence[chains.Link]) -> None:
    advanced, handle.head = chains.caught_up(state, handle.head, links)
    if advanced is not None:
        handle.state = advanced
