import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepgate.domain.errors import WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.apply import applied_state, apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from tests.fixtures.patience import PATIENCE_S
from tests.workspace import trees
from tests.workspace.test_apply import AFTER, BEFORE
from tests.workspace.trees import File

SCRIPT = Path(__file__).with_name("crash_apply.py")


def crash_everywhere(base: Path, blobs: BlobStore, *saved: str) -> tuple[ChangeSet, list[str]]:
    """Leaves `base/<n>`: the workspace as an apply killed at point n left it. Returns the set and the points' names.

    With `saved` (from which point, which path, killed where) it is `base/saved` alone, and a person saved in between.
    """
    (base / "before").mkdir()
    trees.write(base / "before", BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    (base / "set.json").write_text(json.dumps(change_set.to_json()))
    trial = base / "trial"
    shutil.copytree(base / "before", trial, symlinks=True)
    points = list[str]()
    with Root.open(trial) as root:
        apply(root, change_set, blobs, on_point=points.append)
    subprocess.run([sys.executable, SCRIPT, base, str(len(points)), *saved], check=True, timeout=PATIENCE_S)
    return change_set, points


def test_killed_anywhere_a_second_apply_ends_in_the_same_state(tmp_path: Path, blobs: BlobStore) -> None:
    change_set, points = crash_everywhere(tmp_path, blobs)
    kinds = {point.partition(":")[0] for point in points}
    steps = {
        "start",
        "swept",
        "checked",
        "widened",
        "prepared",
        "folder",
        "exchanged",
        "placed",
        "taken",
        "removed",
        "mode",
        "time",
        "cleaned",
        "durable",
    }
    assert steps <= kinds
    states = set[str]()
    for number, point in enumerate(points):
        with Root.open(tmp_path / str(number)) as root:
            state, paths = applied_state(root, change_set)
            states.add(state)
            assert state != "conflict", (point, paths)
            apply(root, change_set, blobs)
            assert applied_state(root, change_set)[0] == "after"
        assert trees.read(tmp_path / str(number)) == AFTER, point
    assert states == {"before", "mixed", "after"}


def test_a_save_after_the_crash_stops_the_second_apply_untouched(tmp_path: Path, blobs: BlobStore) -> None:
    change_set, points = crash_everywhere(tmp_path, blobs)
    for number, point in enumerate(points):
        workspace = tmp_path / str(number)
        (workspace / "edited").write_bytes(b"the person's")
        with Root.open(workspace) as root:
            before = {path: item for path, item in trees.read(workspace).items() if ".stepgate-" not in path}
            with pytest.raises(WorkspaceConflict) as caught:
                apply(root, change_set, blobs)
        assert caught.value.details["paths"] == ["edited"], point
        assert trees.read(workspace) == before, point
        assert isinstance(before["edited"], File)
        assert before["edited"].data == b"the person's"


@pytest.mark.parametrize(
    ("path", "fatal"),
    [("edited", "exchanged:edited"), ("link", "exchanged:link"), ("deleted", "taken:deleted")],
)
def test_a_save_just_before_the_path_is_taken_survives_a_crash_just_after(
    tmp_path: Path, blobs: BlobStore, path: str, fatal: str
) -> None:
    change_set, _ = crash_everywhere(tmp_path, blobs, "prepared", path, fatal)
    workspace = tmp_path / "saved"
    with Root.open(workspace) as root, pytest.raises(WorkspaceConflict) as caught:
        apply(root, change_set, blobs)
    assert caught.value.details["paths"] == [path]
    assert (workspace / path).read_bytes() == b"the person's"
    assert [name for name in trees.read(workspace) if ".stepgate-" in name] == []


def test_two_saves_around_a_crash_are_both_kept(tmp_path: Path, blobs: BlobStore) -> None:
    change_set, _ = crash_everywhere(tmp_path, blobs, "prepared", "edited", "exchanged:edited")
    workspace = tmp_path / "saved"
    (workspace / "edited").write_bytes(b"the person's second")
    with Root.open(workspace) as root, pytest.raises(WorkspaceConflict):
        apply(root, change_set, blobs)
    assert (workspace / "edited").read_bytes() == b"the person's second"
    kept = [path for path in workspace.iterdir() if path.name.endswith(".kept")]
    assert [path.read_bytes() for path in kept] == [b"the person's"]
