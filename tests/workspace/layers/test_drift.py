import os
import shutil
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused, StepgateError, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace.access import Root
from tests.workspace.sandbox.lab import Lab
from tests.workspace.trees import File, Folder, write


def _start(lab: Lab) -> Path:
    write(
        lab.workspace,
        {
            "edited": File(b"one\n"),
            "deleted": File(b"two\n"),
            "other": File(b"three\n"),
            "d": Folder(),
            "d/inner": File(b"four\n"),
            "gone": Folder(),
            "gone/x": File(b"x"),
        },
    )
    return lab.workspace


SCRIPT = "echo more >> edited; rm deleted; rm -r gone; echo new > created; echo more >> d/inner"


async def test_without_somebody_else_there_is_no_drift(lab: Lab) -> None:
    _start(lab)
    assert (await lab.change(SCRIPT)).paths == ("created", "d/inner", "deleted", "edited", "gone", "gone/x")


async def test_changes_of_other_paths_are_no_drift(lab: Lab) -> None:
    base = _start(lab)

    def person() -> None:
        (base / "other").write_text("theirs")
        (base / "d" / "theirs").write_text("theirs")
        (base / "theirs").mkdir()

    assert len((await lab.change(SCRIPT, person)).changes) == 6


def _same_size_and_time(base: Path) -> None:
    before = (base / "edited").stat()
    (base / "edited").write_text("ONE\n")
    os.utime(base / "edited", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("person", "path"),
    [
        (lambda base: (base / "edited").write_text("theirs, longer"), "edited"),
        (_same_size_and_time, "edited"),
        (lambda base: (base / "edited").unlink(), "edited"),
        (lambda base: (base / "edited").chmod(0o600), "edited"),
        (lambda base: ((base / "edited").unlink(), (base / "edited").mkdir()), "edited"),
        (lambda base: ((base / "edited").unlink(), (base / "edited").symlink_to("other")), "edited"),
        (lambda base: (base / "deleted").write_text("still needed"), "deleted"),
        (lambda base: (base / "created").write_text("theirs"), "created"),
        (lambda base: (base / "gone" / "x").write_text("still needed"), "gone/x"),
        (lambda base: (base / "gone" / "new").write_text("just made"), "gone"),
        (lambda base: shutil.rmtree(base / "d"), "d/inner"),
        (lambda base: ((base / "d").rename(base / "moved"), (base / "d").symlink_to("moved")), "d/inner"),
    ],
)
async def test_a_path_changed_by_somebody_else_meanwhile_is_named(lab: Lab, person: object, path: str) -> None:
    base = _start(lab)
    assert callable(person)
    with pytest.raises(WorkspaceConflict) as caught:
        await lab.change(SCRIPT, lambda: person(base))
    assert caught.value.reason_code == "drifted"
    assert any(name.startswith(path) for name in caught.value.details["paths"]), caught.value.details


async def test_what_somebody_else_also_deleted_needs_no_deletion(lab: Lab) -> None:
    base = _start(lab)
    assert "deleted" not in (await lab.change(SCRIPT, (base / "deleted").unlink)).paths


async def test_a_file_renamed_by_the_command_is_no_drift_when_others_make_files_beside_it(lab: Lab) -> None:
    base = _start(lab)
    changes = await lab.change("mv d/inner d/renamed")
    assert changes.paths == ("d/inner", "d/renamed")
    assert (base / "d/inner").exists()


async def test_a_workspace_removed_meanwhile_is_not_harvested(lab: Lab) -> None:
    base = _start(lab)
    with pytest.raises(StepgateError):
        await lab.change(SCRIPT, lambda: shutil.rmtree(base))


async def test_a_workspace_that_was_replaced_is_not_opened(lab: Lab) -> None:
    base = _start(lab)
    with Root.open(base) as root:
        base.rename(base.with_name("moved"))
        base.mkdir()
        with lab.layers.open(root) as layer:
            assert layer.root is root
        shutil.rmtree(base.with_name("moved"))
        with pytest.raises(WorkspaceUnavailable), lab.layers.open(root):
            pass


async def test_drift_wins_over_nothing_else(lab: Lab) -> None:
    base = _start(lab)
    with pytest.raises(ChangeRefused):
        await lab.change("mkfifo pipe; echo x >> edited", lambda: (base / "edited").write_text("theirs"))


async def test_a_link_that_gives_way_to_a_folder_with_files_is_no_drift(lab: Lab) -> None:
    base = _start(lab)
    (base / "link").symlink_to("d")
    changes = await lab.change("rm link; mkdir -p link/sub; echo x > link/x; mv other link/sub/moved")
    assert changes.paths == ("link", "link/sub", "link/sub/moved", "link/x", "other")


async def test_a_link_changed_by_somebody_else_is_drift_although_a_folder_took_its_place(lab: Lab) -> None:
    base = _start(lab)
    (base / "link").symlink_to("d")

    def person() -> None:
        (base / "link").unlink()
        (base / "link").symlink_to("gone")

    with pytest.raises(WorkspaceConflict) as caught:
        await lab.change("rm link; mkdir link; echo x > link/x", person)
    assert caught.value.reason_code == "drifted"
    assert caught.value.details["paths"] == ["link"]
