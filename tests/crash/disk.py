"""A disk that forgets at a power cut what was not synced: the dying process notes what was, later the rest goes."""

import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepgate.workspace import syscalls

LOG = "synced.log"
TEMPORARY = ".stepgate-"


def record(folder: Path) -> None:
    """From now on every sync of this process is noted in `folder/synced.log`, once it has happened."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    sync_file, sync_all = os.fsync, syscalls._syncfs
    assert sync_all is not None

    def note(entry: Mapping[str, Any]) -> None:
        os.write(log, json.dumps(entry).encode() + b"\n")

    def fsync(descriptor: int) -> None:
        sync_file(descriptor)
        note(_seen(descriptor))

    def syncfs(descriptor: int) -> int:
        result: int = sync_all(descriptor)
        for path in (folder, *folder.rglob("*")):
            note(_seen(path))
        return result

    for module, name, function in ((os, "fsync", fsync), (syscalls, "_syncfs", syncfs)):
        setattr(module, name, function)


def _seen(one: int | Path) -> dict[str, Any]:
    found = os.fstat(one) if isinstance(one, int) else one.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return {"inode": found.st_ino}
    with os.scandir(one) as entries:
        return {"inode": found.st_ino, "names": {entry.name: entry.inode() for entry in entries}}


class Disk:
    """What was durable when the process died, by inode; `names` of folders as they were last synced."""

    def __init__(self, folder: Path) -> None:
        self._inodes: set[int] = set()
        self._names: dict[int, Mapping[str, int]] = {}
        for line in (folder / LOG).read_text().splitlines():
            entry = json.loads(line)
            self._inodes.add(entry["inode"])
            if "names" in entry:
                self._names[entry["inode"]] = entry["names"]

    def keeps_content(self, path: Path) -> bool:
        return path.stat().st_ino in self._inodes

    def keeps_name(self, path: Path) -> bool:
        names = self._names.get(path.parent.stat().st_ino, {})
        return names.get(path.name) == path.lstat().st_ino


def cut_power(folder: Path, backup: Path, kept: frozenset[int]) -> list[str]:
    """Takes away what was not synced, in every second case by truncating where a file could go; returns the paths.

    `backup` is the workspace as it was before the step, whose files come back where a new name was not synced; files
    of the inodes `kept` are other programs', who synced them.
    """
    disk, lost = Disk(folder), list[str]()
    for base in (folder / "state" / "blobs", folder / "state" / "applying"):
        for number, path in enumerate(sorted(path for path in base.rglob("*") if path.is_file())):
            if not disk.keeps_content(path) and number % 2:
                os.truncate(path, path.stat().st_size // 2)
            elif not (disk.keeps_content(path) and disk.keeps_name(path)):
                path.unlink()
            else:
                continue
            lost.append(str(path.relative_to(folder)))
    workspace = folder / "spaces" / "project"
    for number, path in enumerate(sorted(_files(workspace))):
        if path.lstat().st_ino in kept or path.is_symlink():
            continue
        if not disk.keeps_content(path):
            os.truncate(path, 0)
        elif not disk.keeps_name(path) and number % 2 and TEMPORARY not in path.name:
            _revert(path, backup / path.relative_to(workspace))
        else:
            continue
        lost.append(str(path.relative_to(folder)))
    return lost


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def _revert(path: Path, before: Path) -> None:
    """The rename is lost: the name is what it was."""
    if before.is_dir() and not before.is_symlink():
        return
    path.unlink()
    if before.is_symlink() or before.exists():
        shutil.copy2(before, path, follow_symlinks=False)
