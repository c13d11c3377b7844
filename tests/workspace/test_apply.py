import os
import stat
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepgate.domain.errors import IntegrityError, NotFound, PathRefused, StepgateError, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.apply import applied_state, apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Node
from stepgate.workspace.netundo import net_undo
from stepgate.workspace.opening import open_by_walk
from tests.workspace import trees
from tests.workspace.swapper import swapping
from tests.workspace.trees import File, Folder, Link, Tree

AS_ROOT = os.geteuid() == 0

BEFORE: Tree = {
    "kept": File(b"kept"),
    "edited": File(b"old", 0o640),
    "deleted": File(b"gone"),
    "made executable": File(b"#!/bin/sh\n"),
    "becomes a link": File(b"content"),
    "link": Link("kept"),
    "link that moves": Link("here"),
    "becomes a folder": File(b"file"),
    "becomes a file": Folder(),
    "becomes a file/child": File(b"child"),
    "tree": Folder(),
    "tree/a": Folder(),
    "tree/a/b": File(b"b"),
    "tree/c": Link("a/b"),
    "narrow": Folder(0o755),
    "narrow/file": File(b"1"),
    "read-only": Folder(0o555),
    "read-only/file": File(b"1"),
    "sealed": Folder(0o500),
    "sealed/gone": File(b"1"),
}
AFTER: Tree = {
    "kept": File(b"kept"),
    "edited": File(b"new and longer", 0o640, 1_600_000_000_123_456_789),
    "made executable": File(b"#!/bin/sh\n", 0o755),
    "becomes a link": Link("kept"),
    "link": File(b"no link now"),
    "link that moves": Link("there"),
    "becomes a folder": Folder(0o750),
    "becomes a folder/x": File(b"x", 0o600),
    "becomes a file": File(b"file now"),
    "new": Folder(0o555),
    "new/deep": Folder(0o700),
    "new/deep/file": File(b"deep"),
    "new/empty": File(b""),
    "narrow": Folder(0o555),
    "narrow/file": File(b"2"),
    "narrow/second": File(b"3"),
    "read-only": Folder(0o755),
    "read-only/file": File(b"2"),
}


def leftovers(workspace: Path) -> list[str]:
    return [path for path in trees.read(workspace) if ".stepgate" in path]


def test_everything_a_set_says_is_so_afterwards(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    assert applied_state(root, change_set)[0] == "before"
    done = apply(root, change_set, blobs)
    assert trees.read(workspace) == AFTER
    assert done.changed == change_set.paths
    assert done.already == ()
    assert applied_state(root, change_set)[0] == "after"


@pytest.mark.parametrize("path", ["edited", "kept"])
def test_a_file_that_somebody_saved_meanwhile_keeps_its_time(
    root: Root, workspace: Path, blobs: BlobStore, path: str
) -> None:
    trees.write(workspace, BEFORE)
    touched = {**AFTER, "kept": File(b"kept", mtime_ns=1_600_000_000_000_000_000)}
    change_set = trees.between(BEFORE, touched, blobs)

    def save(point: str) -> None:
        if point == "placed:edited":
            (workspace / "draft").write_bytes(b"the person's")
            (workspace / "draft").replace(workspace / path)

    began = time.time_ns() - 1_000_000_000
    apply(root, change_set, blobs, on_point=save)
    assert (workspace / path).read_bytes() == b"the person's"
    assert (workspace / path).stat().st_mtime_ns > began


def test_applying_again_changes_nothing(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    apply(root, change_set, blobs)
    times = {path: (workspace / path).lstat().st_ctime_ns for path in AFTER}
    done = apply(root, change_set, blobs)
    assert done.changed == ()
    assert done.already == change_set.paths
    assert {path: (workspace / path).lstat().st_ctime_ns for path in AFTER} == times


def test_without_openat2_the_result_is_the_same(workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, BEFORE)
    with Root.open(workspace, opener=open_by_walk) as root:
        apply(root, trees.between(BEFORE, AFTER, blobs), blobs)
    assert trees.read(workspace) == AFTER


def test_without_renameat2_the_result_is_the_same(
    root: Root, workspace: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepgate.workspace.syscalls._renameat2", None)
    trees.write(workspace, BEFORE)
    apply(root, trees.between(BEFORE, AFTER, blobs), blobs)
    assert trees.read(workspace) == AFTER


def test_without_syncfs_the_result_is_the_same(
    root: Root, workspace: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepgate.workspace.syscalls._syncfs", None)
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    blobs.sync()
    apply(root, change_set, blobs)
    assert trees.read(workspace) == AFTER


def refill(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CONFLICTS: list[tuple[str, Callable[[Path], object]]] = [
    ("edited", lambda w: (w / "edited").write_bytes(b"mine")),
    ("edited", lambda w: (w / "edited").write_bytes(b"OLD")),
    ("edited", lambda w: (w / "edited").chmod(0o600)),
    ("edited", lambda w: (w / "edited").unlink()),
    ("deleted", lambda w: (w / "deleted").write_bytes(b"still needed")),
    ("link that moves", lambda w: trees.relink(w / "link that moves", "mine")),
    ("tree/mine", lambda w: (w / "tree/mine").write_bytes(b"mine")),
    ("becomes a file/mine", lambda w: (w / "becomes a file/mine").mkdir()),
    ("new", lambda w: (w / "new").write_bytes(b"mine")),
    ("new", lambda w: (w / "new").mkdir(0o755)),
    ("becomes a link", lambda w: refill(w / "becomes a link")),
    ("narrow/second", lambda w: (w / "narrow/second").write_bytes(b"mine")),
    ("tree/\\xff", lambda w: Path(os.fsdecode(os.fsencode(w) + b"/tree/\xff")).write_bytes(b"mine")),
    ("narrow/file", lambda w: (w / "narrow").rename(w / "moved").with_name("narrow").symlink_to("moved")),
]


@pytest.mark.parametrize(("path", "meddle"), CONFLICTS)
def test_what_a_person_changed_meanwhile_stops_it_before_anything_is_written(
    root: Root, workspace: Path, blobs: BlobStore, path: str, meddle: Callable[[Path], object]
) -> None:
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    meddle(workspace)
    states = {entry: (workspace / entry).lstat() for entry in trees.read(workspace) if not entry.startswith("narrow/")}
    with pytest.raises(WorkspaceConflict) as caught:
        apply(root, change_set, blobs)
    assert path in caught.value.details["paths"]
    for entry, before in states.items():
        after = (workspace / entry).lstat()
        assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert applied_state(root, change_set)[0] == "conflict"
    assert leftovers(workspace) == []


def test_a_folder_that_vanished_is_a_conflict(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"d": Folder()})
    change_set = trees.between({"d": Folder()}, {"d": Folder(), "d/f": File(b"x")}, blobs)
    (workspace / "d").rmdir()
    with pytest.raises(WorkspaceConflict) as caught:
        apply(root, change_set, blobs)
    assert caught.value.details["paths"] == ["d"]


Save = Callable[[Path], object]


@pytest.mark.parametrize(
    ("path", "save"),
    [
        ("edited", lambda w: (w / "edited").write_bytes(b"saved in place")),
        ("edited", lambda w: ((w / "save").write_bytes(b"saved by renaming"), (w / "save").rename(w / "edited"))),
        ("deleted", lambda w: (w / "deleted").write_bytes(b"saved in place")),
        ("new", lambda w: (w / "new").mkdir()),
        ("fresh", lambda w: (w / "fresh").write_bytes(b"mine")),
        ("tree", lambda w: (w / "tree/mine").write_bytes(b"mine")),
        ("becomes a folder", lambda w: (w / "becomes a folder").write_bytes(b"mine")),
    ],
)
@pytest.mark.parametrize("has_renameat2", [True, False])
def test_a_save_after_the_check_survives(
    root: Root,
    workspace: Path,
    blobs: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    save: Save,
    has_renameat2: bool,
) -> None:
    if not has_renameat2:
        monkeypatch.setattr("stepgate.workspace.syscalls._renameat2", None)
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, {**AFTER, "fresh": File(b"theirs")}, blobs)
    saved: Tree = {}

    def person(point: str) -> None:
        nonlocal saved
        if point == "prepared":
            save(workspace)
            saved = trees.read(workspace)

    with pytest.raises(WorkspaceConflict) as caught:
        apply(root, change_set, blobs, on_point=person)
    assert caught.value.details["paths"] == [path]
    written = {entry: item for entry, item in saved.items() if (entry == path or entry.startswith(path + "/"))}
    now = trees.read(workspace)
    assert written.items() <= now.items() or path == "tree"
    assert now.get("tree/mine") == saved.get("tree/mine")
    assert leftovers(workspace) == []


def test_a_lost_blob_stops_it_before_anything_is_visible(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, BEFORE)
    change_set = trees.between(BEFORE, AFTER, blobs)
    lost = change_set.get("new/deep/file")
    assert lost is not None
    assert lost.after is not None
    assert lost.after.sha256 is not None
    blobs.path_of(lost.after.sha256).write_bytes(b"not")
    with pytest.raises(IntegrityError):
        apply(root, change_set, blobs)
    assert trees.read(workspace).keys() == BEFORE.keys()
    blobs.path_of(lost.after.sha256).unlink()
    with pytest.raises(NotFound):
        apply(root, change_set, blobs)
    assert applied_state(root, change_set)[0] in ("before", "mixed")
    assert leftovers(workspace) == []


@pytest.mark.skipif(AS_ROOT, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_refused_untouched(root: Root, workspace: Path, blobs: BlobStore) -> None:
    before: Tree = {"d": Folder(0o555), "d/f": File(b"1"), "g": File(b"1")}
    trees.write(workspace, before)
    change_set = trees.between(before, {**before, "d/f": File(b"2"), "g": File(b"2")}, blobs)
    with pytest.raises(PathRefused, match="'d'"):
        apply(root, change_set, blobs)
    assert trees.read(workspace) == before
    (workspace / "d").chmod(0o755)


@pytest.mark.skipif(not AS_ROOT, reason="only root writes for others")
def test_as_root_everything_stays_the_persons(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, BEFORE)
    for path in ("", *BEFORE):
        os.chown(workspace / path, 4242, 4343, follow_symlinks=False)
    os.chown(workspace / "edited", 5000, 5001)
    apply(root, trees.between(BEFORE, AFTER, blobs), blobs)
    for path in AFTER:
        found = (workspace / path).lstat()
        assert (found.st_uid, found.st_gid) == ((5000, 5001) if path == "edited" else (4242, 4343)), path


def test_set_group_id_of_a_folder_stays(root: Root, workspace: Path, blobs: BlobStore) -> None:
    before: Tree = {"d": Folder(0o755)}
    trees.write(workspace, before)
    (workspace / "d").chmod(0o2755)
    apply(root, trees.between(before, {"d": Folder(0o750), "d/f": File(b"x")}, blobs), blobs)
    assert stat.S_IMODE((workspace / "d").stat().st_mode) == 0o2750


def test_a_persons_attributes_of_a_replaced_file_stay(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"f": File(b"1")})
    try:
        os.setxattr(workspace / "f", "user.origin", b"scan")
    except OSError:
        pytest.skip("this file system has no attributes")
    apply(root, trees.between({"f": File(b"1")}, {"f": File(b"2")}, blobs), blobs)
    assert (workspace / "f").read_bytes() == b"2"
    assert os.getxattr(workspace / "f", "user.origin") == b"scan"


def test_only_a_time_that_differs_is_set(root: Root, workspace: Path, blobs: BlobStore) -> None:
    before: Tree = {"f": File(b"x", mtime_ns=1_500_000_000_000_000_000)}
    trees.write(workspace, before)
    after: Tree = {"f": File(b"x", mtime_ns=1_400_000_000_000_000_000)}
    inode = (workspace / "f").stat().st_ino
    apply(root, trees.between(before, after, blobs), blobs)
    assert trees.read(workspace) == after
    assert (workspace / "f").stat().st_ino == inode


def test_the_times_of_folders_are_those_recorded(root: Root, workspace: Path, blobs: BlobStore) -> None:
    change_set = ChangeSet.of(
        [
            Change("d", None, Node.folder(0o755, 1_300_000_000_000_000_000)),
            Change("d/e", None, Node.folder(0o755, 1_300_000_000_000_000_001)),
            Change("d/e/f", None, trees.node(File(b"x"), blobs)),
        ]
    )
    apply(root, change_set, blobs)
    assert (workspace / "d").stat().st_mtime_ns == 1_300_000_000_000_000_000
    assert (workspace / "d/e").stat().st_mtime_ns == 1_300_000_000_000_000_001


@pytest.mark.parametrize("sign", ["-", " ", "new\nline", "ü" * 127, "$(x)", "*"])
def test_hostile_names_are_only_names(root: Root, workspace: Path, blobs: BlobStore, sign: str) -> None:
    after: Tree = {sign: Folder(), f"{sign}/{sign}": File(b"x"), f"{sign}/l": Link(sign)}
    change_set = trees.between({}, after, blobs)
    apply(root, change_set, blobs)
    assert trees.read(workspace) == after
    apply(root, trees.between(after, {}, blobs), blobs)
    assert trees.read(workspace) == {}


def test_a_thousand_files_are_applied_and_undone(root: Root, workspace: Path, blobs: BlobStore) -> None:
    after: Tree = {
        **{f"d{number}": Folder() for number in range(10)},
        **{f"d{number % 10}/f{number}": File(str(number).encode() * 300) for number in range(1000)},
    }
    change_set = trees.between({}, after, blobs)
    assert len(apply(root, change_set, blobs).changed) == 1010
    assert trees.read(workspace) == after
    apply(root, net_undo(root, [change_set], blobs, "undo"), blobs)
    assert trees.read(workspace) == {}


def test_every_name_is_durable_before_it_says_so(
    root: Root, workspace: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, at_place = list[str](), list[str]()

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr("stepgate.workspace.apply.fsync", fsync)
    monkeypatch.setattr("stepgate.workspace.placing.fsync", fsync)
    trees.write(workspace, {"f": File(b"1")})
    change_set = trees.between({"f": File(b"1")}, {"f": File(b"2"), "d": Folder(), "d/g": File(b"3")}, blobs)

    def watch(point: str) -> None:
        if point == "folder:d":
            at_place.extend(synced)

    apply(root, change_set, blobs, on_point=watch)
    base = str(workspace)
    assert len(at_place) == 2
    assert all(name.startswith(f"{base}/.stepgate-{change_set.id}-") for name in at_place)
    assert set(synced[2:]) == {base, f"{base}/d"}


def test_swapping_a_folder_for_a_link_writes_nothing_outside(
    root: Root, workspace: Path, tmp_path: Path, blobs: BlobStore
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"1")
    (workspace / "d").mkdir()
    (workspace / "d/f").write_bytes(b"1")
    (workspace / "link").symlink_to(outside)
    one, two = (Node.file(blobs.put(data), 1, 0o644) for data in (b"1", b"2"))
    (workspace / "d/f").chmod(0o644)
    (outside / "f").chmod(0o644)
    outcomes = {"applied": 0, "refused": 0}
    with swapping(workspace):
        end = time.monotonic() + 1.0
        latest = end + 10
        while time.monotonic() < end or (0 in outcomes.values() and time.monotonic() < latest):
            for before, after in ((one, two), (two, one)):
                change_set = ChangeSet.of([Change("d/f", before, after)])
                try:
                    apply(root, change_set, blobs)
                    outcomes["applied"] += 1
                except StepgateError:
                    outcomes["refused"] += 1
            assert trees.read(outside).keys() == {"f"}
            assert (outside / "f").read_bytes() == b"1"
    assert all(outcomes.values()), outcomes


names = st.sampled_from(["a", "b", "c"])
leaves = st.one_of(
    st.builds(File, st.binary(max_size=3), st.sampled_from([0o644, 0o755, 0o600])),
    st.builds(Link, st.sampled_from(["a", "../b", "/etc"])),
)
nested = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8)
tree_strategy = st.dictionaries(names, nested, max_size=3)


def flatten(drawn: dict[str, object], prefix: str = "") -> dict[str, File | Folder | Link]:
    found = dict[str, File | Folder | Link]()
    for name, item in drawn.items():
        path = prefix + name
        if isinstance(item, dict):
            found[path] = Folder()
            found.update(flatten(item, path + "/"))
        elif isinstance(item, File | Link):
            found[path] = item
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tree_strategy, min_size=2, max_size=4))
def test_any_sequence_of_sets_is_applied_and_taken_back_as_one(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[dict[str, object]]
) -> None:
    base = tmp_path_factory.mktemp("any")
    blobs = BlobStore(base / "blobs")
    workspace = base / "workspace"
    workspace.mkdir()
    states = [flatten(one) for one in drawn]
    trees.write(workspace, states[0])
    applied = list[ChangeSet]()
    with Root.open(workspace) as root:
        for before, after in pairwise(states):
            applied.append(trees.between(before, after, blobs))
            apply(root, applied[-1], blobs)
            assert trees.read(workspace) == after
        undo = net_undo(root, applied, blobs, "undo")
        apply(root, undo, blobs)
        assert trees.read(workspace) == states[0]
        apply(root, net_undo(root, [undo], blobs, "redo"), blobs)
        assert trees.read(workspace) == states[-1]
