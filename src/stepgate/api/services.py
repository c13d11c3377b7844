"""What routes need from the rest of the process, so that no route builds anything itself."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from stepgate.api.attempts import Attempts
from stepgate.api.listeners import Listeners
from stepgate.api.sign_on import SignOn
from stepgate.domain.identity import Principal
from stepgate.engine.always import Always
from stepgate.engine.audits import Audits
from stepgate.engine.budgets import Budgets
from stepgate.engine.costs import CostQueries
from stepgate.engine.delegations import Delegations
from stepgate.engine.engine import Engine
from stepgate.engine.keys import Keys
from stepgate.engine.policies import Policies
from stepgate.engine.queries import Queries
from stepgate.engine.sessions import Sessions
from stepgate.engine.views import SandboxHealth
from stepgate.engine.webhooks.hooks import Hooks
from stepgate.llm.protocol import ModelRouter
from stepgate.storage.tenants import Tenants


class Issuer(Protocol):
    """Who signs tokens that name callers."""

    async def principal(self, token: str) -> Principal:
        """Raises Unauthenticated."""
        ...


class EmbeddedWorker(Protocol):
    """What the API asks of the worker in its process."""

    @property
    def running(self) -> bool: ...

    @property
    def driving(self) -> int:
        """How many runs are in its hands."""
        ...

    async def claim(self) -> int:
        """Takes up due runs; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """One process's parts as the API sees them; `worker` is None where this process executes nothing.

    `local_secret` is what proves a caller of this machine, or, where `key_configured`, of any.
    `allowed_hosts` are names the API may be called by beside the loopback ones, in lower case, without a port.
    `policies` are loaded when they are first needed; a server has done so when it started.
    `wake_sender` is called when there may be a webhook to send.
    `sign_on` leads people of the console to the issuer, where it knows the console.
    `https` is whether browsers reach this service by TLS, whoever ends it.
    `listeners` should be rung when a run may have moved; without it a waiting request finds out a little later.
    """

    engine: Engine
    queries: Queries
    tenants: Tenants
    costs: CostQueries
    budgets: Budgets
    audits: Audits
    keys: Keys
    sessions: Sessions
    delegations: Delegations
    hooks: Hooks
    router: ModelRouter
    worker: EmbeddedWorker | None
    sandbox: SandboxHealth
    policies: Policies
    always: Always
    local_secret: str
    local_trust: bool = False
    key_configured: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    check_interval_s: float = 5.0
    issuer: Issuer | None = None
    https: bool = False
    sign_on: SignOn | None = None
    wake_sender: Callable[[], None] = lambda: None
    attempts: Attempts = field(default_factory=Attempts)
    listeners: Listeners = field(default_factory=Listeners)


Opening = Callable[[], AbstractAsyncContextManager[Services]]
"""Opens the services when the app starts and closes them when it stops."""


def services_of(request: Request) -> Services:
    """The services of the app that answers."""
    services: Services = request.app.state.services
    return services
