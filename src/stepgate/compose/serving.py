"""What the HTTP API stands on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from stepgate.api.app import create_app
from stepgate.api.services import Services
from stepgate.compose.parts import allowed_hosts, secret_of, sign_on
from stepgate.compose.stack import Stack, open_stack
from stepgate.engine.sandbox_health import sandbox_health
from stepgate.logs import configure
from stepgate.settings import load

log = structlog.get_logger(__name__)


def services_of_stack(stack: Stack) -> Services:
    """The stack as the API sees it now."""
    settings = stack.settings
    return Services(
        engine=stack.engine,
        queries=stack.queries,
        tenants=stack.tenants,
        costs=stack.costs,
        budgets=stack.budgets,
        audits=stack.audits,
        keys=stack.keys,
        delegations=stack.delegations,
        hooks=stack.hooks,
        sessions=stack.sessions,
        sign_on=sign_on(settings, stack.issuer),
        https=(settings.url or "").startswith("https://"),
        wake_sender=stack.sender.wake,
        router=stack.router,
        worker=stack.worker,
        sandbox=sandbox_health(stack.sandbox, stack.sandbox_refused),
        policies=stack.policies,
        always=stack.always,
        local_secret=secret_of(settings),
        local_trust=settings.local_trust,
        key_configured=settings.key is not None,
        issuer=stack.issuer,
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


@asynccontextmanager
async def serving() -> AsyncIterator[Services]:
    """What `stepgate.main:app` stands on: the settings of now, the stack, and a worker unless it is turned off."""
    settings = load()
    configure(settings.log_level, settings.log_format)
    for notice in settings.notices:
        log.warning("unknown setting", notice=notice)
    async with open_stack(settings) as stack:
        await stack.watch_policy()
        await stack.sender.start()
        if settings.embedded_worker:
            await stack.start_worker()
        yield services_of_stack(stack)
