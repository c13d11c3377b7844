"""Gives a process the shared server of a state folder: starts it, joins it, and lets it go."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import binaries as programs
from stepgate.storage.embedded import cluster, launch, layout
from stepgate.storage.embedded.binaries import Binaries
from stepgate.storage.embedded.cluster import SUPERUSER
from stepgate.storage.embedded.failure import failure, files_explained, tail
from stepgate.storage.embedded.layout import Layout

DATABASE = "stepgate"
PORT = 5432
GONE = (
    ConnectionError,
    FileNotFoundError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


class EmbeddedServer:
    """A claim on the running server; the last claim released, or its process gone, stops the server."""

    def __init__(self, request: "_Request", claim: "_Claim") -> None:
        self._layout = claim.layout
        self._request = request
        self._claim: int | None = claim.descriptor
        self._lock = threading.Lock()
        self.binaries = claim.binaries.folder
        self.version = claim.binaries.version

    @property
    def host(self) -> str:
        """The folder of the server's socket; it listens on no network address."""
        return str(self._layout.sockets)

    @property
    def log(self) -> Path:
        return self._layout.log

    def sqlalchemy_url(self, database: str = DATABASE) -> str:
        return _url(self._layout, database)

    def dsn_kwargs(self, database: str = DATABASE) -> dict[str, Any]:
        """Arguments for asyncpg.connect; complete, so that PG* variables of the environment change nothing."""
        return _connection(self._layout, database)

    def ensure(self, timeout_s: float = 60) -> None:
        """Starts the server again where it is gone although this claim stands, as after a killed keeper."""
        with self._lock:
            if self._claim is None:
                raise DatabaseUnavailable("the embedded server was released", fix="acquire it again")
            again = _join(self._request, timeout_s)
            os.close(self._claim)
            self._claim = again.descriptor

    def release(self) -> None:
        """Gives the claim back; calling it again does nothing."""
        with self._lock:
            claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class _Request:
    state_dir: Path
    binaries: Path | None
    durable: bool


@dataclass(frozen=True, slots=True)
class _Claim:
    layout: Layout
    binaries: Binaries
    descriptor: int


def acquire(
    state_dir: Path, *, binaries: Path | None = None, durable: bool = True, timeout_s: float = 60
) -> EmbeddedServer:
    """Joins the server of `state_dir`, starting it where it is not running; blocks meanwhile.

    `binaries` names the folder of PostgreSQL's programs instead of looking for them. `durable=False` turns off
    every protection against a crash and is for tests. The database `stepgate` exists afterwards.
    Raises DatabaseUnavailable, with what to do, where no server can be had within `timeout_s` seconds.
    """
    request = _Request(state_dir, binaries, durable)
    return EmbeddedServer(request, _join(request, timeout_s))


def _join(request: _Request, timeout_s: float) -> _Claim:
    deadline = time.monotonic() + timeout_s
    place = layout.prepare(request.state_dir)
    with files_explained(place), _start_lock(place, deadline):
        found = programs.find(request.binaries, place.existing_majors())
        if os.geteuid() == 0:
            found = programs.reachable(found, place.state_dir)
        cluster.initialise(place, found, request.durable, deadline)
        for name in ("clients", "keeper", "server"):
            os.close(layout.open_lock(place.lock_file(name)))
        if not layout.is_held(place.lock_file("keeper")):
            launch.end_orphan(place, deadline)
            launch.start_keeper(place, found, request.durable)
        launch.await_ready(place, found, deadline)
        claim = layout.open_lock(place.lock_file("clients"))
        try:
            layout.share(claim)
            _prepare_database(place, found, request.durable, deadline)
        except BaseException:
            os.close(claim)
            raise
        return _Claim(place, found, claim)


@contextlib.contextmanager
def _start_lock(place: Layout, deadline: float) -> Iterator[None]:
    descriptor = layout.open_lock(place.lock_file("start"))
    try:
        if not layout.lock_before(descriptor, deadline):
            raise DatabaseUnavailable(
                "another process has been starting or stopping the embedded server all the time",
                fix=f"see {place.log}, end that process, or set STEPGATE_STATE_DIR to another folder",
            )
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Seen:
    """The programs a server would run with, and the URL of the one that runs now (None: none does)."""

    binaries: programs.Binaries
    url: str | None


def look(state_dir: Path, *, binaries: Path | None = None) -> Seen:
    """What `acquire` would find; starts and changes nothing. Raises DatabaseUnavailable without programs that fit."""
    place = Layout(state_dir, layout.socket_folder(state_dir), layout.Account(os.geteuid(), os.getegid()))
    found = programs.find(binaries, place.existing_majors())
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(place.socket))
        except OSError:
            return Seen(found, None)
    return Seen(found, _url(place, DATABASE))


def _url(place: Layout, database: str) -> str:
    host = quote(str(place.sockets), safe="/")
    return f"postgresql+asyncpg://{SUPERUSER}@/{quote(database)}?host={host}&port={PORT}"


def _connection(place: Layout, database: str) -> dict[str, Any]:
    return {
        "host": str(place.sockets),
        "port": PORT,
        "user": SUPERUSER,
        "database": database,
        "password": "",
        "ssl": False,
    }


def _prepare_database(place: Layout, found: Binaries, durable: bool, deadline: float) -> None:
    """In a thread of its own, since the caller's may already run an event loop."""
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            _create_database_at_last(place, found, durable, deadline)
        except (OSError, asyncpg.PostgresError, DatabaseUnavailable) as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for error in outcome:
        if isinstance(error, DatabaseUnavailable):
            raise error
        raise failure(f"the embedded server does not answer: {error}", tail(place.log), place) from error


def _create_database_at_last(place: Layout, found: Binaries, durable: bool, deadline: float) -> None:
    """A killed server answers for a moment longer: one that is gone after all is waited for once more.

    `await_ready` ends it where the keeper starts no other.
    """
    while True:
        try:
            return asyncio.run(_create_database(place, durable, deadline))
        except GONE:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)
        launch.await_ready(place, found, deadline)


async def _create_database(place: Layout, durable: bool, deadline: float) -> None:
    patience = max(1.0, deadline - time.monotonic())
    try:
        connection = await asyncpg.connect(**_connection(place, DATABASE), timeout=patience)
    except asyncpg.InvalidCatalogNameError:
        connection = await asyncpg.connect(**_connection(place, SUPERUSER), timeout=patience)
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    try:
        if durable and await connection.fetchval("SHOW fsync") == "off":
            raise DatabaseUnavailable(
                f"the server of {place.state_dir} was started by a test, without protection against crashes",
                fix="end that test, or set STEPGATE_STATE_DIR to another folder",
            )
    finally:
        await connection.close()
