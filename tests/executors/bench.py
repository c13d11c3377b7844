"""A workspace with everything an executor may use, all of it real."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgate.executors.base import (
    AppliedSet,
    Bounds,
    Context,
    Done,
    Executor,
    FinishedStep,
    Models,
    Planning,
    Prepared,
    Replaying,
)
from stepgate.llm.protocol import ModelAnswer, ModelRequest, ModelRouter
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.secrets import SecretFolder


@dataclass(slots=True)
class PlainModels:
    """A router asked directly, without the journal that the engine keeps; `asked` is every request."""

    router: ModelRouter
    asked: list[ModelRequest] = field(default_factory=list)

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        self.asked.append(request)
        return await self.router.complete(request)


async def _nothing_shown() -> Mapping[str, Any] | None:
    return None


class AnyPlan(Planning):
    """Takes every plan; what the engine holds plans to is tested with the engine."""

    def step_types(self) -> Sequence[Mapping[str, Any]]:
        return [{"type": "read_file", "summary": "Reads.", "input": {"type": "object"}}]

    def check(self, steps: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        return []


class Agreeing(Replaying):
    """Whatever was done, it comes out the same."""

    async def again(self, run_id: str, *, printed: bool) -> Mapping[str, Any]:
        return {"run_id": run_id, "steps": 1, "agreed": 1, "taken": [], "divergence": None}


@dataclass(frozen=True)
class BenchContext:
    root: Root
    blobs: BlobStore
    layers: Layers
    bounds: Bounds
    models: Models
    sandbox: Sandbox | None
    planning: Planning
    replaying: Replaying
    steps: Sequence[FinishedStep]
    sets: Sequence[AppliedSet]
    on_output: Callable[[str, bytes], None]
    run_id: str = "01890000-0000-7000-8000-000000000001"
    step_id: str = "01890000-0000-7000-8000-000000000002"
    step_key: str = "step"
    goal: str = "make the tests pass"
    prepared: Prepared | None = None
    secrets: SecretFolder | None = None
    ready: asyncio.Future[None] | None = None
    shown: Callable[[], Coroutine[Any, Any, Mapping[str, Any] | None]] = _nothing_shown

    async def finished(self, keys: Sequence[str] | None) -> Sequence[FinishedStep]:
        return [step for step in self.steps if keys is None or step.key in keys]

    async def applied(self) -> Sequence[AppliedSet]:
        return tuple(self.sets)

    async def sets_of(self, run_id: str) -> Sequence[ChangeSet]:
        return ()


@dataclass(slots=True)
class Bench:
    """One workspace and what happened to it; `context()` is what the next attempt gets."""

    path: Path
    root: Root
    blobs: BlobStore
    layers: Layers
    sandbox: Sandbox
    models: PlainModels
    bounds: Bounds
    finished: list[FinishedStep] = field(default_factory=list)
    applied: list[AppliedSet] = field(default_factory=list)
    output: list[tuple[str, bytes]] = field(default_factory=list)

    def context(self, **changes: Any) -> Context:
        made = BenchContext(
            root=self.root,
            blobs=self.blobs,
            layers=self.layers,
            bounds=self.bounds,
            models=self.models,
            sandbox=self.sandbox,
            planning=AnyPlan(),
            replaying=Agreeing(),
            steps=self.finished,
            sets=self.applied,
            on_output=lambda stream, piece: self.output.append((stream, piece)),
        )
        changed: Context = dataclasses.replace(made, **changes)
        return changed

    def finish(self, key: str, output: dict[str, Any], type_: str = "read_file") -> None:
        self.finished.append(FinishedStep(key, len(self.finished) + 1, type_, output))

    def apply(self, key: str, done: Done) -> None:
        """What the engine does with a computed change set."""
        assert done.change_set is not None
        apply(self.root, done.change_set, self.blobs)
        number = len(self.applied) + 1
        self.applied.append(AppliedSet(f"id-{key}", key, number, done.change_set))

    async def prepare(self, executor: Executor[Any], input_: dict[str, Any], **changes: Any) -> Prepared:
        return await executor.prepare(self.context(**changes), executor.params.model_validate(input_))

    async def execute(self, executor: Executor[Any], input_: dict[str, Any], **changes: Any) -> Any:
        return await executor.execute(self.context(**changes), executor.params.model_validate(input_))

    async def do(self, executor: Executor[Any], key: str, input_: dict[str, Any]) -> Done:
        """Prepare, execute exactly that, apply."""
        prepared = await self.prepare(executor, input_)
        done = await self.execute(executor, input_, prepared=prepared)
        assert isinstance(done, Done), done
        if done.change_set is not None:
            self.apply(key, done)
        return done

    def tree(self) -> dict[str, tuple[int, int, bytes | str]]:
        """Everything in the workspace: modes, times, contents."""
        found: dict[str, tuple[int, int, bytes | str]] = {}
        for path in sorted(self.path.rglob("*")):
            stat = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[str(path.relative_to(self.path))] = (stat.st_mode, stat.st_mtime_ns, content)
        return found
