"""Where the embedded server keeps its files, who owns them, and the locks that say who is alive.

The kernel drops an flock when its last holder is gone, killed or not, so no list of process ids is needed:

- `start`    exclusive and short: held while somebody decides about, starts or stops the server
- `clients`  shared by every process that uses the server, for as long as it does
- `keeper`   exclusive, held by the keeper for its life
- `server`   exclusive, inherited by postgres and all its backends: free means that no server of ours is alive

Lock order: start, then keeper or server, then clients.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from stepgate.domain.errors import DatabaseUnavailable

SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET_PATH = 107
CHOOSE_STATE_DIR = "set STEPGATE_STATE_DIR to a folder that you can write to, or DATABASE_URL to a server"


@dataclass(frozen=True, slots=True)
class Account:
    """The user the server runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one state folder; one server at a time runs over it."""

    state_dir: Path
    sockets: Path
    account: Account

    @property
    def log(self) -> Path:
        return self.state_dir / "postgres.log"

    @property
    def keeper_log(self) -> Path:
        return self.state_dir / "keeper.log"

    @property
    def socket(self) -> Path:
        return self.sockets / SOCKET_NAME

    def data(self, major: int) -> Path:
        return self.state_dir / f"postgres-{major}"

    def lock_file(self, name: str) -> Path:
        return self.state_dir / f"{name}.lock"

    def existing_majors(self) -> frozenset[int]:
        versions = self.state_dir.glob("postgres-*/PG_VERSION")
        names = (path.parent.name.removeprefix("postgres-") for path in versions)
        return frozenset(int(name) for name in names if name.isdecimal())


def prepare(state_dir: Path) -> Layout:
    """Makes the state folder where it is missing.

    Raises DatabaseUnavailable where it cannot be used, naming what to set instead.
    """
    state_dir = state_dir.expanduser().resolve()
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        account = _account(state_dir)
        if os.geteuid() == 0:
            _open_for(account, state_dir)
        sockets = socket_folder(state_dir)
        own_folder(sockets, account)
    except OSError as error:
        raise DatabaseUnavailable(
            f"the state folder {state_dir} cannot be used: {error.strerror}", fix=CHOOSE_STATE_DIR
        ) from error
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise DatabaseUnavailable(f"the state folder {state_dir} is not writable", fix=CHOOSE_STATE_DIR)
    return Layout(state_dir, sockets, account)


def _account(state_dir: Path) -> Account:
    """PostgreSQL refuses to run as root: then it runs as the state folder's owner, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for folder in (*sorted(state_dir.glob("postgres-*/")), state_dir):
        owner = folder.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailable(
        "PostgreSQL does not run as root, and there is no user named postgres or nobody",
        fix="run as an ordinary user, or set DATABASE_URL",
    )


def _open_for(account: Account, state_dir: Path) -> None:
    """Lets the server's user pass through to its own folder; what lies beside it stays closed."""
    if state_dir.stat().st_uid == account.uid:
        return
    state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) | stat.S_IXGRP | stat.S_IXOTH)
    for folder in state_dir.parents:
        if not folder.stat().st_mode & stat.S_IXOTH and folder.stat().st_uid != account.uid:
            raise DatabaseUnavailable(
                f"root's server runs as user {account.uid}, who cannot enter {folder}",
                fix="set STEPGATE_STATE_DIR to a folder below /var/lib, or run as an ordinary user",
            )


def socket_folder(state_dir: Path) -> Path:
    """A function of the state folder alone, so that every starter finds the same server."""
    beside = state_dir / "run"
    if len(os.fsencode(beside / SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
        return beside
    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    return Path("/tmp") / f"stepgate-{name}"  # noqa: S108 - own_folder refuses a stranger's folder


def own_folder(folder: Path, account: Account) -> None:
    """Makes a folder that only `account` can enter; refuses one that somebody else made first."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), account.uid}:
        raise DatabaseUnavailable(
            f"{folder} belongs to another user", fix="remove it, or set STEPGATE_STATE_DIR to another folder"
        )
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)


def open_lock(path: Path) -> int:
    """A descriptor to lock; the caller closes it. A file made by root belongs to the folder's owner."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def lock_before(descriptor: int, deadline: float) -> bool:
    """Waits for an exclusive lock until `deadline` (time.monotonic); flock itself knows no time limit."""
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_held(path: Path) -> bool:
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
