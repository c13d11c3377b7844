from typing import Any

import pytest
from pydantic import ValidationError

from stepgate.domain.errors import InvalidPlan
from stepgate.domain.params import ParamSpec, fill, read_arguments

SPECS = {
    "name": {"type": "string"},
    "count": {"type": "integer", "default": 1},
    "share": {"type": "number"},
    "dry": {"type": "boolean"},
    "tags": {"type": "json"},
}


def test_arguments_are_cast_to_the_declared_type() -> None:
    arguments = ["name=a=b", "count=-3", "share=0.5", "dry=false", 'tags=["x", 1]']
    assert read_arguments(SPECS, arguments) == {
        "name": "a=b",
        "count": -3,
        "share": 0.5,
        "dry": False,
        "tags": ["x", 1],
    }


def test_a_whole_number_stays_whole_as_a_number() -> None:
    value = read_arguments(SPECS, ["share=2"])["share"]
    assert type(value) is int


def test_undeclared_arguments_are_left_to_the_plan_to_refuse() -> None:
    assert read_arguments(None, ["x=1"]) == {"x": "1"}


@pytest.mark.parametrize(
    "arguments", [["name"], ["count=x"], ["count=1.5"], ["dry=yes"], ["tags={"], ["name=a", "name=b"]]
)
def test_arguments_that_do_not_read_as_their_type_are_refused(arguments: list[str]) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read_arguments(SPECS, arguments)
    assert caught.value.problems[0].fix


def test_defaults_fill_what_is_not_given() -> None:
    assert fill({"count": ParamSpec(type="integer", default=1)}, {}) == ({"count": 1}, [])


def test_a_default_of_null_is_a_default() -> None:
    assert fill({"tags": ParamSpec(type="json", default=None)}, {}) == ({"tags": None}, [])


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (ParamSpec(type="string"), 1),
        (ParamSpec(type="integer"), 1.0),
        (ParamSpec(type="integer"), True),
        (ParamSpec(type="number"), "1"),
        (ParamSpec(type="number"), float("nan")),
        (ParamSpec(type="boolean"), 0),
        (ParamSpec(type="json"), {"a": 2**64}),
        (ParamSpec(type="string"), "a\x00"),
        (ParamSpec(type="string", enum=["a", "b"]), "c"),
        (ParamSpec(type="json", enum=[1, {"a": 0}]), True),
        (ParamSpec(type="json", enum=[1, {"a": 0}]), {"a": False}),
        (ParamSpec(type="path"), "/etc/passwd"),
        (ParamSpec(type="path"), "a/../../b"),
        (ParamSpec(type="path"), ".."),
        (ParamSpec(type="path"), "./"),
        (ParamSpec(type="path"), ""),
        (ParamSpec(type="path"), 7),
    ],
)
def test_values_of_another_type_are_refused(spec: ParamSpec, value: Any) -> None:
    values, (problem,) = fill({"p": spec}, {"p": value})
    assert values == {}
    assert problem.field == "params.p"


@pytest.mark.parametrize("path", ["a", "a/b.txt", "./a", "a/./b", "..a", "ä/ö"])
def test_a_path_in_the_workspace_is_taken(path: str) -> None:
    assert read_arguments({"p": {"type": "path"}}, [f"p={path}"]) == {"p": path}
    assert fill({"p": ParamSpec(type="path")}, {"p": path}) == ({"p": path}, [])


def test_an_enum_holds_values_of_its_type() -> None:
    ParamSpec(type="integer", enum=[1, 2])
    with pytest.raises(ValidationError, match="not of type integer"):
        ParamSpec(type="integer", enum=[1, "2"])
