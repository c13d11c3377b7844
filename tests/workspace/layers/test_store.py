import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.layers.folder import sweep
from stepgate.workspace.layers.layer import Capture
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.launcher import STAGE
from tests.workspace.sandbox.lab import Lab


def test_the_overlay_is_preferred_and_the_copy_taken_where_asked(tmp_path: Path) -> None:
    overlay = Layers(tmp_path / "one").probe()
    assert (overlay.capture, overlay.reasons) == (Capture.OVERLAY, ())
    assert Layers(tmp_path / "two", captures=(Capture.COPY,)).probe().capture is Capture.COPY


def test_no_kind_of_layer_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceUnavailable, match="no kind of layer"):
        Layers(tmp_path, captures=()).probe()


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.probe()
    assert list(layers.path.iterdir()) == []


def test_a_layer_leaves_nothing_however_it_ends(lab: Lab, root: Root) -> None:
    def fail() -> None:
        with lab.layers.open(root) as layer:
            assert (lab.layers.path / layer.id).is_dir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(lab.layers.path.iterdir()) == []


def test_a_retired_layer_is_removed_without_its_user(lab: Lab, root: Root) -> None:
    for layer in [lab.layers.take(root) for _ in range(40)]:
        lab.layers.retire(layer)
    with lab.layers.open(root) as layer:
        lab.layers.settle()
        assert [entry.name for entry in lab.layers.path.iterdir()] == [layer.id]


def test_opening_costs_no_descriptor_after_closing(lab: Lab, root: Root) -> None:
    lab.layers.probe()
    before = _open_descriptors()
    for _ in range(5):
        with lab.layers.open(root):
            pass
    assert _open_descriptors() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes mounts of its own")
def test_mounts_are_taken_away_with_their_layer(labs: Callable[[Capture], Lab], root: Root) -> None:
    def mounts() -> int:
        lines = Path(f"/proc/{Launcher.shared().pid}/mountinfo").read_text().splitlines()
        return sum(1 for line in lines if line.split()[4].startswith(f"{STAGE}/"))

    lab = labs(Capture.OVERLAY)
    lab.layers.probe()
    # Answering an ordinary question shows that the launcher is past the unmounting, which nobody waits for.
    with lab.layers.open(root):
        before = mounts()
    assert before > 0
    for _ in range(3):
        with lab.layers.open(root):
            pass
    with lab.layers.open(root):
        assert mounts() == before


def test_living_layers_are_left_and_those_of_dead_processes_swept(lab: Lab, root: Root, tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom stepgate.workspace.layers.folder import LayerFolder\n"
        "made = LayerFolder.make(Path(sys.argv[1]), os.geteuid())\n"
        "(made.path / 'scratch/tmp/x').write_text('x')\nprint(made.id)\n"
    )
    with lab.layers.open(root) as layer:
        dead = subprocess.run(
            [sys.executable, "-c", script, str(lab.layers.path)], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert {entry.name for entry in lab.layers.path.iterdir()} == {layer.id, dead}
        assert lab.layers.sweep() == 1
        assert [entry.name for entry in lab.layers.path.iterdir()] == [layer.id]
        assert lab.layers.sweep() == 0


def test_a_workspace_that_holds_the_state_folder_is_refused(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "state")
    with Root.open(tmp_path) as root, pytest.raises(WorkspaceUnavailable, match="state folder"), layers.open(root):
        pass


def test_opening_does_not_walk_the_workspace(labs: Callable[[Capture], Lab], root: Root) -> None:
    lab = labs(Capture.OVERLAY)
    for number in range(50):
        (root.path / f"f{number}").write_text("x")
    with lab.layers.open(root) as layer:
        assert list(os.scandir(layer.written)) == []


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_emptying_that_a_crash_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    """What the first one had moved up is in the way of nothing."""
    left = tmp_path / "layer"
    for name in ("upper/a/b/c", "upper/d/e", ".removed-1/x/y", ".removed-2/z"):
        (left / name).mkdir(parents=True)
        (left / name / "file").write_text("")
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_swept_keeps_nobody_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bad", "good"):
        (tmp_path / name / "inside").mkdir(parents=True)
    rmdir = os.rmdir

    def failing(path: Any, **more: Any) -> None:
        if path == tmp_path / "bad":
            raise OSError(errno.EIO, "broken")
        rmdir(path, **more)

    monkeypatch.setattr(os, "rmdir", failing)
    assert sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
