"""A workspace with everything an executor may use, all of it real."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgate.executors.base import AppliedSet, Bounds, Context, Done, Executor, FinishedStep, Prepared
from stepgate.llm.protocol import ModelAnswer, ModelRequest, ModelRouter
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.bubblewrap import Sandbox


@dataclass(slots=True)
class PlainModels:
    """A router asked directly, without the journal that the engine keeps; `asked` is every request."""

    router: ModelRouter
    asked: list[ModelRequest] = field(default_factory=list)

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        self.asked.append(request)
        return await self.router.complete(request)


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
        async def finished(keys: Sequence[str] | None) -> Sequence[FinishedStep]:
            return [step for step in self.finished if keys is None or step.key in keys]

        async def applied() -> Sequence[AppliedSet]:
            return tuple(self.applied)

        made = Context(
            run_id="01890000-0000-7000-8000-000000000001",
            step_id="01890000-0000-7000-8000-000000000002",
            step_key="step",
            goal="make the tests pass",
            root=self.root,
            blobs=self.blobs,
            layers=self.layers,
            bounds=self.bounds,
            models=self.models,
            finished=finished,
            applied=applied,
            sandbox=self.sandbox,
            on_output=lambda stream, piece: self.output.append((stream, piece)),
        )
        return made._replace(**changes)

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
