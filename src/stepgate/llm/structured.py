"""JSON Schema, checked here because no router promises that its model kept to it."""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue

# An empty registry: a `$ref` to another place must never make this process fetch it.
_REGISTRY: Registry[Any] = Registry()


def check_schema(schema: Mapping[str, Any], field: str = "schema") -> None:
    """Raises InvalidValue where the mapping is no usable JSON Schema (2020-12 unless its `$schema` says otherwise)."""
    canonical.check(schema, field)
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(dict(schema))
    except SchemaError as error:
        raise InvalidValue(f"not a JSON Schema: {error.message[:200]}", field=field) from error


def read(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON in a model's answer, which fits the schema; raises InvalidValue saying where it does not.

    A Markdown fence around the whole answer is passed over, since models without a JSON mode write one.
    """
    value = canonical.loads(_without_fence(text))
    canonical.check(value, "answer")
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=_REGISTRY)
    try:
        fault = best_match(validator.iter_errors(value))
    except (Unresolvable, RecursionError) as error:
        raise InvalidValue("the schema refers to something outside itself, or to itself without end") from error
    if isinstance(fault, ValidationError):
        raise InvalidValue(f"{fault.json_path}: {fault.message[:200]}")
    return value


def _without_fence(text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text
