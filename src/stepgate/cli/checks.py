"""What `doctor` looks at, one question each; nothing is started, made or changed that a look does not need."""

import asyncio
import os
import platform
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from stepgate import __version__
from stepgate.compose import model_router
from stepgate.domain.errors import SandboxUnavailable, StepgateError
from stepgate.engine.sandbox_health import sandbox_health
from stepgate.engine.views import SandboxHealth
from stepgate.settings import Settings
from stepgate.storage import embedded, schema
from stepgate.workspace.layers.layer import Capture
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox import landlock
from stepgate.workspace.sandbox.advice import advice
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.syscalls import LINUX, has_openat2

_OLDEST_PYTHON: Final = (3, 11)
_LEAST_FREE: Final = 1 << 30
_MIB: Final = 1 << 20
_PATIENCE_S: Final = 15.0
# A namespace that may be made and not be used is what AppArmor leaves of it.
_NAMESPACE: Final = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWUTS = 0x10000000, 0x04000000
sys.exit(libc.unshare(CLONE_NEWUSER | CLONE_NEWUTS) != 0 or libc.sethostname(b"x", 1) != 0)
"""


class Status(StrEnum):
    """How one thing stands."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line; `fix` says what mends it."""

    name: str
    status: Status
    detail: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of trying the sandbox."""

    health: SandboxHealth
    capture: Capture | None
    passed_over: tuple[str, ...]


def python() -> Finding:
    """The interpreter."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("python", Status.FAILED, detail, "use Python 3.11 or newer")
    return Finding("python", Status.OK, detail)


def package(settings: Settings) -> Finding:
    """The version, and names that look like settings."""
    if settings.notices:
        return Finding("stepgate", Status.DEGRADED, f"{__version__}; {'; '.join(settings.notices)}", "mend the names")
    return Finding("stepgate", Status.OK, __version__)


async def database(settings: Settings) -> Finding:
    """Whether there is one that this version can work with; an embedded one that does not run is not started."""
    try:
        if settings.database_url is not None:
            url, whose, fix = settings.database_url.get_secret_value(), "yours", "run `stepgate migrate`"
        else:
            seen = await asyncio.to_thread(embedded.look, settings.state_dir, binaries=settings.postgres_bin)
            whose = f"embedded, programs in {seen.binaries.folder}"
            if seen.url is None:
                ready = f"PostgreSQL {seen.binaries.version}, {whose}; not running now, and started when it is needed"
                return Finding("database", Status.OK, ready)
            url, fix = seen.url, "any command that works on runs brings it up to date"
        async with asyncio.timeout(_PATIENCE_S):
            version, at = await schema.look(url)
    except TimeoutError:
        return Finding("database", Status.FAILED, f"no answer within {_PATIENCE_S:g} s", "look at the server")
    except StepgateError as error:
        return Finding("database", Status.FAILED, error.message, error.fix)
    detail = f"PostgreSQL {version}, {whose}, schema {at.current or 'none'}"
    if at.fits:
        return Finding("database", Status.OK, detail)
    return Finding("database", Status.FAILED, f"{detail}, needed is {at.head}", fix)


def state_folder(settings: Settings) -> Finding:
    """Where the database, blobs and layers lie."""
    folder = settings.state_dir
    if not folder.exists():
        above = next(one for one in folder.parents if one.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return Finding("state folder", Status.OK, f"{folder} is made when it is needed, in {above}")
        return Finding("state folder", Status.FAILED, f"{folder} cannot be made in {above}", _ANOTHER_FOLDER)
    found, kind, free = folder.stat(), _file_system(folder), shutil.disk_usage(folder).free
    mode = stat.filemode(found.st_mode)
    detail = f"{folder}, {mode}, owner {found.st_uid}, {kind}, {free // _MIB} MiB free"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "state folder", Status.FAILED, f"{detail}; not writable for user {os.geteuid()}", _ANOTHER_FOLDER
        )
    if found.st_uid != os.geteuid():
        return Finding("state folder", Status.DEGRADED, f"{detail}; it is another user's", f"chown {folder}")
    if found.st_mode & 0o022:
        return Finding("state folder", Status.DEGRADED, f"{detail}; others can write to it", f"chmod go-w {folder}")
    if kind in ("overlay", "overlayfs"):
        fix = "put it on a volume or a tmpfs: layers on overlayfs are private copies"
        return Finding("state folder", Status.DEGRADED, detail, fix)
    if free < _LEAST_FREE:
        return Finding("state folder", Status.DEGRADED, detail, "free some space: layers and blobs need it")
    return Finding("state folder", Status.OK, detail)


_ANOTHER_FOLDER: Final = "set STEPGATE_STATE_DIR to a folder of a local disk that you can write to"


def _file_system(folder: Path) -> str:
    """The type of the mount that the folder lies in, "unknown" where the host does not tell."""
    place, kind = -1, "unknown"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return kind
    for line in lines:
        before, _dash, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= place:
            place, kind = len(point), after.split()[0]
    return kind


async def examine(settings: Settings) -> Examined:
    """Tries the sandbox as a worker does; in a folder of its own where there is no state folder yet."""
    if settings.state_dir.is_dir() and os.access(settings.state_dir, os.W_OK | os.X_OK):
        return await _examine(settings, settings.state_dir)
    with TemporaryDirectory(prefix="stepgate-doctor-", dir="/var/tmp") as name:
        os.chmod(name, 0o711)  # noqa: PTH101, S103 - the sandbox's user must come through
        return await _examine(settings, Path(name))


async def _examine(settings: Settings, state_dir: Path) -> Examined:
    layers = Layers(state_dir)
    try:
        sandbox = await Sandbox.probe(
            levels=settings.sandbox_levels, readonly=settings.sandbox_readonly, state_dir=state_dir, layers=layers
        )
        probed = layers.probe()
    except SandboxUnavailable as error:
        return Examined(sandbox_health(None, error), None, ())
    return Examined(sandbox_health(sandbox, None), probed.capture, probed.reasons)


def sandbox(found: Examined) -> Finding:
    """The level; the canaries are told apart."""
    health = found.health
    if health.level is None:
        (refused,) = health.weaknesses
        return Finding("sandbox", Status.FAILED, refused.reason, refused.fix)
    held = sum(canary.passed for canary in health.canaries)
    detail = f"{health.level}, {held} of {len(health.canaries)} canaries held"
    return Finding("sandbox", Status.DEGRADED if health.degraded else Status.OK, detail)


def capture(found: Examined) -> Finding:
    """How a command's changes are kept apart."""
    if found.capture is None:
        return Finding("capture", Status.FAILED, "not tried, as there is no sandbox", "make the sandbox work first")
    if found.capture is Capture.OVERLAY:
        return Finding("capture", Status.OK, "overlay: a layer costs nothing, whatever the size of the workspace")
    why = "; ".join(found.passed_over) or f"the level {found.health.level} has no mounts"
    fix = "put the state folder on ext4, xfs, btrfs or tmpfs, and use a level with namespaces"
    return Finding("capture", Status.DEGRADED, f"copy: every command gets a private copy ({why})", fix)


def limits(found: Examined) -> Finding:
    """Who holds commands to their memory."""
    match found.health.limited_by:
        case "cgroup":
            return Finding("limits", Status.OK, "cgroup v2: the kernel holds commands to their memory")
        case "watchdog":
            fix = "let a systemd unit have `Delegate=memory pids`, or make the worker's cgroup v2 writable"
            return Finding("limits", Status.DEGRADED, "watchdog: memory is looked at many times a second", fix)
        case None:
            return Finding("limits", Status.FAILED, "not tried, as there is no sandbox", "make the sandbox work first")


async def kernel() -> AsyncIterator[Finding]:
    """What safe file access and the sandbox stand on."""
    if not LINUX:
        yield Finding("kernel", Status.DEGRADED, f"{platform.system()}: commands cannot run here", advice())
        return
    if has_openat2():
        yield Finding("openat2", Status.OK, "paths are opened by the kernel beneath their folder")
    else:
        yield Finding("openat2", Status.DEGRADED, "paths are walked step by step", "use Linux 5.6 or newer")
    abi = landlock.abi()
    if abi:
        yield Finding("landlock", Status.OK, f"ABI {abi}")
    else:
        fix = "boot with `landlock` in lsm=, on Linux 5.13 or newer; only the level landlock-seccomp needs it"
        yield Finding("landlock", Status.DEGRADED, "not offered by this kernel", fix)
    if await _makes_namespaces():
        yield Finding("user namespaces", Status.OK, "can be made and used")
    else:
        yield Finding("user namespaces", Status.DEGRADED, "cannot be made, or not be used", advice())


async def _makes_namespaces() -> bool:
    child = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", _NAMESPACE)
    return await child.wait() == 0


async def router(settings: Settings) -> Finding:
    """Who answers for models."""
    model = model_router(settings)
    try:
        health = await model.check()
    finally:
        await model.aclose()
    detail = f"{model.name}: {health.detail}"
    if health.status == "failing":
        return Finding("models", Status.DEGRADED, detail, "see STEPGATE_MODEL_URL and STEPGATE_MODEL_KEY")
    return Finding("models", Status.OK, detail)


def workspace_root(settings: Settings) -> Finding:
    """Where workspaces may lie."""
    root = settings.workspace_root
    if not root.is_dir():
        return Finding("workspace root", Status.FAILED, f"{root} is no folder", "set STEPGATE_WORKSPACE_ROOT")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return Finding("workspace root", Status.FAILED, f"{root} cannot be read and written", "give its user the right")
    if settings.state_dir.resolve().is_relative_to(root.resolve()):
        fix = "keep the state folder elsewhere: a workspace that holds it is refused"
        return Finding("workspace root", Status.DEGRADED, f"{root} holds the state folder", fix)
    return Finding("workspace root", Status.OK, str(root))
