"""Where layers are made, in the way that a probe at start-up found to work here."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import structlog

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
from stepgate.workspace.sandbox.recipe import Start
from stepgate.workspace.sandbox.start import run_plainly

log = structlog.get_logger(__name__)

_MOST_RETIRED: Final = 16
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


Trial = Callable[[Layer, Sequence[str]], str]
"""Runs a command of our own over a layer and tells what went wrong, "" if nothing did."""


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
        self._trial: Trial | None = None
        self._remover = ThreadPoolExecutor(1, "stepgate-layers")
        self._retired: set[Future[None]] = set()
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def probe(self) -> Probed:
        """Edits, deletes and replaces files in a layer of each kind until one tells exactly that; asked only once.

        Raises WorkspaceUnavailable when none does.
        """
        with self._lock:
            if self._probed is None:
                self._probed = self._probe()
            return self._probed

    def use(self, trial: Trial | None) -> None:
        """How commands run over layers from now on: as `trial` does, which makes no mounts, or (None) by bubblewrap."""
        with self._lock:
            self._trial, self._probed = trial, None

    def _probe(self) -> Probed:
        reasons: list[str] = []
        # Without mounts a command sees what lies on the disk, and nothing else.
        for capture in self._captures if self._trial is None else (Capture.COPY,):
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
                    run = self._trial or self._run
                    fault = run(layer, ("/bin/sh", "-c", _SCRIPT))
                    if fault:
                        return fault
                    found = harvest(layer, root, BlobStore(trial.path / "blobs"), Limits())
                finally:
                    layer.discard()
        finally:
            trial.remove()
        return "" if _as_expected(found) else f"it told {[change.path for change in found.changes]}"

    def _run(self, layer: Layer, argv: Sequence[str]) -> str:
        launcher = Launcher.shared()
        fault = "no bubblewrap was found"
        for bwrap in candidates():
            arguments = ["--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent", "--cap-drop", "ALL"]
            arguments += ["--ro-bind", "/usr", "/usr", "--dev", "/dev"]
            for name in ("bin", "lib", "lib64"):
                if Path("/", name).exists():
                    arguments += ["--ro-bind", f"/{name}", f"/{name}"]
            arguments += [*layer.mounts(), "--chdir", WORKSPACE]
            how = Start({"bwrap": bwrap.reached(launcher)}, tuple(arguments), seccomp.program())
            fault = run_plainly(launcher, how, argv)
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
                    return CopyLayer.open(root, folder, launcher, base, mounts=self._trial is None)
                case _:
                    assert_never(capture)
        except BaseException:
            folder.remove()
            raise

    @contextmanager
    def open(self, root: Root) -> Iterator[Layer]:
        """A fresh layer over a workspace, discarded at the end of the `with`; raises what `take` does."""
        layer = self.take(root)
        try:
            yield layer
        finally:
            layer.discard()

    def take(self, root: Root) -> Layer:
        """A fresh layer over a workspace; `retire` or discard it. Waits while too many wait to be removed.

        Raises WorkspaceUnavailable when the workspace is gone, cannot be read, or holds the state folder.
        """
        while len(self._retired) >= _MOST_RETIRED:
            wait(self._retired.copy(), return_when=FIRST_COMPLETED)
        capture = self.probe().capture
        if self.path.is_relative_to(current_path(root)):
            raise WorkspaceUnavailable(
                "the state folder lies inside the workspace", field="workspace_path", fix="set another state folder"
            )
        try:
            return self._make(capture, root)
        except OSError:
            # What works on the state folder's file system need not work on the workspace's.
            if capture is Capture.COPY or Capture.COPY not in self._captures:
                raise
            return self._make(Capture.COPY, root)

    def retire(self, layer: Layer) -> None:
        """Gives up a layer in which nothing runs any more; it is removed soon, and by a sweep if this process ends."""
        removal = self._remover.submit(layer.discard)
        self._retired.add(removal)
        removal.add_done_callback(self._removed)

    def _removed(self, removal: "Future[None]") -> None:
        self._retired.discard(removal)
        if (error := removal.exception()) is not None:
            log.warning("a layer could not be removed", error=str(error))

    def settle(self) -> None:
        """Returns when every retired layer is removed."""
        wait(self._retired.copy())

    def sweep(self) -> int:
        """Removes the layers that dead processes left; returns how many."""
        return sweep(self.path)


def _as_expected(found: ChangeSet) -> bool:
    return {change.path: change.op for change in found.changes} == _EXPECTED
