import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import Capture
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.limits import Limits
from tests.workspace.sandbox.lab import Lab
from tests.workspace.trees import File, Folder, write


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("mkfifo bad", "bad"),
        ("mkdir d; mkfifo d/bad", "d/bad"),
        ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"bad\")'", "bad"),
        ('python3 -c \'open(b"bad\\xff", "w")\'', "bad\\xff"),
        ('python3 -c \'import os; os.symlink(b"\\xff", "bad")\'', "bad"),
        ("mkdir .git", ".git"),
        ("mkdir -p sub/.git; echo x > sub/.git/config", "sub/.git"),
        ("mkdir .GIT", ".GIT"),
        ("ln -s /etc .git", ".git"),
        ("mkdir -p $(printf 'd/%.0s' $(seq 65))", "d/d/d"),
        ("head -c 3000000 /dev/zero > bad", "bad"),
        ("truncate -s 3000000 bad", "bad"),
        ("for i in 1 2 3; do head -c 900000 /dev/zero > bad$i; done", "bad"),
        ("mkdir bad; for i in $(seq 60); do touch bad/$i; done", "bad"),
    ],
)
async def test_what_cannot_be_in_a_change_set_is_refused_by_name(lab: Lab, script: str, named: str) -> None:
    limits = Limits(written_bytes=2_000_000, file_bytes=4_000_000, files=50)
    with lab.layer() as layer:
        command = Command(("/bin/sh", "-c", script), limits=Limits(file_bytes=4_000_000))
        finished = await lab.sandbox.run(command, layer)
        assert finished.exit_code == 0, finished
        with pytest.raises(ChangeRefused) as caught:
            harvest(layer, layer.root, lab.blobs, limits)
    assert named in str(caught.value)
    assert list(lab.workspace.iterdir()) == []


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
async def test_a_set_id_file_is_refused_although_no_command_can_make_one(lab: Lab, mode: int) -> None:
    with lab.layer() as layer:
        made = os.open("bad", os.O_CREAT | os.O_WRONLY, dir_fd=layer.written)
        os.fchmod(made, mode)
        os.close(made)
        with pytest.raises(ChangeRefused, match="bad"):
            harvest(layer, layer.root, lab.blobs, Limits())


async def test_a_repository_inside_the_workspace_cannot_be_changed(lab: Lab) -> None:
    write(lab.workspace, {"sub": Folder(), "sub/.git": Folder(), "sub/.git/config": File(b"[core]\n")})
    for script in (
        "echo evil >> sub/.git/config",
        "rm sub/.git/config",
        "rm -r sub",
        "mv sub/.git x",
        "chmod 600 sub/.git/config",
    ):
        with pytest.raises(ChangeRefused, match=r"\.git"):
            await lab.change(script)


async def test_reading_a_repository_inside_the_workspace_is_no_change(lab: Lab) -> None:
    write(lab.workspace, {"sub": Folder(), "sub/.git": Folder(), "sub/.git/config": File(b"[core]\n")})
    changes = await lab.change("cat sub/.git/config > sub/copy; touch sub/.git")
    assert changes.paths == ("sub/copy",)


async def test_deleting_what_cannot_be_brought_back_is_refused(lab: Lab) -> None:
    if lab.layers.probe().capture is Capture.COPY:
        pytest.skip("a copy leaves pipes out, so a command cannot delete them")
    os.mkfifo(lab.workspace / "pipe")
    with pytest.raises(ChangeRefused, match="pipe"):
        await lab.change("rm pipe")


async def test_pipes_and_sockets_of_the_person_do_not_disturb(lab: Lab) -> None:
    os.mkfifo(lab.workspace / "pipe")
    assert (await lab.change("echo x > f")).paths == ("f",)


async def test_strange_times_are_recorded_within_bounds(lab: Lab) -> None:
    changes = await lab.change("touch -d '1902-01-01' old; touch -d '2400-01-01' new; touch -d @-1 before")
    assert changes.paths == ("before", "new", "old")
    for change in changes.changes:
        assert change.after is not None
        assert 0 <= change.after.mtime_ns < 2**63
    assert changes.digest


async def test_attributes_that_look_like_an_overlays_are_not_believed(lab: Lab) -> None:
    write(lab.workspace, {"d": Folder(), "d/kept": File(b"kept"), "f": File(b"f")})
    script = (
        "import os\nopen('d/new', 'w').close()\nopen('f', 'a').write('x')\n"
        "for path in ('d', 'f'):\n  for name in ('opaque', 'whiteout', 'redirect', 'metacopy', 'origin'):\n"
        "    try: os.setxattr(path, f'user.overlay.{name}', b'y')\n    except OSError: pass\n"
        "try: os.mknod('f2', 0o020000, 0)\nexcept OSError: pass\n"
    )
    with lab.layer() as layer:
        await lab.sandbox.run(Command(("python3", "-c", script)), layer)
        changes = harvest(layer, layer.root, lab.blobs, Limits())
    assert changes.paths == ("d/new", "f")


async def test_a_tree_of_any_depth_is_thrown_away(lab: Lab) -> None:
    script = "import os\nfor n in range(1500): os.mkdir('d' * 20); os.chdir('d' * 20); open('f', 'w').close()\n"
    script += "os.chmod('.', 0)"
    with lab.layer() as layer:
        finished = await lab.sandbox.run(Command(("python3", "-c", script)), layer)
        assert finished.exit_code == 0, finished
        with pytest.raises(ChangeRefused, match="deep"):
            harvest(layer, layer.root, lab.blobs, Limits())
        folder = lab.layers.path / layer.id
        assert folder.exists()
    assert not folder.exists()


async def test_a_refused_harvest_blocks_on_nothing_and_leaves_nothing(
    labs: Callable[[Capture], Lab], tmp_path: Path
) -> None:
    """A pipe put in the place of a file is named, never opened."""
    lab = labs(Capture.OVERLAY)
    blobs = BlobStore(tmp_path / "blobs")
    write(tmp_path, {"w": Folder(), "w/f": File(b"f")})
    with Root.open(tmp_path / "w") as root:
        with lab.layers.open(root) as layer:
            await lab.sandbox.run(Command(("/bin/sh", "-c", "rm f; mkfifo f")), layer)
            with pytest.raises(ChangeRefused, match="'f'"):
                harvest(layer, root, blobs, Limits())
        assert root.read("f", 10).data == b"f"
