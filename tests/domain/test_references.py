import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain import canonical, references
from stepgate.domain.errors import InvalidReference
from stepgate.domain.references import Reference

OUTPUTS: Mapping[str, Any] = {
    "read": {"text": "hello", "size": 5, "files": [{"path": "a.py"}, {"path": "b.py"}], "c d": None, "ok": True},
    "step-1": [10, 20],
}

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
# Rich in the characters the grammar is made of.
tricky = st.text(alphabet='${}ab. "[]|()', max_size=30) | texts
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, max_size=3),
    max_leaves=8,
)
path_parts = st.lists(st.integers(0, 3) | st.text(alphabet=string.ascii_letters + ' "-.[]', max_size=6), max_size=4)


def resolve(value: Any) -> Any:
    return references.resolve(value, OUTPUTS.__getitem__)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${{ steps.read.output.text }}", "hello"),
        ("${{steps.read.output.size}}", 5),
        ("${{ steps.read.output.ok }}", True),
        ("${{ steps.read.output.files[1].path }}", "b.py"),
        ('${{ steps.read.output["c d"] }}', None),
        ('${{ steps.read.output["files"][0]["path"] }}', "a.py"),
        ("${{ steps.step-1.output[1] }}", 20),
        ("${{ steps.step-1.output }}", [10, 20]),
        ("<${{ steps.read.output.text }}, ${{ steps.read.output.size }}>", "<hello, 5>"),
        ("${{ steps.read.output.files }}!", '[{"path":"a.py"},{"path":"b.py"}]!'),
        ('a ${{ steps.read.output.ok }} ${{ steps.read.output["c d"] | default(0) }}', "a true null"),
        ("$${{ steps.read.output.text }}", "${{ steps.read.output.text }}"),
        ("$$${{ x", "$${{ x"),
        ("${ { $ {{ }} are only characters", "${ { $ {{ }} are only characters"),
        ('${{ steps.read.output.nope | default([1, "}}"]) }}', [1, "}}"]),
        ("${{ steps.gone.output | default(null) }}", None),
        ("${{ steps.read.output.text|default(1)}}", "hello"),
    ],
)
def test_what_a_reference_stands_for(written: str, value: Any) -> None:
    assert resolve(written) == value
    assert type(resolve(written)) is type(value)


@pytest.mark.parametrize(
    "written",
    [
        "${{",
        "${{ }}",
        "${{ steps.read }}",
        "${{ steps.read.output",
        "${{ steps.read.output. }}",
        "${{ steps.read.output.text }",
        "${{ steps.read.output[-1] }}",
        "${{ steps.read.output[1 }}",
        "${{ steps.read.output['a'] }}",
        "${{ steps.read.outputs }}",
        "${{ steps.1.output }}",
        "${{ secrets.KEY }}",
        "${{ steps.read.output | upper }}",
        "${{ steps.read.output | default(nope) }}",
        "${{ steps.read.output | default(NaN) }}",
        "${{ steps.read.output | default(1 }}",
        '${{ steps.read.output | default("\\u0000") }}',
        "${{ steps.read.output | default(1) | default(2) }}",
        "${{ steps.read.output | default(" + "[" * 100_000 + ") }}",
        "${{ steps.read.output | default(99999999999999999999) }}",
        "${{ params.name }}",
    ],
)
def test_what_is_no_reference_is_refused_with_its_field(written: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        resolve({"a": [written]})
    assert caught.value.reason_code == "invalid_reference"
    assert caught.value.field == "input.a[0]"


@pytest.mark.parametrize(
    "written",
    [
        "${{ steps.gone.output }}",
        "${{ steps.read.output.nope }}",
        "${{ steps.read.output.text.more }}",
        "${{ steps.read.output[0] }}",
        "${{ steps.read.output.files[2] }}",
        "${{ steps.read.output.files.path }}",
        "text ${{ steps.read.output.size.x }}",
    ],
)
def test_a_reference_that_leads_nowhere_fails_as_missing(written: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        resolve(written)
    assert caught.value.reason_code == "reference_missing"
    expected = "text 7" if written.startswith("text") else 7
    assert resolve(written.replace(" }}", " | default(7) }}")) == expected


def test_found_references_carry_their_fields() -> None:
    value = {"a": ["x ${{ steps.one.output.p }}", {"b": "${{ params.q }} $${{ steps.no.output }}"}], "c": 3}
    assert references.find(value) == (
        Reference("steps", "one", ("p",), "input.a[0]"),
        Reference("params", "q", (), "input.a[1].b"),
    )


def test_a_reference_in_a_name_is_refused() -> None:
    with pytest.raises(InvalidReference):
        references.find({"env": {"${{ steps.a.output }}": "x"}})


def test_a_text_cannot_be_blown_up_without_bound() -> None:
    big = {"a": "x" * 1_000_000}
    with pytest.raises(InvalidReference):
        references.resolve("${{ steps.s.output.a }}" * 20, {"s": big}.__getitem__)


@pytest.mark.parametrize("text", ["${{ steps.s.output.a }}", "<${{ steps.s.output.a }}>", "${{ steps.s.output }}"])
def test_many_texts_together_cannot_be_blown_up_without_bound(text: str) -> None:
    big = {"a": "x" * 1_000_000}
    resolved = references.resolve([text] * 16, {"s": big}.__getitem__)
    assert len(resolved) == 16
    with pytest.raises(InvalidReference, match=r"grows over"):
        references.resolve([text] * 17, {"s": big}.__getitem__)


@pytest.mark.parametrize("text", ["${{ params.p }}", "<${{ params.p }}>", "<${{ params.p }}>${{ steps.s.output }}"])
def test_parameters_cannot_blow_up_several_inputs_without_bound(text: str) -> None:
    room = references.Room(2_000_000)
    params = {"p": "x" * 1_000_000}
    references.substitute([text], params, "input", room)
    references.substitute({"b": text}, params, "input", room)
    with pytest.raises(InvalidReference, match=r"grows over"):
        references.substitute(text, params, "input", room)


def test_a_goal_cannot_be_blown_up_without_bound() -> None:
    with pytest.raises(InvalidReference, match=r"grows over"):
        references.fill_text("${{ params.p }}" * 20, {"p": "x" * 1_000_000}, "goal")


def test_what_is_inserted_is_never_read_for_references_again() -> None:
    hostile = {"a": "${{ steps.secret.output }}"}
    values = {"s": hostile, "secret": "key"}
    assert references.resolve("${{ steps.s.output.a }}", values.__getitem__) == "${{ steps.secret.output }}"
    assert references.resolve("<${{ steps.s.output.a }}>", values.__getitem__) == "<${{ steps.secret.output }}>"


@given(json_values)
def test_an_escaped_value_resolves_to_itself(value: Any) -> None:
    assert resolve(references.escape(value)) == value


@given(json_values)
def test_a_whole_reference_keeps_value_and_type(value: Any) -> None:
    found = references.resolve("${{ steps.s.output.v }}", {"s": {"v": value}}.__getitem__)
    assert found is value


@given(tricky, json_values, tricky)
def test_inside_text_strings_stay_and_the_rest_is_canonical_json(before: str, value: Any, after: str) -> None:
    written = f"{references.escape(before)} ${{{{ steps.s.output.v }}}}{references.escape(after)}"
    shown = value if isinstance(value, str) else canonical.dumps(value).decode()
    assert references.resolve(written, {"s": {"v": value}}.__getitem__) == f"{before} {shown}{after}"


@given(path_parts)
def test_a_written_path_is_read_back(path: list[str | int]) -> None:
    written = f"${{{{ steps.s.output{references.path_text(tuple(path))} }}}}"
    (found,) = references.find(written)
    assert list(found.path) == path


@given(json_values)
def test_a_default_is_any_json(value: Any) -> None:
    written = f"${{{{ steps.gone.output | default({canonical.dumps(value).decode()}) }}}}"
    assert resolve(written) == value


@given(tricky)
def test_any_text_either_resolves_or_is_refused(text: str) -> None:
    try:
        found = references.find(text)
    except InvalidReference:
        return
    assert all(reference.scope in ("steps", "params") for reference in found)
    assert references.has_references(text) or resolve(text) == text


@given(json_values, tricky)
def test_a_parameter_is_data_whatever_it_holds(value: Any, around: str) -> None:
    written = {"whole": "${{ params.p }}", "part": f"{references.escape(around)} ${{{{ params.p }}}}."}
    filled = references.substitute(written, {"p": value})
    shown = value if isinstance(value, str) else canonical.dumps(value).decode()
    assert resolve(filled) == {"whole": value, "part": f"{around} {shown}."}


def test_step_references_survive_the_parameters() -> None:
    written = "${{ params.p }} ${{ steps.read.output.text }} $${{ literal"
    filled = references.substitute(written, {"p": "${{ steps.read.output.size }}"})
    assert resolve(filled) == "${{ steps.read.output.size }} hello ${{ literal"


@given(tricky, tricky)
def test_two_parameters_side_by_side_make_no_reference(one: str, other: str) -> None:
    filled = references.substitute("${{ params.one }}${{ params.other }}", {"one": one, "other": other})
    assert resolve(filled) == one + other


def test_a_dollar_from_a_parameter_cannot_disarm_the_reference_behind_it() -> None:
    with pytest.raises(InvalidReference):
        references.substitute("${{ params.p }}${{ steps.read.output.text }}", {"p": "$"})


@given(tricky)
def test_a_goal_is_filled_in_for_good(value: str) -> None:
    assert references.fill_text("<${{ params.p }}> $${{", {"p": value}, "goal") == f"<{value}> ${{{{"


def test_the_scan_sees_nested_values() -> None:
    assert references.has_references({"a": [1, {"b": "${{"}]})
    assert not references.has_references({"${{": [1, None, 2.5, "$ {{"]})
