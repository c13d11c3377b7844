"""Plan parameters: the typed blanks of a plan that whoever creates a run fills in."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, assert_never, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, InvalidValue, Problem
from stepgate.domain.limits import MAX_PROBLEMS

ParamType = Literal["string", "integer", "number", "boolean", "path", "json"]
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"
_NAMES = {"path": "path relative to the workspace", "boolean": "boolean: true or false"}
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


class ParamSpec(BaseModel):
    """One declared parameter; without `default` it must be given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: ParamType = "string"
    default: Any = None
    enum: list[Any] | None = Field(default=None, min_length=1, max_length=100)
    description: str | None = Field(default=None, max_length=2_000)

    @model_validator(mode="after")
    def _values_of_its_type(self) -> Self:
        odd = [value for value in self.enum or () if not _is_of(self.type, value)]
        if odd:
            raise ValueError(f"enum holds {odd[0]!r}, which is not of type {self.type}")
        return self

    @property
    def required(self) -> bool:
        return "default" not in self.model_fields_set


def fill(specs: Mapping[str, ParamSpec], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The value of every declared parameter, and what is wrong with those given or with their defaults."""
    problems = [
        Problem(f"params.{name}", "the plan declares no such parameter", _declared(specs, name) if few else None)
        for few, name in _unknown(specs, given)
    ]
    values: dict[str, Any] = {}
    for name, spec in specs.items():
        if name not in given and spec.required:
            problems.append(Problem(f"params.{name}", "no value given", f"give a {spec.type} for it"))
            continue
        value = given.get(name, spec.default)
        if fault := _fault(spec, value, f"params.{name}"):
            problems.append(Problem(f"params.{name}", *fault))
        else:
            values[name] = value
    return values, problems


def read_arguments(raw_specs: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """Parameter values from `name=value` texts, each cast to its declared type.

    `raw_specs` is the `params` part of a plan, not yet validated. Raises InvalidPlan listing every text that
    has no `=`, names a parameter twice or does not read as its type; unknown names pass, `fill` refuses them.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for argument in arguments:
        name, found, text = argument.partition("=")
        field = f"params.{name}"
        if not found:
            problems.append(Problem(field, f"{argument!r} has no value", "write name=value"))
        elif name in values:
            problems.append(Problem(field, "given twice", "give it once"))
        else:
            try:
                values[name] = cast(_declared_type(raw_specs, name), text)
            except InvalidValue as error:
                problems.append(Problem(field, error.message, error.fix))
    if problems:
        raise InvalidPlan(f"{problems[0].field}: {problems[0].message}", problems=tuple(problems))
    return values


def cast(type_: str, text: str) -> Any:
    """The value a text stands for; raises InvalidValue where it does not read as that type."""
    match type_:
        case "integer" if _WHOLE.fullmatch(text):
            return int(text)
        case "number":
            value = _number(text)
            if value is not None:
                return value
        case "boolean" if text in ("true", "false"):
            return text == "true"
        case "json":
            return _json(text)
        case "string" | "path":
            return text
        case _:
            pass
    raise InvalidValue(f"{text[:60]!r} is not of type {type_}", fix=_example(type_))


def _number(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return None


def _json(text: str) -> Any:
    try:
        return canonical.loads(text)
    except InvalidValue as error:
        raise InvalidValue(error.message, fix='write JSON, such as ["a", "b"]; text needs its quotes') from error


def _declared_type(raw_specs: Any, name: str) -> str:
    spec = raw_specs.get(name) if isinstance(raw_specs, Mapping) else None
    type_ = spec.get("type", "string") if isinstance(spec, Mapping) else "string"
    return type_ if type_ in get_args(ParamType) else "string"


def _example(type_: str) -> str:
    match type_:
        case "boolean":
            return "write true or false"
        case "integer":
            return "write a whole number such as 3"
        case _:
            return "write a number such as 0.5"


def _fault(spec: ParamSpec, value: Any, field: str) -> tuple[str, str | None] | None:
    try:
        canonical.check(value, field)
    except InvalidValue as error:
        return error.message, error.fix
    if not _is_of(spec.type, value):
        return f"not of type {spec.type}", None if spec.type == "json" else f"give a {_NAMES.get(spec.type, spec.type)}"
    if spec.type == "path" and not _is_relative(value):
        return "leads out of the workspace, or names nothing in it", "give a path such as src/main.py, without .."
    if spec.enum is not None and not any(_is_same(spec.type, value, one) for one in spec.enum):
        return "not one of the allowed values", f"one of {canonical.dumps(spec.enum).decode()}"
    return None


def _is_same(type_: ParamType, value: Any, allowed: Any) -> bool:
    """In JSON true is not 1, whatever Python says."""
    return canonical.dumps(value) == canonical.dumps(allowed) if type_ == "json" else bool(value == allowed)


def _is_of(type_: ParamType, value: Any) -> bool:
    match type_:
        case "string" | "path":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "json":
            return True
        case _:
            assert_never(type_)


def _is_relative(path: str) -> bool:
    """Whether the path stays in the workspace; what else may be wrong with it, the step that uses it finds out."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return bool(parts) and not path.startswith("/") and ".." not in parts


def _unknown(specs: Mapping[str, ParamSpec], given: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """The names not declared; true with the first ones, which are worth the search for what was meant."""
    unknown = (name for name in given if name not in specs)
    return ((count < MAX_PROBLEMS, name) for count, name in enumerate(unknown))


def _declared(specs: Mapping[str, ParamSpec], name: str) -> str:
    if near := difflib.get_close_matches(name, specs, 1):
        return f"did you mean {near[0]}?"
    return f"declared are: {', '.join(specs)}" if specs else "declare it under params, or leave it out"
