"""A sandbox with a workspace to try things on."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import Capture, Layer
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.command import Command, Finished
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox

NO_ENVIRONMENT: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Lab:
    sandbox: Sandbox
    layers: Layers
    blobs: BlobStore
    workspace: Path

    @contextlib.contextmanager
    def layer(self) -> Iterator[Layer]:
        with Root.open(self.workspace) as root, self.layers.open(root) as layer:
            yield layer

    async def run(
        self,
        *argv: str,
        env: Mapping[str, str] = NO_ENVIRONMENT,
        cwd: str = ".",
        stdin: bytes = b"",
        limits: Limits | None = None,
        on_output: Callable[[str, bytes], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> Finished:
        with self.layer() as layer:
            command = Command(argv, cwd, env, stdin, limits or Limits())
            return await self.sandbox.run(command, layer, on_output=on_output, stop=stop)

    async def shell(self, script: str, limits: Limits | None = None) -> Finished:
        return await self.run("/bin/sh", "-c", script, limits=limits)

    async def python(self, script: str, *arguments: str, limits: Limits | None = None) -> Finished:
        return await self.run("python3", "-I", "-S", "-c", script, *arguments, limits=limits)

    async def change(
        self, script: str, meanwhile: Callable[[], object] = lambda: None, limits: Limits | None = None
    ) -> ChangeSet:
        """What a shell script changes; `meanwhile` is somebody else, after the command and before the harvest."""
        limits = limits or Limits()
        with self.layer() as layer:
            finished = await self.sandbox.run(Command(("/bin/sh", "-c", script), limits=limits), layer)
            assert (finished.exit_code, finished.stderr) == (0, b""), finished
            meanwhile()
            return harvest(layer, layer.root, self.blobs, limits)


def make(
    base: Path,
    workspace: Path,
    captures: tuple[Capture, ...] = (Capture.OVERLAY, Capture.COPY),
    level: Level = Level.BWRAP_FULL,
) -> Lab:
    """Probes layers and a sandbox of exactly that level in a state folder of its own; the workspace is made."""
    workspace.mkdir(exist_ok=True)
    state = base / "state"
    layers = Layers(state, captures=captures)
    sandbox = asyncio.run(Sandbox.probe(levels=(level,), state_dir=state, layers=layers))
    return Lab(sandbox, layers, BlobStore(base / "blobs"), workspace)
