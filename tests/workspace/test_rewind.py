"""A folder in any state that a run left is brought to where the run was at an earlier step, or refused by its paths."""

import itertools
from pathlib import Path

import pytest

from stepgate.domain.errors import Conflict, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.rewind import rewind
from tests.workspace import trees
from tests.workspace.trees import File, Folder, Link, Tree

TREES: list[Tree] = [
    {"f": File(b"1"), "d": Folder(), "d/old": File(b"old"), "l": Link("f"), "run": File(b"r", 0o755)},
    {"f": File(b"2"), "d": Folder(), "d/old": File(b"old"), "d/new": File(b"n"), "l": Link("d"), "run": File(b"r")},
    {"f": Folder(), "f/in": File(b"in"), "e": Folder(), "e/x": File(b"x"), "l": File(b"no link"), "run": File(b"r")},
    {"f": File(b"1"), "e": Folder(0o700), "l": Link("f"), "back": File(b"b")},
]
OTHERS: Tree = {"theirs": File(b"theirs")}


@pytest.fixture
def sets(blobs: BlobStore) -> list[ChangeSet]:
    return [trees.between(one, other, blobs) for one, other in itertools.pairwise(TREES)]


@pytest.mark.parametrize("stands", range(len(TREES)))
@pytest.mark.parametrize("wanted", range(len(TREES)))
def test_from_every_state_to_every_other(
    root: Root, workspace: Path, blobs: BlobStore, sets: list[ChangeSet], stands: int, wanted: int
) -> None:
    trees.write(workspace, {**TREES[stands], **OTHERS})
    change_set = rewind(root, sets, {one.id for one in sets[:wanted]}, blobs, "the id")
    assert change_set.id == "the id"
    apply(root, change_set, blobs)
    assert trees.read(workspace) == {**TREES[wanted], **OTHERS}
    assert not rewind(root, sets, {one.id for one in sets[:wanted]}, blobs).changes, "twice changes nothing"


def test_what_somebody_wrote_is_named_wherever_it_lies(
    root: Root, workspace: Path, blobs: BlobStore, sets: list[ChangeSet]
) -> None:
    trees.write(workspace, TREES[2])
    (workspace / "run").write_bytes(b"mine")
    (workspace / "e/mine").write_bytes(b"mine")
    with pytest.raises(WorkspaceConflict) as caught:
        rewind(root, sets, (), blobs)
    assert caught.value.details["paths"] == ["run"]
    (workspace / "run").write_bytes(b"r")
    with pytest.raises(WorkspaceConflict) as caught:
        rewind(root, sets, (), blobs)
    assert caught.value.details["paths"] == ["e/mine"], "it would go with its folder"
    assert not rewind(root, sets, {one.id for one in sets[:2]}, blobs).changes, "the folder stays"


def test_a_path_that_only_kept_steps_touched_must_be_as_they_left_it(
    root: Root, workspace: Path, blobs: BlobStore
) -> None:
    kept = trees.between({"f": File(b"1")}, {"f": File(b"2")}, blobs)
    later = trees.between({}, {"g": File(b"g")}, blobs)
    trees.write(workspace, {"f": File(b"mine"), "g": File(b"g")})
    with pytest.raises(WorkspaceConflict) as caught:
        rewind(root, [kept, later], {kept.id}, blobs)
    assert caught.value.details["paths"] == ["f"]


def test_a_kept_step_over_one_that_is_taken_back_is_refused(root: Root, workspace: Path, blobs: BlobStore) -> None:
    first = trees.between({"f": File(b"1"), "g": File(b"1")}, {"f": File(b"2"), "g": File(b"2")}, blobs)
    second = trees.between({"f": File(b"2")}, {"f": File(b"3")}, blobs)
    trees.write(workspace, {"f": File(b"3"), "g": File(b"2")})
    with pytest.raises(Conflict) as caught:
        rewind(root, [first, second], {second.id}, blobs)
    assert (caught.value.reason_code, caught.value.details["paths"]) == ("cannot_fork", ["f"])


def test_what_a_person_wrote_between_two_steps_comes_back_as_the_later_one_found_it(
    root: Root, workspace: Path, blobs: BlobStore
) -> None:
    first = trees.between({"f": File(b"1")}, {"f": File(b"2")}, blobs)
    second = trees.between({"f": File(b"person")}, {"f": File(b"3")}, blobs)
    trees.write(workspace, {"f": File(b"3")})
    apply(root, rewind(root, [first, second], {first.id}, blobs), blobs)
    assert (workspace / "f").read_bytes() == b"person"


def test_every_content_that_is_not_stored_is_named(
    root: Root, workspace: Path, blobs: BlobStore, sets: list[ChangeSet]
) -> None:
    trees.write(workspace, TREES[3])
    for node in (change.before for change in sets[0].changes):
        if node is not None and node.sha256 is not None:
            blobs.path_of(node.sha256).unlink(missing_ok=True)
    with pytest.raises(Conflict) as caught:
        rewind(root, sets, (), blobs)
    assert caught.value.reason_code == "cannot_fork"
    assert set(caught.value.details["paths"]) <= {"f", "run", "d/old"}
    assert caught.value.details["paths"]
