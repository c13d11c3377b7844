"""Who watches a run whose worker dies: a process without a worker, over the same database and files."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from stepgate.domain.ids import RunId, StepId
from stepgate.workspace.access import Root
from stepgate.workspace.locks import WorkspaceLock
from tests.crash.disk import TEMPORARY
from tests.crash.worker import CrashKit
from tests.fixtures.patience import PATIENCE_S
from tests.worker.lab import PERSON, Lab, Plan, opened, processes

SETTLED = ("completed", "needs_review", "awaiting_approval", "failed")
LOOK_S = 0.01


class Watch:
    """One run with one step of interest, as seen from outside its workers."""

    def __init__(self, lab: Lab, folder: Path, superuser: Any) -> None:
        self.folder = folder
        self.workspace = lab.workspace
        self.backup = folder / "backup"
        self.marker = f"crash-{uuid4()}"
        self._lab = lab
        self._superuser = superuser
        self._run: RunId
        self._step: StepId
        self._epoch = 0
        self._inodes: frozenset[int] = frozenset()

    # Before

    async def create(self, plan: Plan) -> None:
        self._run = await self._lab.create(plan)
        self._step = (await self._lab.step(self._run, "s")).id

    async def undo(self) -> None:
        """Once the run is over, and put down, so that the undo is taken up anew."""
        await self._until(lambda: self._is("completed"))
        _, self._step = await self._lab.engine.undo(self._run, PERSON)

    async def asks_and_rests(self) -> None:
        """The step asks, and no worker has the run."""
        await self._until(lambda: self._is("awaiting_approval"))

    def note_files(self) -> None:
        self._inodes = frozenset(_inodes(self.workspace))

    async def approve(self) -> None:
        view = await self._lab.stack.queries.step(self._run, self._step)
        assert view.approval is not None
        await self._lab.engine.approve(self._run, self._step, PERSON, action_hash=view.approval.action_hash)

    # Afterwards

    def kept(self) -> frozenset[int]:
        """Inodes of files that others than the dead worker wrote: all from before, and a person's."""
        mine = (self.workspace / "mine", self.workspace / "log", self.workspace / "edited")
        return self._inodes | {path.lstat().st_ino for path in mine if path.exists() and b"person" in path.read_bytes()}

    async def expire_leases(self, but: int = 0) -> None:
        """By the database's clock; a worker that lives on does not know. `but` is the process that keeps its own."""
        self._epoch = await self._value("lease_epoch")
        query = "UPDATE stepgate.workers SET lease_until = clock_timestamp() - interval '1 second' WHERE pid <> $1"
        await self._superuser.execute(query, but)

    async def taken_over(self) -> None:
        """The run is no longer that of the worker that had it when `expire_leases` was called."""

        async def taken() -> bool:
            return bool(await self._value("lease_epoch > $2 OR worker_id IS NULL", self._epoch))

        await self._until(taken)

    async def settled(self) -> str:
        """The step's status once nobody drives the run, and nothing is due."""
        await self._until(lambda: self._is(*SETTLED))
        return await self._status()

    async def events(self) -> list[str]:
        rows = await self._superuser.fetch(
            "SELECT type FROM stepgate.events WHERE run_id = $1 AND step_id = $2 ORDER BY seq", self._run, self._step
        )
        return [row["type"] for row in rows]

    async def applied_sets(self) -> int:
        query = (
            "SELECT count(*) FROM stepgate.change_sets WHERE run_id = $1 AND step_id = $2 AND applied_seq IS NOT NULL"
        )
        found: int = await self._superuser.fetchval(query, self._run, self._step)
        return found

    async def review_paths(self) -> list[str]:
        step = (await self._lab.state(self._run)).steps[self._step]
        assert step.error is not None
        paths: list[str] = step.error["paths"]
        return paths

    async def verify(self) -> None:
        await self._lab.verify(self._run)

    async def close_question(self, status: str) -> None:
        """A person ends what is open: skips what is under review, rejects what asks."""
        if status == "needs_review":
            await self._lab.engine.skip(self._run, self._step, PERSON, "looked at")
        if status == "awaiting_approval":
            step = (await self._lab.state(self._run)).steps[self._step]
            assert step.approval is not None
            await self._lab.engine.reject(self._run, self._step, PERSON, action_hash=step.approval.action_hash)

    async def another_run_changes_the_workspace(self) -> None:
        """Nothing holds it any more: no turn, no lock, no mark."""
        run_id = await self._lab.create([{"key": "a", "type": "append", "input": {}}])

        async def done() -> bool:
            query = "SELECT status = 'completed' AND worker_id IS NULL FROM stepgate.runs WHERE id = $1"
            return bool(await self._superuser.fetchval(query, run_id))

        await self._until(done)
        assert (self.workspace / "appended").exists()

    def left_in_state(self) -> set[Path]:
        """Layers, and folders of blobs that are being written with something in them."""
        state = self.folder / "state"
        written = (path.parent for path in (state / "blobs" / "incoming").rglob("*") if path.is_file())
        return {*(state / "layers").iterdir(), *written}

    async def nothing_is_left_of(self, paths: set[Path]) -> None:
        async def gone() -> bool:
            return not any(path.exists() for path in paths)

        await self._until(gone)

    def leftovers(self) -> list[str]:
        """Temporary files, layers, marks, mounts, locks and processes; call it when no worker lives."""
        state = self.folder / "state"
        found = [str(path) for path in self.workspace.rglob("*") if TEMPORARY in path.name]
        for folder in (state / "layers", state / "applying", state / "blobs" / "incoming"):
            found += [str(path) for path in folder.iterdir()]
        found += [f"process {pid}" for pid in processes(self.marker)]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line]
        with Root.open(self.workspace) as root, WorkspaceLock(root).exclusive():
            pass
        return found

    async def _is(self, *statuses: str) -> bool:
        return await self._status() in statuses and bool(await self._value("worker_id IS NULL"))

    async def _status(self) -> str:
        query = "SELECT status FROM stepgate.steps WHERE run_id = $1 AND id = $2"
        status: str = await self._superuser.fetchval(query, self._run, self._step)
        return status

    async def _value(self, what: str, *more: Any) -> Any:
        return await self._superuser.fetchval(f"SELECT {what} FROM stepgate.runs WHERE id = $1", self._run, *more)

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not await holds():
            assert time.monotonic() < deadline, await self._told()
            await asyncio.sleep(LOOK_S)  # between looks, so as not to take the time of whom it watches

    async def _told(self) -> str:
        logs = "\n".join(
            path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")) if path.name[0].isdigit()
        )
        step = (await self._lab.state(self._run)).steps[self._step]
        return f"{step.status}, {step.error}, {await self.events()}\n{logs}"


@asynccontextmanager
async def watching(database_url: str, folder: Path, superuser: Any) -> AsyncIterator[Watch]:
    async with opened(database_url, folder, worker=False, kit=CrashKit()) as lab:
        yield Watch(lab, folder, superuser)


def _inodes(folder: Path) -> list[int]:
    return [path.lstat().st_ino for path in folder.rglob("*")]
