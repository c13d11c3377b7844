import os
import sys
from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox import probing, running
from stepgate.workspace.sandbox.advice import advice
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.levels import CANARIES, Level
from stepgate.workspace.sandbox.locate import Bubblewrap
from stepgate.workspace.sandbox.sandbox import Sandbox
from tests.workspace.sandbox.lab import Lab

# Takes bubblewrap's place and isolates nothing.
IMPOSTOR = """#!{python} -IS
import json, os, sys
options = open(3).read().split("\\0")
os.write(5, json.dumps({{"child-pid": os.getpid()}}).encode() + b"\\n")
os.read(6, 1)
environment = dict(zip(*[(options[n + 1] for n, o in enumerate(options) if o == "--setenv"),
                         (options[n + 2] for n, o in enumerate(options) if o == "--setenv")]))
argv = sys.argv[sys.argv.index("--") + 1:]
folders = {{options[n + 2]: options[n + 1] for n, o in enumerate(options) if o == "--bind"}}
os.chdir(folders.get("/workspace", "/"))
child = os.fork()
if child == 0:
    os.execvpe(argv[0], argv, environment)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os.write(5, json.dumps({{"exit-code": code}}).encode() + b"\\n")
os._exit(code if code >= 0 else 128 - code)
"""


async def test_every_canary_is_told_by_name_and_held(lab: Lab) -> None:
    assert {canary.name for canary in lab.sandbox.canaries} == CANARIES
    assert all(canary.passed and canary.detail for canary in lab.sandbox.canaries)
    assert lab.sandbox.level is Level.BWRAP_FULL
    assert lab.sandbox.degraded == ()


async def test_a_bubblewrap_that_isolates_nothing_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_PATIENCE_S", 1.0)
    programs = tmp_path / "programs"
    programs.mkdir()
    impostor = programs / "bwrap"
    impostor.write_text(IMPOSTOR.format(python=_reachable_python()))
    impostor.chmod(0o755)
    monkeypatch.setattr(probing, "candidates", lambda: iter([Bubblewrap(programs, "bwrap")]))
    with pytest.raises(SandboxUnavailable) as caught:
        await Sandbox.probe(levels=("bwrap-full",), state_dir=tmp_path / "state", python_prefix=Path("/usr"))
    for name in ("unix socket", "loopback", "other processes", "privileges", "nothing heard", "survivors"):
        assert name in caught.value.message
    assert caught.value.fix


def _reachable_python() -> str:
    # As root, the sandbox's user must be able to start it without a sandbox.
    return "/usr/bin/python3" if os.geteuid() == 0 else sys.executable


async def test_without_bubblewrap_there_is_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "candidates", lambda: iter(()))
    with pytest.raises(SandboxUnavailable, match="no bubblewrap"):
        await Sandbox.probe(state_dir=tmp_path)


async def test_a_bubblewrap_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    broken = programs / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(probing, "candidates", lambda: iter([Bubblewrap(programs, "bwrap")]))
    with pytest.raises(SandboxUnavailable, match="setting up uid map: Permission denied"):
        await Sandbox.probe(state_dir=tmp_path / "state")


@pytest.mark.parametrize("level", ["bwrap", "BWRAP-FULL", "none"])
async def test_an_unknown_level_is_refused(tmp_path: Path, level: str) -> None:
    with pytest.raises(InvalidValue, match="bwrap-full"):
        await Sandbox.probe(levels=(level,), state_dir=tmp_path)


async def test_no_level_is_no_sandbox(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable):
        await Sandbox.probe(levels=(), state_dir=tmp_path)


async def test_a_folder_can_be_shown_read_only_at_its_own_path(tmp_path: Path, lab: Lab) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "note").write_text("shown")
    layers = Layers(tmp_path / "state")
    sandbox = await Sandbox.probe(state_dir=tmp_path / "state", readonly=(tools,), layers=layers)
    with Root.open(lab.workspace) as root, layers.open(root) as layer:
        command = Command(("/bin/sh", "-c", f"cat {tools}/note; touch {tools}/x 2>/dev/null || echo refused"))
        finished = await sandbox.run(command, layer)
    assert finished.stdout == b"shownrefused\n"
    assert sandbox.resolve_executable(f"{tools}/note") is None


async def test_folders_that_hold_homes_or_the_state_are_not_shown(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for folder in (Path("/"), Path.home(), Path.home().parent, tmp_path, state, state / "layers"):
        folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(InvalidValue) as caught:
            await Sandbox.probe(state_dir=state, readonly=(folder,))
        assert caught.value.field == "readonly"
    link = tmp_path / "link"
    link.symlink_to(Path.home())
    with pytest.raises(InvalidValue):
        await Sandbox.probe(state_dir=state, readonly=(link,))
    with pytest.raises(InvalidValue):
        await Sandbox.probe(state_dir=state, readonly=(tmp_path / "nothing",))


async def test_probing_leaves_nothing_but_the_prepared_etc(tmp_path: Path) -> None:
    await Sandbox.probe(state_dir=tmp_path)
    left = _beneath(tmp_path)
    assert len(left) == 1
    assert left[0].startswith("sandbox/etc-")


def _beneath(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob("*/*")]


def test_there_is_always_an_advice() -> None:
    assert advice()
