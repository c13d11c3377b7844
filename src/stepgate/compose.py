"""Builds every object from the settings: the only module that knows all of them."""

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI

from stepgate.api.app import create_app
from stepgate.api.listeners import Listeners
from stepgate.api.services import Services
from stepgate.domain.errors import SandboxUnavailable
from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor
from stepgate.engine.engine import DEFAULT_POOL, Engine
from stepgate.engine.queries import Queries
from stepgate.engine.views import Canary, SandboxHealth
from stepgate.executors.base import Bounds
from stepgate.executors.registry import Registry, installed
from stepgate.llm.offline import OfflineModel
from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.protocol import ModelRouter
from stepgate.logs import configure
from stepgate.settings import Settings, load
from stepgate.storage import schema
from stepgate.storage.approvals import Approvals
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.embedded import acquire
from stepgate.storage.notify import Doorbell
from stepgate.storage.steps import Steps
from stepgate.storage.workspaces import Workspaces
from stepgate.worker.lanes import Lanes
from stepgate.worker.tools import Tools
from stepgate.worker.worker import Options, Worker
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.locks import ApplyMarks
from stepgate.workspace.sandbox.bubblewrap import Sandbox
from stepgate.workspace.sandbox.limits import Limits

log = structlog.get_logger(__name__)

EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


class Stack:
    """The parts of one process, open and connected."""

    def __init__(self, settings: Settings, database: Database, registry: Registry, exits: AsyncExitStack) -> None:
        self.settings = settings
        self.database = database
        self._exits = exits
        self.registry = registry
        self.blobs = BlobStore(settings.state_dir / "blobs")
        self.router: ModelRouter = model_router(settings)
        self.committer = Committer(database)
        self.doorbell = Doorbell(database)
        self.queries = Queries(database, self.blobs, self.registry)
        self.worker: Worker | None = None
        self.sandbox: Sandbox | None = None
        self.sandbox_problem: str | None = None
        self._layers: Layers | None = None
        self.listeners = Listeners()
        self.engine = Engine(
            database=database,
            committer=self.committer,
            registry=self.registry,
            workspace_root=settings.workspace_root,
            ring=self._ring,
            local_trust=settings.local_trust,
        )

    def _ring(self, run_id: RunId) -> None:
        self._rung(run_id)
        self.doorbell.ring(run_id)

    async def open(self) -> None:
        await self.committer.start()
        self._exits.push_async_callback(self.committer.stop)
        await self.doorbell.start(self._rung)
        self._exits.push_async_callback(self.doorbell.stop)
        self._exits.push_async_callback(self.router.aclose)

    def _rung(self, run_id: RunId) -> None:
        self.listeners.ring(run_id)
        if self.worker is not None:
            self.worker.ring(run_id)

    async def start_worker(self, only: RunId | None = None) -> Worker:
        """Probes the sandbox and begins to drive due runs, or only that one, until the stack closes."""
        settings = self.settings
        layers = await self.probe_sandbox()
        tools = Tools(
            registry=self.registry,
            committer=self.committer,
            clock=self.database.clock,
            claims=Claims(self.database),
            steps=Steps(self.database),
            approvals=Approvals(self.database),
            change_sets=ChangeSets(self.database),
            workspaces=Workspaces(self.database),
            blobs=self.blobs,
            layers=layers,
            marks=ApplyMarks(settings.state_dir),
            sandbox=self.sandbox,
            router=self.router,
            bounds=bounds(settings),
            lanes=Lanes(settings.concurrency),
            step_timeout_ms=round(settings.step_timeout_s * 1000),
            ring=self._ring,
            actor=Actor("worker", "system", "worker"),
        )
        options = Options(
            pools=(DEFAULT_POOL,),
            check_interval_s=settings.worker_check_interval,
            runs=settings.worker_batch_size,
            lease_s=settings.lease_s,
            only=only,
        )
        self.worker = Worker(self.database, tools, options)
        tune_memory()
        await self.worker.start()
        self._exits.push_async_callback(self.worker.stop)
        return self.worker

    async def probe_sandbox(self) -> Layers:
        """Finds out by canaries whether commands can run here; once. Returns the layers that they will run over."""
        if self._layers is None:
            self._layers = Layers(self.settings.state_dir)
            await asyncio.to_thread(self._layers.sweep)
            self.sandbox = await self._probe(self._layers)
        return self._layers

    async def _probe(self, layers: Layers) -> Sandbox | None:
        settings = self.settings
        try:
            return await Sandbox.probe(
                levels=settings.sandbox_levels,
                readonly=settings.sandbox_readonly,
                state_dir=settings.state_dir,
                layers=layers,
            )
        except SandboxUnavailable as error:
            self.sandbox_problem = str(error)
            log.warning("no sandbox: commands will not run", reason=str(error))
            return None


@asynccontextmanager
async def open_stack(
    settings: Settings, *, migrate: bool = False, registry: Registry | None = None
) -> AsyncIterator[Stack]:
    """Everything but the worker. The embedded database is brought up to date by itself, any other if `migrate`.

    Raises DatabaseUnavailable or SchemaMismatch.
    """
    async with AsyncExitStack() as exits:
        url, embedded = await database_url(settings, exits)
        if embedded or migrate:
            await schema.upgrade(url)
        database = Database(url)
        await database.open()
        exits.push_async_callback(database.close)
        stack = Stack(settings, database, registry or installed(), exits)
        await stack.open()
        yield stack


@asynccontextmanager
async def serving() -> AsyncIterator[Services]:
    """What `stepgate.main:app` stands on: the settings of now, the stack, and a worker unless it is turned off."""
    settings = load()
    configure(settings.log_level, settings.log_format)
    for notice in settings.notices:
        log.warning("unknown setting", notice=notice)
    async with open_stack(settings) as stack:
        if settings.embedded_worker:
            await stack.start_worker()
        yield services_of_stack(stack)


def services_of_stack(stack: Stack) -> Services:
    """The stack as the API sees it now."""
    settings = stack.settings
    return Services(
        engine=stack.engine,
        queries=stack.queries,
        router=stack.router,
        worker=stack.worker,
        sandbox=sandbox_health(stack),
        local_secret=secret_of(settings),
        local_trust=settings.local_trust,
        allowed_hosts=allowed_hosts(settings),
        check_interval_s=settings.worker_check_interval,
        listeners=stack.listeners,
    )


def app_of_stack(stack: Stack) -> FastAPI:
    """The application around a stack that somebody else opened and will close; it needs no lifespan to answer."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        yield services_of_stack(stack)

    app = create_app(opened)
    app.state.services = services_of_stack(stack)
    return app


def sandbox_health(stack: Stack) -> SandboxHealth:
    """What the canaries showed; not degraded where nobody looked, because nothing is executed here."""
    sandbox = stack.sandbox
    if sandbox is None:
        return SandboxHealth(
            level=None, canaries=[], degraded=stack.sandbox_problem is not None, error=stack.sandbox_problem
        )
    canaries = [Canary(name=one.name, passed=one.passed, detail=one.detail) for one in sandbox.canaries]
    return SandboxHealth(
        level=sandbox.level,
        canaries=canaries,
        degraded=bool(sandbox.degraded),
        error="; ".join(sandbox.degraded) or None,
    )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """The names beside the loopback ones that this installation gave itself."""
    own = urlsplit(settings.url).hostname if settings.url is not None else None
    return frozenset(name.lower() for name in (settings.host, own) if name and name not in EVERY_ADDRESS)


def secret_of(settings: Settings) -> str:
    """What decisions must be sent with: the configured key, else the secret of the state folder."""
    return local_secret(settings.state_dir) if settings.key is None else settings.key.get_secret_value()


async def database_url(settings: Settings, exits: AsyncExitStack) -> tuple[str, bool]:
    """The URL, and whether it is the embedded server's (which then runs until `exits` closes)."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value(), False
    server = await asyncio.to_thread(acquire, settings.state_dir, binaries=settings.postgres_bin)
    exits.callback(server.release)
    return server.sqlalchemy_url(), True


def model_router(settings: Settings) -> ModelRouter:
    """`auto`: the configured server if there is one, else the offline model."""
    if settings.model_url is None or settings.model_router == "offline":
        return OfflineModel()
    key = None if settings.model_key is None else settings.model_key.get_secret_value()
    return OpenAIRouter(settings.model_url, key=key, default_model=settings.model_default)


def bounds(settings: Settings) -> Bounds:
    """What steps may use, as the settings say."""
    command = replace(Limits(), wall_s=settings.command_timeout_s, output_bytes=settings.max_output_bytes)
    return Bounds(settings.max_read_bytes, settings.max_output_bytes, command)


def tune_memory() -> None:
    """Keeps the collector from walking what lives for ever: it cost a third of a small step's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def local_secret(state_dir: Path) -> str:
    """The secret in the state folder that proves a caller can read this user's files; made once, 0600."""
    path = state_dir / "local-secret"
    try:
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(32)
    temporary = state_dir / f".local-secret.{secrets.token_hex(8)}"
    temporary.touch(mode=0o600)
    temporary.write_text(secret + "\n", "utf-8")
    with suppress(FileExistsError):  # a link, unlike a rename, never replaces what another process made first
        path.hardlink_to(temporary)
    temporary.unlink()
    return path.read_text("utf-8").strip()
