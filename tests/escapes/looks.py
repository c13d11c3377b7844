"""What the host sees of an attack while it lasts, "" for nothing."""

import errno
import fcntl
import os
import stat
from pathlib import Path

from tests.escapes.host import Host


def set_id_files(host: Host) -> str:
    """Files with a set-id bit that belong to the attack."""
    for top in host.written:
        for folder, _folders, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                mode = path.lstat().st_mode
                if host.token in name and mode & (stat.S_ISUID | stat.S_ISGID):
                    reached = _reached_by_others(path)
                    if reached:
                        return f"{name} has mode {mode:o} where others come to it"
    return ""


def _reached_by_others(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)


def lock_on_the_workspace(host: Host) -> str:
    """Whether the workspace can still be locked by the worker."""
    return "" if _locks(host.workspace) else "the workspace cannot be locked"


def lock_on_a_file(host: Host) -> str:
    """Whether other programs of the host can still lock files of the workspace."""
    paths = (host.workspace / "plain", host.workspace / ".git/config")
    return ", ".join(f"{path.name} cannot be locked" for path in paths if not _locks(path))


def _locks(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def held_up_writers(host: Host) -> str:
    """Whether a program of the host that wants to write is made to wait."""
    for path in (host.workspace / "plain", host.workspace / ".git/config"):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            return f"writing {path.name} has to wait"
    return ""
