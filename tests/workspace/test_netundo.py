from pathlib import Path

import pytest

from stepgate.domain.errors import IntegrityError, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet
from stepgate.workspace.netundo import combine, net_undo
from tests.workspace import trees
from tests.workspace.trees import File, Folder, Tree

START: Tree = {"f": File(b"1"), "d": Folder(), "d/old": File(b"old")}
MIDDLE: Tree = {"f": File(b"2"), "d": Folder(), "d/old": File(b"old"), "d/new": File(b"n")}
END: Tree = {"f": File(b"3"), "e": Folder(), "e/x": File(b"x")}


@pytest.fixture
def applied(root: Root, workspace: Path, blobs: BlobStore) -> list[ChangeSet]:
    trees.write(workspace, START)
    sets = [trees.between(START, MIDDLE, blobs), trees.between(MIDDLE, END, blobs)]
    for one in sets:
        apply(root, one, blobs)
    return sets


def test_everything_is_taken_back_in_one_set(
    root: Root, workspace: Path, blobs: BlobStore, applied: list[ChangeSet]
) -> None:
    undo = net_undo(root, applied, blobs, "the id")
    assert undo.id == "the id"
    assert undo.paths == ("d", "d/old", "e", "e/x", "f")
    apply(root, undo, blobs)
    assert trees.read(workspace) == START


def test_the_last_step_alone_is_taken_back(
    root: Root, workspace: Path, blobs: BlobStore, applied: list[ChangeSet]
) -> None:
    apply(root, net_undo(root, applied[1:], blobs, "undo"), blobs)
    assert trees.read(workspace) == MIDDLE


def test_an_undo_is_undone_like_any_other_set(
    root: Root, workspace: Path, blobs: BlobStore, applied: list[ChangeSet]
) -> None:
    undo = net_undo(root, applied, blobs, "undo")
    apply(root, undo, blobs)
    apply(root, net_undo(root, [undo], blobs, "redo"), blobs)
    assert trees.read(workspace) == END


def test_a_person_who_wrote_afterwards_is_asked(
    root: Root, workspace: Path, blobs: BlobStore, applied: list[ChangeSet]
) -> None:
    (workspace / "f").write_bytes(b"mine")
    (workspace / "e/mine").write_bytes(b"mine")
    with pytest.raises(WorkspaceConflict) as caught:
        net_undo(root, applied, blobs, "undo")
    assert caught.value.details["paths"] == ["f"]
    (workspace / "f").write_bytes(b"3")
    with pytest.raises(WorkspaceConflict) as caught:
        net_undo(root, applied, blobs, "undo")
    assert caught.value.details["paths"] == ["e/mine"]


def test_a_file_that_the_steps_changed_back_and_a_person_changed_since_is_a_conflict(
    root: Root, workspace: Path, blobs: BlobStore
) -> None:
    trees.write(workspace, {"f": File(b"1")})
    there = trees.between({"f": File(b"1")}, {"f": File(b"2")}, blobs)
    back = trees.between({"f": File(b"2")}, {"f": File(b"1")}, blobs)
    assert net_undo(root, [there, back], blobs, "undo").changes == ()
    (workspace / "f").write_bytes(b"9")
    with pytest.raises(WorkspaceConflict):
        net_undo(root, [there, back], blobs, "undo")


def test_a_lost_pre_image_is_said_before_anything_is_shown(
    root: Root, blobs: BlobStore, applied: list[ChangeSet]
) -> None:
    blobs.path_of(blobs.put(b"old")).unlink()
    with pytest.raises(IntegrityError, match="1 of the files"):
        net_undo(root, applied, blobs, "undo")


def test_sets_combine_to_what_they_did_together(blobs: BlobStore) -> None:
    first, second = trees.between(START, MIDDLE, blobs), trees.between(MIDDLE, END, blobs)
    assert combine([first, second]).changes == trees.between(START, END, blobs).changes
    assert combine([first, trees.between(MIDDLE, START, blobs)]).changes == ()
    assert combine([]).changes == ()


def test_a_folder_that_a_person_made_anew_between_two_sets_does_not_break_the_sum(blobs: BlobStore) -> None:
    gone = trees.between({"d": Folder()}, {}, blobs)
    inside = ChangeSet.of([Change("d/f", None, trees.node(File(b"x"), blobs))])
    assert combine([gone, inside]).paths == ("d/f",)
