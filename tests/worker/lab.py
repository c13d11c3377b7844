"""A process of Stepgate inside the test: real database, real files, real sandbox; and what tests ask of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from stepgate.compose import Stack, open_stack
from stepgate.domain import canonical
from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor, RunState, StepState
from stepgate.engine import views
from stepgate.engine.engine import NewRun
from stepgate.settings import Settings, load
from stepgate.storage.steps import Steps
from stepgate.worker.worker import Worker
from stepgate.workspace.access import Root
from stepgate.workspace.locks import WorkspaceLock
from tests.fixtures.patience import PATIENCE_S
from tests.worker.steps import Kit

PERSON = Actor("ada", "person", "cli")

Plan = Sequence[Mapping[str, Any]]


def settings_of(database_url: str, folder: Path, **more: Any) -> Settings:
    """Settings of a process whose state folder is `folder/state` and whose workspaces lie in `folder/spaces`."""
    given = {
        "database_url": SecretStr(database_url),
        "state_dir": folder / "state",
        "workspace_root": folder / "spaces",
        "model_router": "offline",
        # So long that nothing in a test happens only because somebody looked again.
        "worker_check_interval": 3600.0,
        "lease_s": 3600.0,
    }
    return load(given | more, env_file=folder / "no.env")


async def eventually(holds: Callable[[], Awaitable[bool]], what: Callable[[], Any]) -> None:
    """Returns once it holds; fails, saying `what`, when it does not within the deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline, what()
        await asyncio.to_thread(os.sched_yield)


@dataclass
class Lab:
    """`workspace` is where its runs work unless told otherwise."""

    stack: Stack
    kit: Kit
    workspace: Path

    @property
    def engine(self) -> Any:
        return self.stack.engine

    @property
    def worker(self) -> Worker:
        assert self.stack.worker is not None
        return self.stack.worker

    async def create(self, steps: Plan, *, start: bool = True, **more: Any) -> RunId:
        """A run of these steps, started unless told otherwise."""
        path = more.pop("workspace", self.workspace)
        more = {"workspace_path": None if path is None else str(path), "workspace": more.pop("named", None)} | more
        new = NewRun(goal="try it", steps=[dict(step) for step in steps], start=start, **more)
        return (await self.stack.engine.create(new, PERSON)).info.id

    async def state(self, run_id: RunId) -> RunState:
        return await self.stack.committer.load(run_id)

    async def step(self, run_id: RunId, key: str) -> StepState:
        return step_of(await self.state(run_id), key)

    async def until(self, run_id: RunId, holds: Callable[[RunState], bool]) -> RunState:
        """The first state seen that is as wanted."""
        found = [await self.state(run_id)]

        async def look() -> bool:
            found[0] = await self.state(run_id)
            return holds(found[0])

        await eventually(look, lambda: summary(found[0]))
        return found[0]

    async def until_status(self, run_id: RunId, status: str) -> RunState:
        return await self.until(run_id, lambda state: state.status == status)

    async def until_step(self, run_id: RunId, key: str, status: str) -> StepState:
        return step_of(await self.until(run_id, lambda state: step_of(state, key).status == status), key)

    async def until_idle(self) -> None:
        """Until the worker has put every run down, and their layers are gone."""

        async def idle() -> bool:
            if self.worker._drives:
                await asyncio.wait(self.worker._drives, timeout=PATIENCE_S)
            return not self.worker.busy

        await eventually(idle, lambda: "the worker still has runs in hand")
        await asyncio.to_thread(self.worker._tools.layers.settle)

    async def until_available(self) -> None:
        """Until the database answers this process again."""

        async def answers() -> bool:
            try:
                await self.stack.queries.queue()
            except DatabaseUnavailable:
                return False
            return True

        await eventually(answers, lambda: "the database does not answer")

    async def until_held(self, run_id: RunId) -> views.Run:
        """The run, once it waits for its workspace in nobody's hands."""
        found = [await self.stack.queries.run(run_id)]

        async def held() -> bool:
            found[0] = await self.stack.queries.run(run_id)
            return [reason.kind for reason in found[0].waiting_for] == ["workspace"]

        await eventually(held, lambda: found[0])
        return found[0]

    async def approve(self, run_id: RunId, key: str) -> StepState:
        """Approves the step as soon as it asks; returns it as it was asked."""
        step = await self.until_step(run_id, key, "awaiting_approval")
        assert step.approval is not None
        await self.stack.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
        return step

    async def reject(self, run_id: RunId, key: str, then: str) -> None:
        step = await self.until_step(run_id, key, "awaiting_approval")
        assert step.approval is not None
        await self.stack.engine.reject(run_id, step.id, PERSON, action_hash=step.approval.action_hash, then=then)

    async def output(self, run_id: RunId, key: str) -> Any:
        step = await self.step(run_id, key)
        texts = await Steps(self.stack.database).outputs(run_id, [step.id])
        return canonical.loads(texts[step.id]) if step.id in texts else None

    async def events(self, run_id: RunId, key: str | None = None) -> list[str]:
        """Event types in order, of one step or of the whole run."""
        step_id: StepId | None = None if key is None else (await self.step(run_id, key)).id
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.stack.queries.events(run_id, cursor=cursor, limit=200)
            found += [event.type for event in page.items if step_id is None or event.step_id == step_id]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def verify(self, run_id: RunId) -> None:
        """The journal's chain holds and the tables are what it says."""
        found = await self.stack.queries.verify(run_id)
        assert found.verified, found


def processes(marker: str) -> set[int]:
    """The pids of this host whose command line has the marker in it, whatever namespace they live in."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in entry.read_bytes():
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


async def until_processes(marker: str, count: int) -> set[int]:
    """The pids, once there are so many."""

    async def enough() -> bool:
        return len(await asyncio.to_thread(processes, marker)) == count

    await eventually(enough, lambda: (processes(marker), count))
    return processes(marker)


@contextmanager
def reading(workspace: Path) -> Iterator[None]:
    """Somebody reads the workspace, so that what is computed cannot be applied until the block ends."""
    with Root.open(workspace) as root, WorkspaceLock(root).shared(PATIENCE_S):
        yield


def step_of(state: RunState, key: str) -> StepState:
    return state.steps[state.keys[key]]


def statuses(state: RunState) -> dict[str, str]:
    """Every step's status, by key."""
    return {step.spec.key: step.status.value for _, step in state.steps.items()}


def summary(state: RunState) -> Any:
    steps = {step.spec.key: (step.status.value, step.reason, step.error) for _, step in state.steps.items()}
    return state.status.value, state.reason, steps


@asynccontextmanager
async def opened(
    database_url: str, folder: Path, *, worker: bool = True, kit: Kit | None = None, **more: Any
) -> AsyncIterator[Lab]:
    """A process until the block ends; several may share a folder."""
    workspace = folder / "spaces" / "project"
    workspace.mkdir(parents=True, exist_ok=True)
    kit = kit or Kit()
    async with open_stack(settings_of(database_url, folder, **more), registry=kit.registry) as stack:
        lab = Lab(stack, kit, workspace)
        if worker:
            await stack.start_worker()
        yield lab
