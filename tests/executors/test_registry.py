from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidPlan, InvalidValue
from stepgate.domain.plan_check import validate_steps
from stepgate.executors.base import Context, Done, Executor, Params
from stepgate.executors.registry import BUILTIN, GROUP, Registry, installed


class EchoParams(Params):
    text: str


class Echo(Executor[EchoParams]):
    type = "echo"
    summary = "Says it again."
    params = EchoParams

    async def execute(self, context: Context, params: EchoParams) -> Done:
        return Done({"text": f"{context.step_key}: {params.text}"})


def test_the_step_types_of_the_design_ship() -> None:
    assert [executor.type for executor in BUILTIN] == [
        "read_file",
        "analyze",
        "edit_file",
        "run_command",
        "summarize",
        "plan",
        "undo",
        "deliver",
        "fork",
        "replay",
    ]


def test_an_unknown_type_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidValue) as caught:
        Registry().get("read_fle")
    assert caught.value.field == "type"
    assert caught.value.fix == "did you mean read_file?"
    assert Registry().find("read_fle") is None


def test_a_plan_may_not_use_internal_types() -> None:
    assert set(Registry().step_types()) == {"read_file", "analyze", "edit_file", "run_command", "summarize", "plan"}
    assert Registry().get("undo").internal
    with pytest.raises(InvalidPlan, match="no step type 'undo'"):
        validate_steps([{"type": "undo"}], step_types=Registry().step_types())


def test_steps_that_ask_a_model_are_tried_three_times() -> None:
    attempts = {name: step_type.max_attempts for name, step_type in Registry().step_types().items()}
    assert attempts == {"read_file": 1, "analyze": 3, "edit_file": 1, "run_command": 1, "summarize": 3, "plan": 2}


def test_a_plan_s_faults_are_named_where_they_stand() -> None:
    steps = [
        {"key": "read", "type": "read_file", "input": {"path": "../secret"}},
        {"type": "edit_file", "input": {"path": "f", "content": "${{ steps.read.output.text }}", "delete": True}},
        {"type": "run_command", "input": {"argv": ["a"], "limits": {"wall": 3}}},
    ]
    with pytest.raises(InvalidPlan) as caught:
        validate_steps(steps, step_types=Registry().step_types())
    assert [problem.field for problem in caught.value.problems] == [
        "steps[0].input.path",
        "steps[1].input",
        "steps[2].input.limits.wall",
    ]
    assert all(problem.fix for problem in caught.value.problems)


def test_two_executors_of_one_type_are_refused() -> None:
    with pytest.raises(InvalidValue, match="two executors have the type 'echo'"):
        Registry((Echo(), Echo()))


def test_an_incomplete_executor_is_refused() -> None:
    class Silent(Echo):
        summary = ""

    class Loud(Echo):
        type = "LOUD"

    class Loose(Echo):
        params = dict  # type: ignore[assignment]

    for executor in (Silent(), Loud(), Loose()):
        with pytest.raises(InvalidValue):
            Registry((executor,))


PLUGIN = """
from tests.executors.test_registry import Echo

class Reverse(Echo):
    type = "reverse"

class ReadFile(Echo):
    type = "read_file"

no_executor = object()
"""


def install_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Puts a package with one entry point on the path, as pip leaves it."""
    name = f"plugin_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(PLUGIN)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nextra = {value.format(name)}\n")
    monkeypatch.syspath_prepend(folder)


def test_installed_packages_add_step_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "{}:Reverse")
    assert installed().get("reverse").summary == "Says it again."
    assert "reverse" not in Registry()


@pytest.mark.parametrize("value", ["no_such_module:Echo", "{}:no_executor", "{}:Missing"])
def test_an_entry_point_that_does_not_hold_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    install_plugin(tmp_path, monkeypatch, value)
    with pytest.raises(InvalidValue, match="the entry point 'extra'"):
        installed()


def test_an_installed_executor_cannot_replace_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "{}:ReadFile")
    with pytest.raises(InvalidValue, match="two executors have the type 'read_file'"):
        installed()


def test_describe_is_what_a_person_chooses_from() -> None:
    described = {entry["type"]: entry for entry in Registry().describe()}
    assert set(described) == set(Registry().step_types())
    edit = described["edit_file"]
    assert (edit["effect"], edit["gate"], edit["version"]) == ("workspace", "ask", "1")
    assert "path" in edit["input_schema"]["properties"]
    assert "schema" in described["analyze"]["input_schema"]["properties"]
