"""Layers by overlay: the workspace is the lower folder, and the upper folder holds only what changed."""

import contextlib
import errno
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from stepgate.domain.errors import ChangeRefused, NotFound, PathRefused, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.drift import opening_mark
from stepgate.workspace.layers.folder import SCRATCH, LayerFolder
from stepgate.workspace.layers.layer import WORKSPACE, Capture, Places
from stepgate.workspace.layers.walk import Entry, Touched, check_name, walk
from stepgate.workspace.paths import ancestors
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.states import stat_beneath

UPPER, WORK, EMPTY = "upper", "work", "empty"
_NOTES = "user.overlay."
OPAQUE, ORIGIN = "opaque", "origin"
_HARMLESS = ("impure", "nlink", "protattr", "upper", "uuid")


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
        if launcher.root and not launcher.private:
            raise OSError(errno.EPERM, f"no idmapped mount is possible: {launcher.refusal}")
        opened_ns = opening_mark()
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
        with contextlib.suppress(FileExistsError):
            self.folder.add(EMPTY, self.launcher.uid)
        return (*overlay, *keep_git(self.root, self._lower, f"{here}/{EMPTY}"), *scratch_mounts(here))

    def places(self) -> Places:
        raise WorkspaceUnavailable("an overlay shows its view to sandboxes with mounts only")

    def untouched(self) -> bool:
        return not os.listdir(self.written)

    def touched(self, most: int) -> Iterator[Touched]:
        present: set[str] = set()
        replaced: list[str] = []
        for entry in walk(self.written, most=most):
            if stat.S_ISCHR(entry.stat.st_mode) and entry.stat.st_rdev == 0:
                replaced.append(entry.path)
                continue
            marks = _marks(entry)
            if OPAQUE in marks or not entry.is_folder:
                replaced.append(entry.path)
            present.add(entry.path)
            yield Touched(entry.path, entry, ORIGIN in marks)
        for path in replaced:
            for below in self._below(path, most, present):
                if below not in present:
                    yield Touched(below, None)

    def _below(self, path: str, most: int, among: Container[str]) -> Iterator[str]:
        """A path of the workspace with everything beneath it, as it is now."""
        waiting, count = [path], 0
        while waiting:
            path = waiting.pop()
            count += 1
            if count > most:
                raise ChangeRefused(
                    f"more than {most} files were deleted, up to {path!r}", field="path", fix="delete fewer files"
                )
            try:
                found = stat_beneath(self.root, path, among)
                if found is None:
                    continue
                names = self.root.list(path) if found.kind is Kind.FOLDER else ()
            except (NotFound, PathRefused) as error:
                raise WorkspaceConflict(
                    f"{path!r} was changed meanwhile by another program, or cannot be read: {error.message}",
                    code="drifted",
                    field="path",
                    details={"paths": [path]},
                ) from error
            yield path
            waiting += [check_name(f"{path}/{name}") for name in names]

    def drifted(self, touched: Touched, among: Container[str]) -> bool:
        try:
            found = stat_beneath(self.root, touched.path, among)
        except PathRefused:
            return True
        if found is not None:
            return found.ctime_ns > self.opened_ns
        # Something copied up whose origin is gone was renamed by the command or deleted by somebody else; only the
        # latter shows below.
        return touched.copied and self._folder_changed(touched.path, among)

    def _folder_changed(self, path: str, among: Container[str]) -> bool:
        for folder in (*reversed(ancestors(path)), ""):
            found = FileStat.of(os.fstat(self.root.fd)) if not folder else stat_beneath(self.root, folder, among)
            if found is not None:
                return found.ctime_ns > self.opened_ns
        return False

    def discard(self) -> None:
        if self._mounted:
            self._mounted = False
            self.launcher.unmount(self._lower)
        for descriptor in (self.written, self.scratch):
            if descriptor >= 0:
                os.close(descriptor)
        self.written = self.scratch = -1
        self.folder.remove()


def _marks(entry: Entry) -> set[str]:
    """The overlay's own notes on an entry; raises ChangeRefused for those that our mounts never write."""
    if stat.S_ISLNK(entry.stat.st_mode):
        return set()
    names = [name.removeprefix(_NOTES) for name in entry.attributes() if name.startswith(_NOTES)]
    # A command's own attributes of that name are kept with one more prefix.
    marks = {name for name in names if not name.startswith("overlay.")}
    known = marks <= {OPAQUE, ORIGIN, *_HARMLESS}
    if not known or (OPAQUE in marks and not (entry.is_folder and entry.attribute(_NOTES + OPAQUE) == b"y")):
        raise ChangeRefused(f"{entry.path!r} carries marks that only an overlay inside could make", field="path")
    return marks


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


def keep_git(root: Root, view: str, empty: str | None = None) -> tuple[str, ...]:
    """Arguments that make the workspace's own `.git` read-only, so that reading it (`git status`) needs no write.

    With an `empty` folder it is shown through an overlay, behind which a lock, a lease, a pipe or a socket is another
    than the person's own; without one, where overlays do not work, those can be reached.
    """
    found = root.stat(".git")
    if found is None or found.kind not in ("file", "folder"):
        return ()
    git, place = f"{view}/.git", f"{WORKSPACE}/.git"
    if found.kind == "file" or empty is None:
        return ("--ro-bind", git, place)
    # The kernel takes no overlay of one folder that nothing is written to.
    return ("--overlay-src", git, "--overlay-src", empty, "--ro-overlay", place)


def scratch_mounts(here: str) -> tuple[str, ...]:
    """Arguments for /tmp and /dev/shm on disk, where their bytes and files can be counted, unlike in a tmpfs."""
    return ("--bind", f"{here}/{SCRATCH}/tmp", "/tmp", "--bind", f"{here}/{SCRATCH}/shm", "/dev/shm")  # noqa: S108
