"""One proved sandbox for all tests of a process, and a fresh workspace for each."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepgate.executors.base import Bounds
from stepgate.llm.offline import OfflineModel
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox
from tests.executors.bench import Bench, PlainModels


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    return Layers(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def sandbox(layers: Layers) -> Sandbox:
    return asyncio.run(Sandbox.probe(state_dir=layers.path.parent, layers=layers))


@pytest.fixture
def bench(tmp_path: Path, layers: Layers, sandbox: Sandbox) -> Iterator[Bench]:
    path = tmp_path / "workspace"
    path.mkdir()
    with Root.open(path) as root:
        yield Bench(
            path=path,
            root=root,
            blobs=BlobStore(tmp_path / "blobs"),
            layers=layers,
            sandbox=sandbox,
            models=PlainModels(OfflineModel()),
            bounds=Bounds(1 << 20, 1 << 20, Limits(wall_s=20.0)),
        )
