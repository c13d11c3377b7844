"""JSON Schemas as routers take them: several refuse `const` and `oneOf`, so these are said in other words."""

from collections.abc import Mapping
from typing import Any, Final

_DEEPEST: Final = 64


def flattened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An equal or looser schema without `const` and `oneOf`; whoever asks checks the answer by the strict one.

    Raises nothing: what is nested deeper than 64 is left as it is.
    """
    found: dict[str, Any] = _flat(schema, 0)
    return found


def _flat(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return value
    if isinstance(value, list):
        return [_flat(one, depth + 1) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: _named(inner, depth) if name in _NAMED and isinstance(inner, Mapping) else _keyword(name, inner, depth)
        for name, inner in _renamed(value).items()
    }


_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose keys are names of the author's, not keywords."""
_VERBATIM: Final = frozenset({"enum", "default", "examples", "required"})


def _named(schemas: Mapping[str, Any], depth: int) -> dict[str, Any]:
    return {name: _flat(schema, depth + 1) for name, schema in schemas.items()}


def _keyword(name: str, inner: Any, depth: int) -> Any:
    return inner if name in _VERBATIM else _flat(inner, depth + 1)


def _renamed(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(schema)
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "oneOf" in found:
        options = found.pop("oneOf")
        if "anyOf" in found:
            found["allOf"] = [*found.get("allOf", ()), {"anyOf": options}]
        else:
            found["anyOf"] = options
    return found
