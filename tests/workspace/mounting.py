"""Mounts for real, in a mount namespace of this process's own, and what the workspace check says to them.

    python -m tests.workspace.mounting FOLDER

Prints a JSON object: for each situation None, or the code of the refusal and its paths.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

from stepgate.domain.errors import PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.mounts import check_in_place

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_BIND, _REC, _PRIVATE = 1 << 12, 1 << 14, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def enter_namespace() -> None:
    """As an ordinary user in a user namespace too, where nothing but mounts changes."""
    uid, gid = os.geteuid(), os.getegid()
    checked(_libc.unshare(_NEWNS | (0 if uid == 0 else _NEWUSER)))
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    checked(_libc.mount(b"none", b"/", None, _REC | _PRIVATE, None))


def mount(where: Path, source: Path | None = None) -> None:
    """A tmpfs, or what `source` is."""
    if source is None:
        checked(_libc.mount(b"tmpfs", os.fsencode(where), b"tmpfs", 0, None))
    else:
        checked(_libc.mount(os.fsencode(source), os.fsencode(where), None, _BIND, None))


def unmount(where: Path) -> None:
    checked(_libc.umount2(os.fsencode(where), 0))


def said(workspace: Path) -> tuple[str, list[str]] | None:
    with Root.open(workspace) as root:
        try:
            check_in_place(root)
        except PathRefused as error:
            return error.reason_code, list(error.details.get("paths", ()))
    return None


def main(folder: Path) -> None:
    workspace, beside = folder / "space", folder / "space beside"
    for made in (workspace / "a b", workspace / "deep/er", beside):
        made.mkdir(parents=True)
    (workspace / "file").write_text("")
    enter_namespace()
    told = {"plain": said(workspace)}
    mount(beside)
    told["beside"] = said(workspace)
    mount(workspace / "a b")
    told["inside"] = said(workspace)
    unmount(workspace / "a b")
    told["gone"] = said(workspace)
    mount(workspace / "file", workspace / "file")
    told["a file"] = said(workspace)
    mount(workspace / "deep")
    (workspace / "deep" / "er").mkdir()
    mount(workspace / "deep" / "er")
    told["one in the other"] = said(workspace)
    mount(workspace)
    told["itself"] = said(workspace)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
