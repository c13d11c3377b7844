import os
import stat
from pathlib import Path

from stepgate.workspace.changes import Change, ChangeSet, Kind, Op
from tests.workspace.sandbox.lab import Lab
from tests.workspace.trees import File, Folder, Link, Tree, read, write


def _ops(changes: ChangeSet) -> dict[str, Op]:
    return {change.path: change.op for change in changes.changes}


def _only(changes: ChangeSet) -> Change:
    assert len(changes.changes) == 1, changes
    return changes.changes[0]


async def test_a_command_that_changes_nothing_gives_an_empty_set(lab: Lab) -> None:
    write(lab.workspace, {"a": File(b"a"), "d": Folder(), "d/b": File(b"b"), "l": Link("a")})
    assert (await lab.change("cat a d/b >/dev/null; ls -R >/dev/null")).changes == ()


async def test_a_new_file_has_no_before_and_its_content_as_after(lab: Lab) -> None:
    change = _only(await lab.change("umask 027; printf hello > new"))
    assert change.path == "new"
    assert change.before is None
    assert change.after is not None
    assert (change.after.kind, change.after.mode, change.after.size) == (Kind.FILE, 0o640, 5)
    assert lab.blobs.get(change.after.sha256 or "") == b"hello"


async def test_an_edited_file_has_both_contents(lab: Lab) -> None:
    write(lab.workspace, {"f": File(b"old\n", 0o600, 1_600_000_000_000_000_007)})
    change = _only(await lab.change("echo new >> f"))
    assert change.before is not None
    assert change.after is not None
    assert (change.before.mode, change.before.mtime_ns) == (0o600, 1_600_000_000_000_000_007)
    assert lab.blobs.get(change.before.sha256 or "") == b"old\n"
    assert lab.blobs.get(change.after.sha256 or "") == b"old\nnew\n"
    assert change.after.mtime_ns > change.before.mtime_ns


async def test_a_deleted_file_keeps_its_content_as_before(lab: Lab) -> None:
    write(lab.workspace, {"f": File(b"precious")})
    change = _only(await lab.change("rm f"))
    assert change.after is None
    assert change.before is not None
    assert lab.blobs.get(change.before.sha256 or "") == b"precious"


async def test_a_file_replaced_by_renaming_over_it_is_a_modification(lab: Lab) -> None:
    write(lab.workspace, {"f": File(b"old")})
    change = _only(await lab.change("printf new > .f.tmp; mv .f.tmp f"))
    assert (change.path, change.op) == ("f", Op.MODIFY)


async def test_a_rename_is_a_deletion_and_a_creation(lab: Lab) -> None:
    write(lab.workspace, {"old": File(b"same")})
    changes = await lab.change("mv old new")
    assert _ops(changes) == {"old": Op.DELETE, "new": Op.CREATE}


async def test_a_mode_alone_is_a_change(lab: Lab) -> None:
    write(lab.workspace, {"run": File(b"#!/bin/sh\n"), "d": Folder()})
    changes = await lab.change("chmod 755 run; chmod 700 d")
    assert [(c.path, c.before and c.before.mode, c.after and c.after.mode) for c in changes.changes] == [
        ("d", 0o755, 0o700),
        ("run", 0o644, 0o755),
    ]


async def test_touching_or_writing_the_same_bytes_is_no_change(lab: Lab) -> None:
    write(lab.workspace, {"a": File(b"a\n"), "b": File(b"b\n"), "d": Folder(), "d/c": File(b"c\n")})
    script = "touch a; echo b > b; cp d/c x; mv x d/c; chmod 600 a; chmod 644 a; touch d; mkdir n; rmdir n"
    assert (await lab.change(script)).changes == ()


async def test_folders_are_recorded_with_what_is_in_them(lab: Lab) -> None:
    changes = await lab.change("mkdir -p a/b/empty; echo x > a/b/f")
    assert _ops(changes) == {"a": Op.CREATE, "a/b": Op.CREATE, "a/b/empty": Op.CREATE, "a/b/f": Op.CREATE}


async def test_a_deleted_folder_is_recorded_with_all_that_was_in_it(lab: Lab) -> None:
    write(lab.workspace, {"d": Folder(), "d/e": Folder(), "d/e/f": File(b"f"), "d/l": Link("/nowhere")})
    changes = await lab.change("rm -r d")
    assert _ops(changes) == dict.fromkeys(("d", "d/e", "d/e/f", "d/l"), Op.DELETE)
    link = changes.get("d/l")
    assert link is not None
    assert link.before is not None
    assert link.before.target == "/nowhere"


async def test_a_folder_deleted_and_made_again_holds_only_what_is_new(lab: Lab) -> None:
    write(
        lab.workspace, {"d": Folder(), "d/kept": File(b"k"), "d/gone": File(b"g"), "d/sub": Folder(), "d/sub/x": File()}
    )
    changes = await lab.change("cp -p d/kept k; rm -r d; mkdir d; cp -p k d/kept; rm k; echo new > d/new")
    assert _ops(changes) == {"d/gone": Op.DELETE, "d/new": Op.CREATE, "d/sub": Op.DELETE, "d/sub/x": Op.DELETE}


async def test_a_folder_that_becomes_a_file_and_the_reverse(lab: Lab) -> None:
    write(lab.workspace, {"d": Folder(), "d/x": File(b"x"), "f": File(b"f")})
    changes = await lab.change("rm -r d; echo file > d; rm f; mkdir f; echo y > f/y")
    assert _ops(changes) == {"d": Op.MODIFY, "d/x": Op.DELETE, "f": Op.MODIFY, "f/y": Op.CREATE}


async def test_links_are_recorded_by_their_text_and_never_followed(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    write(lab.workspace, {"old": Link("a"), "becomes": File(b"x")})
    changes = await lab.change(f"ln -sfn b old; ln -s {tmp_path}/secret new; rm becomes; ln -s / becomes")
    targets = {change.path: change.after.target for change in changes.changes if change.after is not None}
    assert targets == {"old": "b", "new": f"{tmp_path}/secret", "becomes": "/"}


async def test_a_file_changed_through_a_link_inside_is_the_one_recorded(lab: Lab) -> None:
    write(lab.workspace, {"f": File(b"old"), "l": Link("f")})
    assert _ops(await lab.change("echo new > l")) == {"f": Op.MODIFY}


async def test_names_need_not_be_simple(lab: Lab) -> None:
    names = [" ", "a b", "ü", "日本", "'quoted\"", "-rf", "*", "new\nline", "x" * 255, ".hidden", "back\\slash"]
    for name in names:
        (lab.workspace / name).write_text("old")
    changes = await lab.change('for f in .hidden *; do echo new > "./$f"; done')
    assert _ops(changes) == dict.fromkeys(names, Op.MODIFY)


async def test_hard_links_are_recorded_as_files_of_their_own(lab: Lab) -> None:
    changes = await lab.change("echo x > a; ln a b")
    assert _ops(changes) == {"a": Op.CREATE, "b": Op.CREATE}


async def test_files_their_owner_may_not_read_are_recorded_with_their_mode(lab: Lab) -> None:
    changes = await lab.change("echo x > f; chmod 0 f; mkdir d; echo y > d/g; chmod 0 d; echo z > w; chmod 200 w")
    modes = {change.path: change.after.mode for change in changes.changes if change.after is not None}
    assert modes == {"f": 0, "d": 0, "d/g": 0o644, "w": 0o200}


async def test_the_persons_files_keep_every_byte_and_time(lab: Lab) -> None:
    tree: Tree = {
        "a": File(b"a"),
        "d": Folder(0o750),
        "d/b": File(b"b", 0o600),
        "l": Link("a"),
        "gone": File(b"gone"),
    }
    write(lab.workspace, tree)
    times = {path: os.lstat(lab.workspace / path).st_ctime_ns for path in tree}
    await lab.change("echo x > a; rm gone; rm -r d; ln -sfn b l; mkdir n; chmod 700 .")
    assert read(lab.workspace) == dict(tree)
    assert {path: os.lstat(lab.workspace / path).st_ctime_ns for path in tree} == times


async def test_the_command_sees_modes_owners_times_and_links_as_they_are(lab: Lab) -> None:
    write(lab.workspace, {"f": File(b"f", 0o640, 1_650_000_000_000_000_000), "d": Folder(0o710), "l": Link("../x")})
    finished = await lab.shell("stat -c '%n %a %U %Y %s' f; stat -c '%n %a %U' d .; readlink l")
    mode = stat.S_IMODE(lab.workspace.stat().st_mode)
    lines = ["f 640 sandbox 1650000000 1", "d 710 sandbox", f". {mode:o} sandbox", "../x"]
    assert finished.stdout.decode().splitlines() == lines


async def test_a_large_tree_changes_whole(lab: Lab) -> None:
    (lab.workspace / "many").mkdir()
    for number in range(600):
        (lab.workspace / "many" / f"{number}").write_text(str(number))
    script = "cd many; for i in $(seq 0 2 598); do echo new > $i; done; for i in $(seq 1 2 599); do rm $i; done"
    changes = await lab.change(script)
    assert len(changes.changes) == 600
    assert sum(change.op is Op.DELETE for change in changes.changes) == 300
