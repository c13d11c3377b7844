"""State folders that a server of root's can use, and proof that no process outlives a test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.embedded import Client, eventually, is_silent, processes_of


@pytest.fixture
def state_dir() -> Iterator[Path]:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="stepgate-embedded-", dir=base))
    folder.chmod(0o711)
    yield folder
    assert eventually(lambda: is_silent(folder)), f"still alive: {processes_of(folder)}"
    assert eventually(lambda: not processes_of(folder)), f"still alive: {processes_of(folder)}"
    shutil.rmtree(folder)


@pytest.fixture
def start_client() -> Iterator[Callable[[Path], Client]]:
    clients: list[Client] = []

    def start(state_dir: Path) -> Client:
        clients.append(Client(state_dir))
        return clients[-1]

    yield start
    for client in clients:
        if client.process.poll() is None:
            client.kill()
