"""Schemas without `const` and `oneOf` refuse nothing that the strict ones accept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepgate.llm.flatten import flattened

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["const", "oneOf", "x"]), inner),
    max_leaves=4,
)
schemas: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.builds(lambda value: {"const": value}, values)
    | st.builds(lambda name: {"type": name}, st.sampled_from(["object", "string", "integer", "array"])),
    lambda inner: (
        st.builds(lambda options: {"oneOf": options}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda a, b: {"oneOf": [a], "anyOf": [b, a]}, inner, inner)
        | st.builds(lambda one: {"properties": {"const": one, "oneOf": one}}, inner)
        | st.builds(lambda one: {"items": one}, inner)
    ),
    max_leaves=5,
)


@given(schemas, values)
def test_what_the_strict_schema_accepts_the_flattened_one_accepts(schema: dict[str, Any], value: Any) -> None:
    if Draft202012Validator(schema).is_valid(value):
        assert Draft202012Validator(flattened(schema)).is_valid(value)


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {word for one in schema for word in keywords(one)}
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for name, inner in schema.items():
        found |= keywords(list(inner.values())) if name == "properties" else set()
        found |= keywords(inner) if name not in ("enum", "properties") else set()
    return found


@given(schemas)
def test_neither_word_is_left(schema: dict[str, Any]) -> None:
    assert not keywords(flattened(schema)) & {"const", "oneOf"}


@pytest.mark.parametrize("schema", [{"enum": [{"const": 1}]}, {"default": {"oneOf": []}}, {"required": ["const"]}])
def test_data_inside_a_schema_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert flattened(schema) == schema
