"""The parts of one process, put together, opened and closed again."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache

import structlog

from stepgate.api.listeners import Listeners
from stepgate.compose.parts import (
    bounds,
    database_url,
    model_router,
    policy_of_settings,
    secret_folder,
    spending,
    step_types,
    token_issuer,
    tune_memory,
)
from stepgate.domain.errors import SandboxUnavailable
from stepgate.domain.ids import RunId
from stepgate.domain.policy.reading import policy_of
from stepgate.domain.state import Actor
from stepgate.engine.always import Always
from stepgate.engine.audits import Audits
from stepgate.engine.budgets import Budgets
from stepgate.engine.costs import CostQueries
from stepgate.engine.delegations import Delegations
from stepgate.engine.engine import DEFAULT_POOL, Engine
from stepgate.engine.keys import Keys
from stepgate.engine.policies import Policies
from stepgate.engine.queries import Queries
from stepgate.engine.sandbox_health import UNSAFE
from stepgate.engine.sessions import Sessions
from stepgate.engine.webhooks.hooks import Hooks
from stepgate.engine.webhooks.posting import Poster
from stepgate.engine.webhooks.sender import Sender
from stepgate.executors.registry import Registry, installed
from stepgate.llm.offline import OfflineModel
from stepgate.llm.protocol import ModelRouter
from stepgate.settings import Settings
from stepgate.state_files import audit_key
from stepgate.storage import schema
from stepgate.storage.answers import Answers
from stepgate.storage.approvals import Approvals
from stepgate.storage.budgets import SharedBudgets
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.delegations import DelegationRows
from stepgate.storage.journals import Journals
from stepgate.storage.keys import ApiKeys
from stepgate.storage.live import OutputChunks
from stepgate.storage.notify import Doorbell
from stepgate.storage.origins import Origins
from stepgate.storage.policies import PolicyVersions
from stepgate.storage.sessions import SessionRows
from stepgate.storage.steps import Steps
from stepgate.storage.tenants import Tenants
from stepgate.storage.webhooks import Webhooks
from stepgate.storage.workspaces import Workspaces
from stepgate.worker.lanes import Lanes
from stepgate.worker.live import LiveOutput
from stepgate.worker.tools import Tools
from stepgate.worker.worker import Options, Worker
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.isolated import Copies
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.locks import ApplyMarks
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.treecopy import Bounds as CopyBounds

log = structlog.get_logger(__name__)


class Stack:
    """The parts of one process, open and connected."""

    def __init__(self, settings: Settings, database: Database, registry: Registry, exits: AsyncExitStack) -> None:
        self.settings = settings
        self.database = database
        self._exits = exits
        self.registry = registry
        self.blobs = BlobStore(settings.state_dir / "blobs", undo_max_bytes=settings.undo_max_bytes)
        self.copies = Copies(settings.state_dir, CopyBounds(settings.isolated_max_bytes, settings.isolated_max_files))
        self.router: ModelRouter = model_router(settings)
        self.sender = Sender(Webhooks(database), Poster(private=settings.webhook_private), url=settings.url)
        self.committer = Committer(database, tells_ends=lambda: self.sender.wanted)
        self.doorbell = Doorbell(database)
        self.queries = Queries(database, self.blobs, self.registry)
        self.tenants = Tenants(database)
        self.costs = CostQueries(database)
        self.budgets = Budgets(SharedBudgets(database))
        self.issuer = token_issuer(settings)
        self.keys = Keys(ApiKeys(database))
        self.delegations = Delegations(DelegationRows(database), ApiKeys(database))
        self.sessions = Sessions(SessionRows(database))
        self.hooks = Hooks(Webhooks(database), private=settings.webhook_private)
        self.audits = Audits(database, cache(lambda: audit_key(settings.state_dir, settings.audit_key)))
        self.worker: Worker | None = None
        self.sandbox: Sandbox | None = None
        self.sandbox_refused: SandboxUnavailable | None = None
        self.policies = Policies(
            PolicyVersions(database),
            lambda: policy_of_settings(settings, registry),
            lambda raw: policy_of(raw, step_types(registry)),
            f"uid {os.geteuid()} on {socket.gethostname()}",
        )
        self.always = Always(database, self.committer, registry, self.policies)
        self._watches_policy = False
        self._layers: Layers | None = None
        self.listeners = Listeners()
        self.engine = Engine(
            database=database,
            committer=self.committer,
            registry=self.registry,
            workspace_root=settings.workspace_root,
            copies=self.copies,
            blobs=self.blobs,
            git_author=settings.git_author,
            policies=self.policies,
            ring=self._ring,
            local_trust=settings.local_trust,
            plans=not isinstance(self.router, OfflineModel),
            plan_approval=settings.plan_approval,
            max_replans=settings.max_replans,
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
        self._exits.push_async_callback(self.sender.stop)
        if self.issuer is not None:
            self._exits.push_async_callback(self.issuer.aclose)

    def _rung(self, run_id: RunId) -> None:
        self.listeners.ring(run_id)
        if self.worker is not None:
            self.worker.ring(run_id)

    async def start_worker(self, only: RunId | None = None) -> Worker:
        """Probes the sandbox and begins to drive due runs, or only that one, until the stack closes."""
        settings = self.settings
        await self.watch_policy()
        layers = await self.probe_sandbox()
        await asyncio.to_thread(self.copies.sweep)
        tools = Tools(
            registry=self.registry,
            committer=self.committer,
            clock=self.database.clock,
            claims=Claims(self.database),
            steps=Steps(self.database),
            approvals=Approvals(self.database),
            change_sets=ChangeSets(self.database),
            answers=Answers(self.database),
            journals=Journals(self.database),
            workspaces=Workspaces(self.database),
            origins=Origins(self.database),
            copies=self.copies,
            workspace_root=settings.workspace_root,
            blobs=self.blobs,
            layers=layers,
            marks=ApplyMarks(settings.state_dir),
            sandbox=self.sandbox,
            router=self.router,
            model_cache=settings.model_cache,
            spending=spending(settings, self.database, self.router),
            bounds=bounds(settings),
            lanes=Lanes(settings.concurrency),
            secrets=secret_folder(settings),
            live=LiveOutput(OutputChunks(self.database), self.database.clock.now),
            step_timeout_ms=round(settings.step_timeout_s * 1000),
            ring=self._ring,
            actor=Actor("worker", "system", "worker"),
            policies=self.policies,
        )
        options = Options(
            pools=(DEFAULT_POOL,),
            check_interval_s=settings.worker_check_interval,
            runs=settings.worker_batch_size,
            lease_s=settings.lease_s,
            only=only,
        )
        self.worker = Worker(self.database, tools, options)
        await self.sender.start()
        tune_memory()
        await tools.spending.sweep()
        await self.worker.start()
        self._exits.push_async_callback(self.worker.stop)
        return self.worker

    async def watch_policy(self) -> None:
        """Reads the rules, and takes up newer ones until the stack closes; raises InvalidPolicy naming the fault."""
        await self.policies.load()
        if not self._watches_policy:
            self._watches_policy = True
            await self._exits.enter_async_context(self.policies.watched(self.settings.worker_check_interval))

    async def probe_sandbox(self) -> Layers:
        """Finds out by canaries whether commands can run here; once. Returns the layers that they will run over."""
        if self._layers is None:
            self._layers = Layers(self.settings.state_dir)
            self._exits.push_async_callback(asyncio.to_thread, self._layers.settle)
            await asyncio.to_thread(self._layers.sweep)
            self.sandbox = await self._probe(self._layers)
        return self._layers

    async def _probe(self, layers: Layers) -> Sandbox | None:
        settings = self.settings
        try:
            sandbox = await Sandbox.probe(
                levels=settings.sandbox_levels,
                readonly=settings.sandbox_readonly,
                state_dir=settings.state_dir,
                layers=layers,
            )
        except SandboxUnavailable as error:
            self.sandbox_refused = error
            log.warning("no sandbox: commands will not run", reason=error.message, fix=error.fix)
            return None
        if sandbox.level is Level.UNSAFE_NONE:
            log.warning(UNSAFE, level=sandbox.level, fix="take unsafe-none out of STEPGATE_SANDBOX_LEVELS")
        elif sandbox.degraded:
            reasons = [str(weakness) for weakness in sandbox.degraded]
            log.warning("the sandbox is weaker than it could be", level=sandbox.level, reasons=reasons)
        return sandbox


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
