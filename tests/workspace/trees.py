"""Small file trees as plain dictionaries, so that tests compare whole workspaces at once."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Node


@dataclass(frozen=True, slots=True)
class File:
    data: bytes = b""
    mode: int = 0o644
    mtime_ns: int = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Folder:
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    target: str


Tree = Mapping[str, File | Folder | Link]


def write(base: Path, tree: Tree) -> None:
    """Makes the tree in an existing, empty folder."""
    for path, item in sorted(tree.items()):
        where = base / path
        match item:
            case Folder():
                where.mkdir(0o700)
            case Link(target):
                where.symlink_to(target)
            case File(data, mode, mtime_ns):
                where.write_bytes(data)
                where.chmod(mode)
                os.utime(where, ns=(mtime_ns, mtime_ns))
    for path, item in sorted(tree.items(), reverse=True):
        if isinstance(item, Folder):
            (base / path).chmod(item.mode)


def read(base: Path, prefix: str = "") -> dict[str, File | Folder | Link]:
    """The tree in a folder, temporary and protected names included."""
    found = dict[str, File | Folder | Link]()
    for entry in os.scandir(base / prefix):
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        info = entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            found[path] = Link(str(Path(entry.path).readlink()))
        elif entry.is_dir():
            found[path] = Folder(stat.S_IMODE(info.st_mode))
            found.update(read(base, path))
        else:
            data = Path(entry.path).read_bytes() if entry.is_file() else b"neither file nor folder"
            found[path] = File(data, stat.S_IMODE(info.st_mode), info.st_mtime_ns)
    return found


def relink(path: Path, target: str) -> None:
    """Puts a link where a file or link is."""
    path.unlink()
    path.symlink_to(target)


def open_descriptors() -> int:
    """How many descriptors this process has open, one for the listing included."""
    return len(list(Path("/proc/self/fd").iterdir()))


def node(item: File | Folder | Link | None, blobs: BlobStore) -> Node | None:
    match item:
        case None:
            return None
        case Folder(mode):
            return Node.folder(mode)
        case Link(target):
            return Node.symlink(target)
        case File(data, mode, mtime_ns):
            return Node.file(blobs.put(data), len(data), mode, mtime_ns)


def between(before: Tree, after: Tree, blobs: BlobStore) -> ChangeSet:
    """The change set that leads from one tree to the other."""
    paths = sorted(before.keys() | after.keys())
    return ChangeSet.of(
        Change(path, node(before.get(path), blobs), node(after.get(path), blobs))
        for path in paths
        if before.get(path) != after.get(path)
    )
