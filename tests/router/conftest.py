"""A real LiteLLM proxy with a provider of the tests' own behind it, for `./dev test --router`; never else."""

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

HERE = Path(__file__).parent
KEY = "sk-test-1234"
READY_S = 120.0
LISTENS = "Uvicorn running on"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--router"):
        return
    skipped = pytest.mark.skip(reason="needs a LiteLLM proxy: ./dev test --router")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skipped)


@dataclass(frozen=True)
class Proxy:
    url: str
    upstream: str

    def asked(self) -> list[dict[str, Any]]:
        """What reached the provider so far."""
        found: list[dict[str, Any]] = httpx2.get(f"{self.upstream}/seen").json()
        return found


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    program = os.environ.get("LITELLM_PROXY")
    if program is None:
        pytest.fail("no proxy is installed: run ./dev test --router tests/router")
    ports = free_ports(2)
    upstream, url = (f"http://127.0.0.1:{port}" for port in ports)
    with ExitStack() as exits:
        provider = [sys.executable, "-m", "tests.router.upstream", str(ports[0])]
        exits.enter_context(running(provider, {}))
        arguments = [program, "--config", str(HERE / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(ports[1])]
        more = {"UPSTREAM_URL": f"{upstream}/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
        exits.enter_context(running(arguments, more))
        yield Proxy(url, upstream)


@contextmanager
def running(arguments: list[str], more: dict[str, str]) -> Iterator[None]:
    """A server, from the moment it says that it listens."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment | more,
        cwd=HERE.parents[1],
    )
    said, listens = deque[str](maxlen=100), threading.Event()
    reader = threading.Thread(target=lambda: listen(process, said, listens))
    reader.start()
    try:
        assert listens.wait(READY_S), "".join(said)
        assert process.poll() is None, "".join(said)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


def listen(process: "subprocess.Popen[str]", said: deque[str], listens: threading.Event) -> None:
    """Takes what the server prints, to its end."""
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if LISTENS in line:
            listens.set()
    listens.set()
    process.stdout.close()


def free_ports(count: int) -> list[int]:
    with ExitStack() as exits:
        sockets = [exits.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
