"""Where layers are made, in the way that a probe at start-up found to work here."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from stepgate.domain.errors import StepgateError, WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet, Op
from stepgate.workspace.layers.folder import LayerFolder, sweep
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import WORKSPACE, Capture, Layer
from stepgate.workspace.layers.overlay import OverlayLayer, current_path
from stepgate.workspace.layers.private import CopyLayer
from stepgate.workspace.sandbox import seccomp
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.locate import candidates
from stepgate.workspace.sandbox.start import run_plainly

_SAMPLE: Final = {"edited": "one\n", "deleted": "two\n", "folder/old": "three\n", "kept": "four\n"}
_SCRIPT: Final = (
    "echo more >> edited && echo one >> kept && echo four > kept && rm deleted && rm -r folder && mkdir folder"
    " && echo new > folder/new && echo made > made"
)
_EXPECTED: Final = {
    "deleted": Op.DELETE,
    "edited": Op.MODIFY,
    "folder/new": Op.CREATE,
    "folder/old": Op.DELETE,
    "made": Op.CREATE,
}


@dataclass(frozen=True, slots=True)
class Probed:
    """`capture` is what layers use; `reasons` says why each better way was passed over."""

    capture: Capture
    reasons: tuple[str, ...]


class Layers:
    """The layers of one process, in `state_dir/layers`; safe to use from several threads."""

    def __init__(self, state_dir: Path, *, captures: Sequence[Capture] = (Capture.OVERLAY, Capture.COPY)) -> None:
        self.path = state_dir.resolve() / "layers"
        self._captures = tuple(captures)
        self._lock = threading.Lock()
        self._probed: Probed | None = None
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def probe(self) -> Probed:
        """Edits, deletes and replaces files in a layer of each kind until one tells exactly that; asked only once.

        Raises WorkspaceUnavailable when none does.
        """
        with self._lock:
            if self._probed is None:
                self._probed = self._probe()
            return self._probed

    def _probe(self) -> Probed:
        reasons: list[str] = []
        for capture in self._captures:
            try:
                fault = self._try(capture)
            except (OSError, StepgateError) as error:
                fault = str(error)
            if not fault:
                return Probed(capture, tuple(reasons))
            reasons.append(f"{capture}: {fault}")
        raise WorkspaceUnavailable(
            f"no kind of layer works in {str(self.path)!r}: {'; '.join(reasons)}",
            fix="put the state folder on a local disk such as ext4, xfs, btrfs or tmpfs",
        )

    def _try(self, capture: Capture) -> str:
        """What is wrong with one kind of layer here, "" if nothing is."""
        launcher = Launcher.shared()
        trial = LayerFolder.make(self.path, launcher.uid)
        try:
            sample = trial.path / "sample"
            for name, text in _SAMPLE.items():
                (sample / name).parent.mkdir(parents=True, exist_ok=True)
                (sample / name).write_text(text)
            with Root.open(sample) as root:
                layer = self._make(capture, root)
                try:
                    fault = self._run(launcher, layer)
                    if fault:
                        return fault
                    found = harvest(layer, root, BlobStore(trial.path / "blobs"), Limits())
                finally:
                    layer.discard()
        finally:
            trial.remove()
        return "" if _as_expected(found) else f"it told {[change.path for change in found.changes]}"

    def _run(self, launcher: Launcher, layer: Layer) -> str:
        fault = "no bubblewrap was found"
        for bwrap in candidates():
            arguments = ["--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent", "--cap-drop", "ALL"]
            arguments += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
            for name in ("bin", "lib", "lib64"):
                if Path("/", name).exists():
                    arguments += ["--ro-bind", f"/{name}", f"/{name}"]
            arguments += [*layer.mounts(), "--chdir", WORKSPACE]
            fault = run_plainly(
                launcher, bwrap.reached(launcher), arguments, ("/bin/sh", "-c", _SCRIPT), seccomp.program()
            )
            if not fault:
                return ""
        return fault

    def _make(self, capture: Capture, root: Root) -> Layer:
        launcher = Launcher.shared()
        base = launcher.reach(self.path)
        folder = LayerFolder.make(self.path, launcher.uid)
        try:
            match capture:
                case Capture.OVERLAY:
                    return OverlayLayer.open(root, folder, launcher, base)
                case Capture.COPY:
                    return CopyLayer.open(root, folder, launcher, base)
                case _:
                    assert_never(capture)
        except BaseException:
            folder.remove()
            raise

    @contextmanager
    def open(self, root: Root) -> Iterator[Layer]:
        """A fresh layer over a workspace, discarded at the end of the `with`.

        Raises WorkspaceUnavailable when the workspace is gone, cannot be read, or holds the state folder.
        """
        capture = self.probe().capture
        if self.path.is_relative_to(current_path(root)):
            raise WorkspaceUnavailable(
                "the state folder lies inside the workspace", field="workspace_path", fix="set another state folder"
            )
        try:
            layer = self._make(capture, root)
        except OSError:
            # What works on the state folder's file system need not work on the workspace's.
            if capture is Capture.COPY or Capture.COPY not in self._captures:
                raise
            layer = self._make(Capture.COPY, root)
        try:
            yield layer
        finally:
            layer.discard()

    def sweep(self) -> int:
        """Removes the layers that dead processes left; returns how many."""
        return sweep(self.path)


def _as_expected(found: ChangeSet) -> bool:
    return {change.path: change.op for change in found.changes} == _EXPECTED
