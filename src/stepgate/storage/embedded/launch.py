"""Starts the keeper with its server, and waits for it."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import keeper, layout
from stepgate.storage.embedded.binaries import Binaries
from stepgate.storage.embedded.cluster import minimal_environment
from stepgate.storage.embedded.failure import failure, tail
from stepgate.storage.embedded.layout import Layout

DIE_WITH_KEEPER = True
SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def end_orphan(place: Layout, deadline: float) -> None:
    """A server without a keeper: it ends by itself where the kernel tells it that the keeper died."""
    server = layout.open_lock(place.lock_file("server"))
    try:
        if layout.lock_before(server, min(deadline, time.monotonic() + 3)):
            return
        pid = _listening_pid(place.socket)
        if pid is not None:
            os.kill(pid, SIGINT)
        if not layout.lock_before(server, deadline):
            raise DatabaseUnavailable(
                "an earlier embedded server does not end", fix=f"see {place.log} and end its postgres process"
            )
    finally:
        os.close(server)


def _listening_pid(path: Path) -> int | None:
    """Who listens on the socket, from the kernel; a pid file could name a stranger by now."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return None
        if os.uname().sysname == "Linux":
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[0])
        local_peerpid, level_local = 2, 0
        return connection.getsockopt(level_local, local_peerpid)


def start_keeper(place: Layout, found: Binaries, durable: bool) -> None:
    data = place.data(found.major)
    settings = SERVER_SETTINGS | {"unix_socket_directories": str(place.sockets)} | ({} if durable else NOT_DURABLE)
    order = {
        "command": [
            str(found.folder / "postgres"),
            *("-D", str(data)),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        "locks": {name: str(place.lock_file(name)) for name in ("start", "clients", "keeper", "server")},
        "leftovers": [str(place.socket), f"{place.socket}.lock"],
        "pid_file": str(data / "postmaster.pid"),
        "log": str(place.log),
        "account": [place.account.uid, place.account.gid] if os.geteuid() == 0 else None,
        "environment": minimal_environment(),
        "die_with_keeper": DIE_WITH_KEEPER,
    }
    heard, announce = os.pipe()
    try:
        with place.keeper_log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, json.dumps(order), str(announce)],
                pass_fds=[announce],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=minimal_environment(),
            )
        process.wait()
        os.close(announce)
        announce = -1
        if os.read(heard, 1) != b"k":
            raise failure("the embedded server could not be started", tail(place.keeper_log), place)
    finally:
        os.close(heard)
        if announce >= 0:
            os.close(announce)


def await_ready(place: Layout, found: Binaries, deadline: float) -> None:
    while not (_says_ready(place.data(found.major)) and _listening_pid(place.socket)):
        if not layout.is_held(place.lock_file("keeper")):
            raise failure("the embedded server stopped while it started", tail(place.log), place)
        if time.monotonic() > deadline:
            raise failure("the embedded server did not become ready in time", tail(place.log), place)
        time.sleep(0.01)


def _says_ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False
