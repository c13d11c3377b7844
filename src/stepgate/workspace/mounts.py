"""Which file systems a workspace lies on and holds: in place, it must be one local file system and nothing else.

On a network file system another host writes under no lock of this one, clocks differ, and neither renames nor syncs are
what they are here. Of a mount inside, a change set would show nothing.
"""

import ctypes
import os
import re
import select
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from stepgate.domain.errors import PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.syscalls import LINUX

MOUNTS_INSIDE: Final = "workspace_mounts"
NETWORK: Final = "workspace_network"
_NAMED: Final = 3

# Numbers of `struct statfs.f_type`: linux/magic.h and the sources of those that are not in it.
_MAGIC: Final[Mapping[int, str]] = {
    0x00006969: "nfs",
    0x0000517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x0000564C: "ncp",
    0x00C36400: "ceph",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x20030528: "orangefs",
    0xAAD7AAEA: "panfs",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
    0x7C7C6673: "prl_fs",
}
FUSE_MAGIC: Final = 0x65735546
_TYPES: Final = frozenset(
    {*_MAGIC.values(), "nfs4", "smbfs", "smb3", "ncpfs", "drvfs", "virtiofs", "pvfs2", "glusterfs", "davfs"}
)
# What is behind FUSE can be anything; these are known to stand on local disks.
_LOCAL_FUSE: Final = frozenset(
    {"fuseblk"} | {f"fuse.{name}" for name in ("bindfs", "encfs", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs-3g")}
)


class Mount(NamedTuple):
    """A row of `/proc/self/mountinfo`."""

    id: int
    parent: int
    point: str
    type: str


def check_in_place(root: Root) -> None:
    """Raises PathRefused for a workspace that has mounts inside or lies on a network file system.

    Its code is `workspace_mounts`, with the mounts in `details["paths"]`, or `workspace_network`.
    """
    if not LINUX:
        return
    own_id, mounts = _mount_id(root.fd), _TABLE.mounts()
    own = next((mount for mount in mounts if mount.id == own_id), None)
    kind = network_type(_magic(root.fd), None if own is None else own.type)
    if kind is not None:
        raise PathRefused(
            f"the workspace {str(root.path)!r} lies on a file system of the type {kind}, where neither locks nor "
            "syncs hold for everybody who writes there",
            code=NETWORK,
            field="workspace_path",
            fix="use the mode isolated, or a folder on a local disk",
        )
    inside = [mount.point for mount in mounts if mount.parent == own_id and _is_beneath(mount.point, str(root.path))]
    if inside:
        inside.sort()
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        raise PathRefused(
            f"something is mounted inside the workspace: {', '.join(inside[:_NAMED])}{more}",
            code=MOUNTS_INSIDE,
            field="workspace_path",
            fix="unmount it, or choose a folder without mounts in it",
            details={"paths": inside},
        )


def network_type(magic: int, type_: str | None) -> str | None:
    """The name of a file system that is shared with other hosts or may be, None for a local one.

    `magic` is the number `statfs` gives, `type_` the name in mountinfo, where it is known.
    """
    if type_ in _TYPES:
        return type_
    if type_ is not None and (type_ == "fuse" or type_.startswith("fuse")):
        return None if type_ in _LOCAL_FUSE else type_
    if magic == FUSE_MAGIC:
        return type_ or "fuse"
    return _MAGIC.get(magic)


def parse(text: str) -> list[Mount]:
    """The rows of a mountinfo file, see proc_pid_mountinfo(5)."""
    mounts = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        id_, parent, _, _, point, *_ = fields.split(" ")
        mounts.append(Mount(int(id_), int(parent), _unescaped(point), rest.split(" ")[0]))
    return mounts


def _unescaped(text: str) -> str:
    """Blanks and the like are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _is_beneath(point: str, folder: str) -> bool:
    return point.startswith(folder.rstrip("/") + "/")


def _mount_id(descriptor: int) -> int:
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))


def _magic(descriptor: int) -> int:
    room = ctypes.create_string_buffer(256)
    if _libc.fstatfs(descriptor, room) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int.from_bytes(room.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


class _Table:
    """This process's mounts, read again only when the kernel says that they changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = -1
        self._changed = select.poll() if LINUX else None
        self._mounts: Sequence[Mount] = ()

    def mounts(self) -> Sequence[Mount]:
        with self._lock:
            is_new = self._descriptor < 0
            if is_new:
                self._descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
                if self._changed is not None:
                    self._changed.register(self._descriptor, select.POLLPRI | select.POLLERR)
            # Asked before reading: a change after this is told next time.
            if (self._changed is not None and self._changed.poll(0)) or is_new:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                with open(self._descriptor, encoding="utf-8", errors="surrogateescape", closefd=False) as rows:
                    self._mounts = parse(rows.read())
            return self._mounts


_libc = ctypes.CDLL(None, use_errno=True)
_TABLE = _Table()
