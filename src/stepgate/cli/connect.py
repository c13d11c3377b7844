"""Where the command line finds its API: at `STEPGATE_URL`, or in an app of this very process."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from stepgate.api.channel import CHANNEL_HEADER, CLI
from stepgate.cli.client import Api
from stepgate.domain.ids import RunId
from stepgate.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from stepgate.compose import Stack

REQUEST_TIMEOUT_S = 60.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Process:
    """The parts that answer in this process, and the app around them."""

    stack: "Stack"
    app: "FastAPI"

    def renew(self) -> None:
        """Shows the app what the stack has now."""
        from stepgate.compose import services_of_stack  # noqa: PLC0415 - only a local command pays for it

        self.app.state.services = services_of_stack(self.stack)


class Connection:
    """The API, and what stands behind it where that is this process and no server."""

    def __init__(self, api: Api, process: "Process | None" = None) -> None:
        self.api = api
        self._process = process

    @property
    def local(self) -> bool:
        return self._process is not None

    async def start_worker(self, run_id: str | None = None) -> None:
        """In this process a worker begins to drive that run, or any; a server has its own. Twice changes nothing."""
        if self._process is not None and self._process.stack.worker is None:
            await self._process.stack.start_worker(only=None if run_id is None else RunId(run_id))
            self._process.renew()

    async def probe_sandbox(self) -> None:
        """Lets `/health` tell what commands would run in here; a server has looked when it started."""
        if self._process is not None:
            await self._process.stack.probe_sandbox()
            self._process.renew()


@asynccontextmanager
async def connect(settings: Settings, *, migrate: bool = False) -> AsyncIterator[Connection]:
    """Raises StepgateError where the database of this process cannot be used; a server is only tried when asked.

    `migrate` brings a database of the user's own up to date.
    """
    if settings.url is not None:
        async with _server(settings, settings.url) as connection:
            yield connection
        return
    async with _in_process(settings, migrate) as connection:
        yield connection


@asynccontextmanager
async def _server(settings: Settings, url: str) -> AsyncIterator[Connection]:
    on_this_machine = (urlsplit(url).hostname or "") in LOOPBACK
    # A proxy of the environment is for other hosts, and the local secret for this one only.
    secret = _key(settings) or (_secret_here(settings) if on_this_machine else None)
    async with httpx2.AsyncClient(
        base_url=url, headers=_headers(secret), timeout=REQUEST_TIMEOUT_S, trust_env=not on_this_machine
    ) as http:
        yield Connection(Api(http, url))


@asynccontextmanager
async def _in_process(settings: Settings, migrate: bool) -> AsyncIterator[Connection]:
    from stepgate.compose import app_of_stack, open_stack, secret_of  # noqa: PLC0415 - heavy; a remote command needs none

    async with open_stack(settings, migrate=migrate) as stack:
        app = app_of_stack(stack)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://localhost",
            headers=_headers(secret_of(settings)),
            timeout=REQUEST_TIMEOUT_S,
        ) as http:
            yield Connection(Api(http, "this process"), Process(stack, app))


def _headers(secret: str | None) -> dict[str, str]:
    headers = {CHANNEL_HEADER: CLI, "Accept": "application/json"}
    return headers if secret is None else headers | {"Authorization": f"Bearer {secret}"}


def _key(settings: Settings) -> str | None:
    return None if settings.key is None else settings.key.get_secret_value()


def _secret_here(settings: Settings) -> str | None:
    """The secret of a server of the same user and state folder; without it decisions are refused, and say why."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (settings.state_dir / "local-secret").read_text("utf-8").strip() or None
    return None
