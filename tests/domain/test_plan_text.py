import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from stepgate.domain.errors import InvalidPlan
from stepgate.domain.limits import MAX_PLAN_BYTES
from stepgate.domain.plan_text import line_of, parse_plan_text


def fault(text: str | bytes) -> InvalidPlan:
    with pytest.raises(InvalidPlan) as caught:
        parse_plan_text(text, "p.yaml")
    assert caught.value.message.startswith("p.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-7", -7),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ('"no"', "no"),
        (".nan", ".nan"),
        ("<<", "<<"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[1, {b: c}]", [1, {"b": "c"}]),
    ],
)
def test_values_mean_what_yaml_1_2_says(written: str, value: Any) -> None:
    found = parse_plan_text(f"a: {written}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_names_are_text_whatever_they_look_like() -> None:
    assert parse_plan_text("on: 1\n1: 2\ntrue: 3") == {"on": 1, "1": 2, "true": 3}


def test_aliases_repeat_a_value() -> None:
    assert parse_plan_text("a: &x [1]\nb: *x\nc: {d: *x}") == {"a": [1], "b": [1], "c": {"d": [1]}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "stands twice"),
        ("a:\n  b: 1\n  b: 1", 3, "stands twice"),
        ("a: !!python/object/apply:os.system [id]", 1, "tag"),
        ("a: 1\nb: !!binary aGk=", 2, "tag"),
        ("a: &a [*a]", 1, "alias"),
        ("a: *nothing", 1, "alias"),
        ("a: &x b\n*x : c", 2, "alias as a name"),
        ("[1]: a", 1, "not text"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: [1,\nb: {", 3, ""),
        ("a: b: c", 1, ""),
        ("\ta: 1", 1, ""),
        ("- 1", 1, "a plan is a mapping"),
        ("", 1, "a plan is a mapping"),
        ("a: 99999999999999999999", 1, "64 bits"),
        ("a: " + "9" * 5000, 1, "64 bits"),
        ("a: 1e999", 1, "finite"),
        (b"a: 1\nb: \xff", 2, "UTF-8"),
    ],
)
def test_a_fault_is_named_by_its_line(text: str | bytes, line: int, words: str) -> None:
    error = fault(text)
    assert error.details["line"] == line
    assert words in error.message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", '{"a":', "[{a: "])
def test_depth_is_bounded(opening: str) -> None:
    assert fault("x: " + opening * 100_000 if opening[0] == "[" else opening * 100_000).fix is not None


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    assert "values" in fault("\n".join(lines)).message


def test_size_is_bounded() -> None:
    assert "MiB" in fault("a: " + "x" * MAX_PLAN_BYTES).message


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\u0000"}'])
def test_faults_of_json_are_refused_too(text: str) -> None:
    fault(text)


def test_json_escapes_beyond_the_basic_plane_are_read() -> None:
    assert parse_plan_text(json.dumps({"a": "\U0001f600", "b": 'tab\t"'})) == {"a": "\U0001f600", "b": 'tab\t"'}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_plan_text(b"\xef\xbb\xbfa: 1") == {"a": 1}


texts = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(texts, json_values, max_size=4)


@given(mappings)
def test_what_json_writes_is_read_back(value: dict[str, Any]) -> None:
    assert parse_plan_text(json.dumps(value)) == value


class QuotingDumper(yaml.SafeDumper):
    """Quotes every text: PyYAML writes `0E0` bare, a text in YAML 1.1 and a number in 1.2."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(mappings)
@example({"": "0E0"})
def test_what_yaml_writes_is_read_back(value: dict[str, Any]) -> None:
    assert parse_plan_text(yaml.dump(value, Dumper=QuotingDumper, allow_unicode=True)) == value


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#, \n\t", max_size=40))
def test_any_text_is_a_mapping_or_an_invalid_plan(text: str) -> None:
    try:
        value: object = parse_plan_text(text)
    except InvalidPlan as error:
        value = {"problems": error.problems} if error.problems else None
    assert isinstance(value, dict)


TEXT = """\
version: 1
steps:
  - key: a
    input: {path: x}
  -
    key: b
    input:
      edits:
        - find: y
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("version", 1),
        ("steps", 2),
        ("steps[0].input.path", 4),
        ("steps[1].key", 6),
        ("steps[1].input.edits[0].find", 9),
        ("steps[1].input.edits[0].replace", 9),
        ("steps[0].timeout", 3),
        ("nothing", 1),
    ],
)
def test_the_line_of_a_field_is_found(path: str, line: int) -> None:
    assert line_of(TEXT, path) == line


def test_there_are_no_lines_in_what_is_no_plan() -> None:
    assert line_of("a: [", "a") is None
