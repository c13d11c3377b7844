"""A workspace, its blob store and both ways of opening paths."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.opening import Opener, open_by_walk
from stepgate.workspace.syscalls import has_openat2, openat2


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def root(workspace: Path) -> Iterator[Root]:
    with Root.open(workspace) as opened:
        yield opened


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "walk":
        return open_by_walk
    if not has_openat2():
        pytest.skip("this kernel has no openat2")
    return openat2


@pytest.fixture
def either_root(workspace: Path, opener: Opener) -> Iterator[Root]:
    with Root.open(workspace, opener=opener) as opened:
        yield opened
