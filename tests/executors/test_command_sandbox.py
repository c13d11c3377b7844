"""What the strength of the sandbox means to a command, its approver and the worker that would run it."""

from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.domain.errors import SandboxUnavailable
from stepgate.domain.plan_faults import check_params
from stepgate.executors.base import Done
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.run_command import RunCommand
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.sandbox import Sandbox
from tests.executors.bench import Bench

RUN = RunCommand()


async def _at(bench: Bench, level: Level, state: Path) -> Bench:
    layers = Layers(state)
    return replace(bench, layers=layers, sandbox=await Sandbox.probe(levels=(level,), state_dir=state, layers=layers))


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


async def test_a_weaker_worker_refuses_before_anything_starts(bench: Bench, state: Path) -> None:
    weak = await _at(bench, Level.BWRAP_NOPROC, state)
    given = {"command": "echo started > f", "sandbox": "bwrap-full"}
    for attempt in (weak.prepare, weak.execute):
        with pytest.raises(SandboxUnavailable, match="weaker than bwrap-full") as caught:
            await attempt(RUN, given)
        assert (caught.value.field, bool(caught.value.fix)) == ("sandbox", True)
    assert weak.output == []
    done = await weak.execute(RUN, {"command": "echo started > f", "sandbox": "landlock-seccomp"})
    assert isinstance(done, Done)
    assert done.output["level"] == "bwrap-noproc"


async def test_the_least_level_is_shown_and_part_of_what_is_approved(bench: Bench, state: Path) -> None:
    weak = await _at(bench, Level.BWRAP_NOPROC, state)
    plain = await bench.prepare(RUN, {"command": "true"})
    assert plain.rendering["sandbox"] == {"level": "bwrap-full", "network": "none"}
    assert plain.action["sandbox"] == "bwrap-full"
    assert (await weak.prepare(RUN, {"command": "true"})).action != plain.action
    asked = {"command": "true", "sandbox": "bwrap-noproc"}
    here, there = await bench.prepare(RUN, asked), await weak.prepare(RUN, asked)
    assert here.action == there.action != plain.action
    assert here.rendering["sandbox"] == {"level": "bwrap-full", "network": "none", "least": "bwrap-noproc"}
    assert (here.reach is not None, here.reach and here.reach.sandbox_level) == (True, "bwrap-full")


async def test_without_a_sandbox_the_approver_is_told_loudly(bench: Bench, state: Path) -> None:
    bare = await _at(bench, Level.UNSAFE_NONE, state)
    prepared = await bare.prepare(RUN, {"argv": ["true"]})
    assert prepared.risk == "high"
    assert "WITHOUT A SANDBOX" in prepared.rendering["title"]
    assert prepared.rendering["notes"][0].startswith("NO SANDBOX: ")
    assert prepared.rendering["sandbox"] == {"level": "unsafe-none", "network": "host"}
    assert (prepared.action["sandbox"], prepared.action["network"]) == ("unsafe-none", "host")
    # Nothing runs ahead of its question where running it is what has to be asked.
    assert not prepared.ahead
    done = await bare.execute(RUN, {"command": "echo new > f"})
    assert isinstance(done, Done)
    assert (done.output["level"], [file["path"] for file in done.output["files"]]) == ("unsafe-none", ["f"])
    assert not (bench.path / "f").exists()


def test_an_unknown_level_is_refused_by_its_field() -> None:
    (fault,) = check_params(RunCommandParams, {"argv": ["true"], "sandbox": "strongest"})
    assert fault.field == "sandbox"
    assert all(level in f"{fault.message} {fault.fix}" for level in Level)
    assert not check_params(RunCommandParams, {"argv": ["true"], "sandbox": "landlock-seccomp"})
