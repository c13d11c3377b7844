"""Layers by overlay: the workspace is the lower folder, and the upper folder holds only what changed."""

import os
import stat
import time
from dataclasses import dataclass, field

from stepgate.domain.errors import WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.layers.folder import SCRATCH, LayerFolder
from stepgate.workspace.layers.layer import WORKSPACE, Capture
from stepgate.workspace.sandbox.launch import Launcher

UPPER, WORK = "upper", "work"


@dataclass(slots=True)
class OverlayLayer:
    """`opened_ns` is the clock at opening: a lower file whose ctime is later was changed by somebody else."""

    root: Root
    folder: LayerFolder
    launcher: Launcher
    opened_ns: int
    written: int
    scratch: int
    _lower: str
    _mounted: bool
    _base: str
    capture: Capture = field(default=Capture.OVERLAY, init=False)

    @classmethod
    def open(cls, root: Root, folder: LayerFolder, launcher: Launcher, base: str) -> "OverlayLayer":
        """`base` is the layers' folder as the sandbox reaches it.

        Raises OSError where the file system of the workspace cannot be shown to the sandbox's user.
        """
        opened_ns = time.time_ns()
        found = os.fstat(root.fd)
        # The upper folder's mode is the mode the command sees on its workspace.
        folder.add(UPPER, launcher.uid, stat.S_IMODE(found.st_mode) & 0o777 | 0o700)
        folder.add(WORK, launcher.uid)
        if launcher.private:
            lower = launcher.mount(root.fd, owner=(found.st_uid, found.st_gid), read_only=True)
        else:
            lower = current_path(root)
        return cls(
            root,
            folder,
            launcher,
            opened_ns,
            folder.open(UPPER),
            folder.open(SCRATCH),
            lower,
            launcher.private,
            base,
        )

    @property
    def id(self) -> str:
        return self.folder.id

    def mounts(self) -> tuple[str, ...]:
        here = f"{self._base}/{self.id}"
        overlay = ("--overlay-src", self._lower, "--overlay", f"{here}/{UPPER}", f"{here}/{WORK}", WORKSPACE)
        return (*overlay, *keep_git(self.root, self._lower), *scratch_mounts(here))

    def discard(self) -> None:
        if self._mounted:
            self._mounted = False
            self.launcher.unmount(self._lower)
        for descriptor in (self.written, self.scratch):
            if descriptor >= 0:
                os.close(descriptor)
        self.written = self.scratch = -1
        self.folder.remove()


def current_path(root: Root) -> str:
    """Where the workspace's folder is now, without any link; raises WorkspaceUnavailable when it was removed."""
    path = os.readlink(f"/proc/self/fd/{root.fd}")
    try:
        now, held = os.stat(path, follow_symlinks=False), os.fstat(root.fd)
    except FileNotFoundError:
        raise WorkspaceUnavailable(f"the workspace {str(root.path)!r} was removed", field="workspace_path") from None
    if (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino):
        raise WorkspaceUnavailable(f"the workspace {str(root.path)!r} was replaced", field="workspace_path")
    return path


def keep_git(root: Root, view: str) -> tuple[str, ...]:
    """Arguments that make the workspace's own `.git` read-only, so that reading it (`git status`) needs no write."""
    found = root.stat(".git")
    if found is None or found.kind not in ("file", "folder"):
        return ()
    return ("--ro-bind", f"{view}/.git", f"{WORKSPACE}/.git")


def scratch_mounts(here: str) -> tuple[str, ...]:
    """Arguments for /tmp and /dev/shm on disk, where their bytes and files can be counted, unlike in a tmpfs."""
    return ("--bind", f"{here}/{SCRATCH}/tmp", "/tmp", "--bind", f"{here}/{SCRATCH}/shm", "/dev/shm")  # noqa: S108
