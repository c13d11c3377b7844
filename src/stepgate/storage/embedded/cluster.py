"""Makes the data folder, once."""

import os
import shutil
import subprocess
import time
from typing import Any

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import layout
from stepgate.storage.embedded.binaries import Binaries
from stepgate.storage.embedded.failure import failure
from stepgate.storage.embedded.layout import Layout

SUPERUSER = "postgres"


def minimal_environment() -> dict[str, str]:
    """Nothing that a server could leak: it outlives its starter and its environment can be read in /proc."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def initialise(place: Layout, found: Binaries, durable: bool, deadline: float) -> None:
    """Builds the data folder under another name, so that a half-made one is never taken for it."""
    data = place.data(found.major)
    if (data / "PG_VERSION").exists():
        return
    partial = data.with_name(data.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    layout.own_folder(partial, place.account)
    # The built-in locale gives the same order of text on every host.
    locale = ["--locale=C"]
    if found.major >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command = [str(found.folder / "initdb"), "-D", str(partial), "-U", SUPERUSER, "-E", "UTF8", *locale, "--auth=trust"]
    command += ["--no-instructions"] if durable else ["--no-instructions", "--no-sync"]
    account = place.account
    identity: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
            env=minimal_environment(),
            timeout=max(1.0, deadline - time.monotonic()),
            **identity,
        )
    except subprocess.TimeoutExpired as error:
        raise DatabaseUnavailable(f"making the data folder {data} took too long", fix="try again") from error
    if result.returncode:
        raise failure(f"making the data folder {data} failed", result.stderr, place)
    partial.rename(data)
