"""A real server for each test: uvicorn on a loopback port, a database of its own, the real engine and worker."""

import asyncio
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr

from stepgate.api.app import create_app
from stepgate.api.services import Services
from stepgate.compose import Stack, open_stack, services_of_stack
from stepgate.domain.identity import Kind, Principal, Role
from stepgate.settings import Settings, load
from stepgate.storage.embedded import EmbeddedServer
from tests.fixtures.database import Administrator
from tests.fixtures.database import _database as make_database
from tests.fixtures.patience import PATIENCE_S

SECRET = "a-secret-for-tests"
ADMIN = Principal("root", Kind.PERSON, frozenset({Role.ADMIN}))
T = TypeVar("T")


@dataclass
class Api:
    """One running server, a client that speaks to it, and the workspace its runs are for."""

    client: httpx2.Client
    port: int
    workspace: Path
    stack: Stack
    loop: asyncio.AbstractEventLoop
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """An idempotency key that nobody has used."""
    secret: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {SECRET}"})

    def elsewhere(self) -> "Api":
        """The same server, with another workspace and another key."""
        return replace(self, workspace=new_workspace(self.workspace.parent), key=uuid.uuid4().hex)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def get(self, path: str, **query: Any) -> Any:
        response = self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None, *, expect: int = 200, **headers: str) -> Any:
        response = self.send(path, body, **headers)
        assert response.status_code == expect, response.text
        return response.json()

    def send(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """A POST; `Idempotency_Key="k"` becomes a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return self.client.post(path, headers=named)
        return self.client.post(path, json=body, headers=named)

    def run(self, steps: list[dict[str, Any]] | None = None, **more: Any) -> Any:
        """A new run."""
        body = {"goal": "look around", "workspace_path": str(self.workspace), **more}
        if steps is not None:
            body["steps"] = steps
        return self.post("/v1/agent-runs", body, expect=201)

    def asking(self, **edit: Any) -> tuple[str, Any]:
        """A run whose one edit asks for approval, and that step. Needs a worker."""
        step = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}, **edit}
        run = self.run([step], start=True)
        path = f"/v1/agent-runs/{run['id']}"
        run = self.until(path, lambda run: run["status"] == "awaiting_approval")
        return path, run["steps"][0]

    def decide(self, path: str, step: Any, verb: str, body: Any = None, **headers: str) -> httpx2.Response:
        return self.send(f"{path}/steps/{step['id']}/{verb}", body, **headers)

    def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """What is there once it is as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.get(path)
            if holds(found):
                return found
            assert time.monotonic() < deadline, found


def give(api: Api, *roles: Role, kind: Kind = Kind.PERSON, expires_at: datetime | None = None) -> dict[str, str]:
    """The header of a fresh key, and its name."""
    name = f"k{uuid.uuid4().hex}"
    given = api.do(api.stack.keys.give(name, kind, roles, ADMIN, expires_at))
    return {"Authorization": f"Bearer {given.key}", "Name": name}


def asked_about(api: Api, folder: str) -> tuple[str, Any, dict[str, str]]:
    """A run's path, its step that asks about a file in the folder, and the body that decides on it."""
    path, step = api.asking(input={"path": f"{folder}/a.txt", "content": "x"})
    return path, step, {"action_hash": step["approval"]["action_hash"]}


def new_workspace(folder: Path) -> Path:
    workspace = folder / f"workspace-{uuid.uuid4().hex}"
    workspace.mkdir()
    (workspace / "a.txt").write_text("old\n")
    return workspace


@asynccontextmanager
async def opened(settings: Settings, holder: list[Any], *, worker: bool, configured: bool) -> AsyncIterator[Services]:
    async with open_stack(settings) as stack:
        if worker:
            await stack.start_worker()
        holder += [stack, asyncio.get_running_loop()]
        hosts = frozenset({"stepgate.test"})
        yield replace(services_of_stack(stack), local_secret=SECRET, key_configured=configured, allowed_hosts=hosts)


@contextmanager
def served(
    database_url: str,
    folder: Path,
    *,
    worker: bool = False,
    local_trust: bool = False,
    configured: bool = False,
    policy: Path | None = None,
    webhook_private: bool = False,
    more: Callable[[int], dict[str, Any]] = lambda _: {},
) -> Iterator[Api]:
    """A server until the block ends; where `configured`, its secret is the key that an operator chose.

    `more` gives further settings for its port.
    """
    workspace = new_workspace(folder)
    listener = socket.create_server(("127.0.0.1", 0))
    settings = load(
        {
            "database_url": SecretStr(database_url),
            "state_dir": folder / "state",
            "workspace_root": folder,
            "local_trust": local_trust,
            "webhook_private": webhook_private,
            **more(listener.getsockname()[1]),
            "worker_check_interval": 0.2,
            "model_router": "offline",
            "policy": policy,
        },
        env_file=folder / "no.env",
    )
    holder: list[Any] = []
    app = create_app(lambda: opened(settings, holder, worker=worker, configured=configured))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=10))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn")
    thread.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            assert client.get("/health").status_code == 200
            yield Api(client, port, workspace, *holder)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    """A server that executes nothing."""
    with served(database_url, tmp_path) as found:
        yield found


@contextmanager
def for_a_module(
    cluster: EmbeddedServer, administrator: Administrator, template: str, folder: Path, **options: Any
) -> Iterator[Api]:
    with contextmanager(make_database)(cluster, administrator, template) as url, served(url, folder, **options) as api:
        yield api


@pytest.fixture(scope="module")
def quiet(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """A server that executes nothing, for all tests of a module that only read, or are refused and leave nothing."""
    with for_a_module(cluster, administrator, template, tmp_path_factory.mktemp("quiet")) as api:
        yield api


@pytest.fixture(scope="module")
def workshop(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    with for_a_module(cluster, administrator, template, tmp_path_factory.mktemp("workshop"), worker=True) as api:
        yield api


@pytest.fixture
def working(workshop: Api) -> Api:
    """A workspace of the test's own on a server with a worker, which other tests of the module use too."""
    return workshop.elsewhere()


@pytest.fixture(scope="module")
def trusted(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("trusted")
    with for_a_module(cluster, administrator, template, folder, worker=True, local_trust=True) as api:
        yield api


@pytest.fixture
def trusting(trusted: Api) -> Api:
    """The same on a server that trusts local callers."""
    return trusted.elsewhere()


@pytest.fixture
def alone(database_url: str, tmp_path: Path) -> Iterator[Api]:
    """A server with a worker that no other test uses."""
    with served(database_url, tmp_path, worker=True) as found:
        yield found


def _asking(name: str, **approvals: Any) -> dict[str, Any]:
    return {"name": name, "match": {"paths": [f"{name}/**"]}, "verdict": "ask", "approvals": approvals}


RULES = (
    _asking("two", count=2, expires="1h"),
    _asking("admins", roles="admin"),
    _asking("others", exclude_requester=True, on_expiry="pause"),
)
"""What it takes to approve an edit depends on the folder it is in."""


@pytest.fixture(scope="module")
def ruled(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    policy = tmp_path_factory.mktemp("rules") / "policy.json"
    policy.write_text(json.dumps({"version": 1, "rules": RULES}))
    folder = tmp_path_factory.mktemp("ruled")
    with for_a_module(cluster, administrator, template, folder, worker=True, policy=policy) as api:
        yield api


@pytest.fixture
def operated(ruled: Api) -> Iterator[Api]:
    """A server with rules and keys; its client is an operator who may approve, too."""
    key = give(ruled, Role.OPERATOR, Role.APPROVER)
    ruled.client.headers.update(key)
    yield ruled.elsewhere()
    for name in key:
        ruled.client.headers.pop(name)
