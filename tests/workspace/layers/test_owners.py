"""A worker that is root: commands run as somebody who owns nothing, over files of anybody."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.workspace.changes import Op
from stepgate.workspace.layers.layer import Capture
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.launch import SANDBOX_UID
from tests.workspace.sandbox.lab import Lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have files of several owners")

SCRIPT = """
set -e
cat secret; echo more >> secret; echo more >> closed/inner; echo new > closed/new; rm deleted; mkdir made
stat -c '%U %G' secret closed .
"""


@pytest.fixture(params=[0, 1000, SANDBOX_UID])
def owned(request: pytest.FixtureRequest, workspace: Path) -> tuple[Path, int]:
    """A workspace below a folder that only its owner can enter."""
    closed_above = workspace / "home"
    base = closed_above / "project"
    (base / "closed").mkdir(parents=True)
    for name, mode in (("secret", 0o600), ("closed/inner", 0o600), ("deleted", 0o644)):
        (base / name).write_text(f"{name}\n")
        (base / name).chmod(mode)
    (base / "closed").chmod(0o700)
    for path in (closed_above, base, *base.rglob("*")):
        os.chown(path, request.param, request.param)
    closed_above.chmod(0o700)
    base.chmod(0o700)
    return base, request.param


async def test_a_command_can_change_files_of_any_owner_of_the_workspace(lab: Lab, owned: tuple[Path, int]) -> None:
    base, owner = owned
    lab = replace(lab, workspace=base)
    with lab.layer() as layer:
        assert layer.capture is lab.layers.probe().capture
        finished = await lab.sandbox.run(Command(("/bin/sh", "-c", SCRIPT)), layer)
    assert finished.stderr == b""
    assert finished.stdout == b"secret\nsandbox sandbox\nsandbox sandbox\nsandbox sandbox\n"
    changes = await lab.change(SCRIPT.replace("cat secret", "cat secret >/dev/null"))
    assert {change.path: change.op for change in changes.changes} == {
        "secret": Op.MODIFY,
        "closed/inner": Op.MODIFY,
        "closed/new": Op.CREATE,
        "deleted": Op.DELETE,
        "made": Op.CREATE,
    }
    secret = changes.get("secret")
    assert secret is not None
    assert secret.after is not None
    assert lab.blobs.get(secret.after.sha256 or "") == b"secret\nmore\n"
    assert secret.after.mode == 0o600
    assert (base / "secret").read_text() == "secret\n"
    assert (base / "secret").stat().st_uid == owner


async def test_files_of_a_third_person_keep_their_protection(labs: Callable[[Capture], Lab], workspace: Path) -> None:
    for name, owner, mode in (("theirs", 2000, 0o600), ("roots", 0, 0o600), ("open", 2000, 0o644)):
        (workspace / name).write_text(name)
        (workspace / name).chmod(mode)
        os.chown(workspace / name, owner, owner)
    os.chown(workspace, 1000, 1000)
    finished = await replace(labs(Capture.OVERLAY), workspace=workspace).shell("cat open; cat theirs; cat roots")
    assert finished.stdout == b"open"
    assert finished.stderr.count(b"Permission denied") == 2


async def test_a_command_is_nobody_on_the_host(lab: Lab) -> None:
    with lab.layer() as layer:
        await lab.sandbox.run(Command(("/bin/sh", "-c", "touch made /tmp/made")), layer)
        made = (os.stat("made", dir_fd=layer.written), os.stat("tmp/made", dir_fd=layer.scratch))
    assert [(found.st_uid, found.st_gid) for found in made] == [(SANDBOX_UID, SANDBOX_UID)] * 2


async def test_nobody_else_on_the_host_comes_to_what_a_command_makes(lab: Lab) -> None:
    with lab.layer() as layer:
        await lab.sandbox.run(Command(("/bin/sh", "-c", "echo x > made; chmod 666 made")), layer)
        for name in ("upper", "copy", "scratch/tmp"):
            seen = await asyncio.to_thread(_list_as_another, lab.layers.path / layer.id / name)
            assert "Permission denied" in seen


def _list_as_another(path: Path) -> str:
    return subprocess.run(
        ["/bin/ls", path], user=1000, group=1000, extra_groups=[], capture_output=True, text=True, check=False
    ).stderr
