"""What routes need from the rest of the process, so that no route builds anything itself."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from stepgate.api.listeners import Listeners
from stepgate.domain.state import Actor
from stepgate.engine.engine import Engine
from stepgate.engine.queries import Queries
from stepgate.engine.views import SandboxHealth
from stepgate.llm.protocol import ModelRouter

LOCAL_ACTOR = Actor("local", "person", "api")
"""Who API calls are made by while there are no accounts."""


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

    `allowed_hosts` are names the API may be called by beside the loopback ones, in lower case, without a port.
    `listeners` should be rung when a run may have moved; without it a waiting request finds out a little later.
    """

    engine: Engine
    queries: Queries
    router: ModelRouter
    worker: EmbeddedWorker | None
    sandbox: SandboxHealth
    local_secret: str
    local_trust: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    check_interval_s: float = 5.0
    listeners: Listeners = field(default_factory=Listeners)


Opening = Callable[[], AbstractAsyncContextManager[Services]]
"""Opens the services when the app starts and closes them when it stops."""


def services_of(request: Request) -> Services:
    """The services of the app that answers."""
    services: Services = request.app.state.services
    return services
