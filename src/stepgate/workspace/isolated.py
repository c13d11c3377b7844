"""Private copies of workspaces: a run in `isolated` mode works on its own, and the person's folder stays as it is.

`<state>/isolated/<run id>/files` is the copy and `copy.json` beside it says what it is. Both are made aside, in a
folder that is locked while its maker lives, and get their name by one rename, so a copy is there whole or not at all.
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stepgate.domain.errors import IntegrityError, PathRefused, WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.layers.folder import LayerFolder, sweep
from stepgate.workspace.locks import WorkspaceLock
from stepgate.workspace.syscalls import fsync_folder, sync_filesystem
from stepgate.workspace.treecopy import Bounds, copy_tree

FILES, NOTE, WHOLE = "files", "copy.json", "whole"
LOCK_WAIT_S = 10.0
MAX_LEFT_OUT = 1000


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy was when it was made; `git_ref` and `git_commit` are where the person's repository stood."""

    files: int
    bytes: int
    left_out: Sequence[tuple[str, str]]
    git_ref: str | None = None
    git_commit: str | None = None


class Busy(Exception):
    """A change set is being applied to the workspace, or half of one is there."""


Head = Callable[[Root], tuple[str | None, str | None]]
"""Where the repository of a workspace stands: branch and commit, None for what there is not."""


class Copies:
    """The private copies below one state folder; safe to use from several processes."""

    def __init__(self, state_dir: Path, bounds: Bounds) -> None:
        self.state_dir = state_dir.resolve()
        self.path = self.state_dir / "isolated"
        self._aside = self.path / "aside"
        self._bounds = bounds

    def folder_of(self, run_id: str) -> Path:
        """Where the run's copy is, or will be; a canonical path."""
        return self.path / run_id / FILES

    def check_workspace(self, path: Path, *, isolated: bool) -> None:
        """Raises PathRefused for a workspace that is somebody's copy, or one that would be copied into itself."""
        if path.is_relative_to(self.path):
            raise PathRefused(
                "the folder is the private copy of a run", field="workspace_path", fix="name the folder it was made of"
            )
        if isolated and self.path.is_relative_to(path):
            raise PathRefused(
                "the state folder lies inside the workspace, so a copy would hold itself",
                field="workspace_path",
                fix="set another STEPGATE_STATE_DIR, or choose a folder that does not hold it",
            )

    def find(self, run_id: str) -> Copy | None:
        """The run's copy, if it is there."""
        try:
            text = (self.path / run_id / NOTE).read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            value = json.loads(text)
            left_out = [(path, reason) for path, reason in value.pop("left_out")]
            return Copy(**value, left_out=left_out)
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError(f"the note on the copy of run {run_id} is damaged: {error}") from error

    def make(self, run_id: str, source: Path, head: Head, busy: Callable[[], bool], wanted: Callable[[], bool]) -> Copy:
        """The run's copy of a workspace, made unless it is there; it blocks for as long as copying takes.

        No change set is applied to the workspace meanwhile. `busy` is asked once that is so: whether half of one is
        there. Raises Busy, Stopped once `wanted` says no, and what `copy_tree` and `Root.open` raise.
        """
        self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        with Root.open(source, exact=True) as root, _still(root):
            if busy():
                raise Busy("half of a change set is there")
            return self._make(run_id, root, head, wanted)

    def _make(self, run_id: str, source: Root, head: Head, wanted: Callable[[], bool]) -> Copy:
        folder = LayerFolder.claim(self._aside)
        try:
            os.mkdir(WHOLE, 0o700, dir_fd=folder.fd)
            os.mkdir(f"{WHOLE}/{FILES}", 0o700, dir_fd=folder.fd)
            target = folder.open(f"{WHOLE}/{FILES}")
            try:
                git_ref, git_commit = head(source)
                copied = copy_tree(source, target, self._bounds, wanted)
                made = Copy(copied.files, copied.bytes, copied.left_out[:MAX_LEFT_OUT], git_ref, git_commit)
                (folder.path / WHOLE / NOTE).write_text(json.dumps(asdict(made)), "utf-8")
                if not sync_filesystem(target):
                    os.sync()
            finally:
                os.close(target)
            try:
                os.rename(folder.path / WHOLE, self.path / run_id)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                found = self.find(run_id)  # another worker was faster
                if found is None:
                    raise
                return found
            fsync_folder(self.path)
            return made
        finally:
            folder.remove()

    def throwaway(self, source: Path, busy: Callable[[], bool], wanted: Callable[[], bool]) -> LayerFolder:
        """A copy that nobody keeps, in the folder `files` of what is returned and until that is removed; a crash leaves
        nothing that `sweep` keeps. As `make` otherwise.
        """
        self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        folder = LayerFolder.claim(self._aside)
        try:
            os.mkdir(FILES, 0o700, dir_fd=folder.fd)
            target = folder.open(FILES)
            try:
                with Root.open(source, exact=True) as root, _still(root):
                    if busy():
                        raise Busy("half of a change set is there")
                    copy_tree(root, target, self._bounds, wanted)
            finally:
                os.close(target)
        except BaseException:
            folder.remove()
            raise
        return folder

    def remove(self, run_id: str) -> bool:
        """Removes the run's copy; False where there is none. A crash on the way leaves nothing that `sweep` keeps."""
        self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = LayerFolder.claim(self._aside)
        try:
            os.rename(self.path / run_id, folder.path / WHOLE)
        except FileNotFoundError:
            return False
        else:
            fsync_folder(self.path)
            return True
        finally:
            folder.remove()

    def sweep(self) -> int:
        """Removes what dead processes left half-made or half-removed; returns how many."""
        with contextlib.suppress(FileNotFoundError):
            return sweep(self._aside)
        return 0


@contextlib.contextmanager
def _still(root: Root) -> Iterator[None]:
    """No change set is applied to the folder within the block. Raises Busy."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(WorkspaceLock(root).shared(LOCK_WAIT_S))
        except WorkspaceUnavailable as error:
            raise Busy(error.message) from error
        yield
