"""Faults of a plan, gathered, so that its author sees all of them, each with its place and a way out."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from stepgate.domain import duration
from stepgate.domain.errors import InvalidPlan, InvalidValue, Problem
from stepgate.domain.limits import MAX_PROBLEMS
from stepgate.domain.params import NAME_PATTERN
from stepgate.domain.plan import KEY_PATTERN
from stepgate.domain.references import has_references

# Comparing is slow: a tenth of a second for 10,000 names.
_MAX_COMPARED = 1_000


class Faults:
    """Collects problems up to a bound and raises them together."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(self, field: str, message: str, fix: str | Callable[[], str] | None = None) -> None:
        """`fix` may be a function, for a search through names that only the problems kept are worth."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(field, message, fix() if callable(fix) else fix))
        else:
            self._more += 1

    def add_error(self, error: InvalidValue, field: str) -> None:
        self.add(error.field or field, error.message, error.fix)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem.field, problem.message, problem.fix)

    def raise_if_any(self) -> None:
        if not self._problems:
            return
        first, count = self._problems[0], len(self._problems) + self._more
        message = f"{first.field}: {first.message}" if first.field else first.message
        if count > 1:
            message += f" (and {count - 1} more problem{'s' if count > 2 else ''})"
        raise InvalidPlan(message, problems=tuple(self._problems), details={"problems": count})


def nearest(name: str, names: Collection[str]) -> str:
    """The fix for a name that does not exist: the one probably meant, or those there are, or nothing."""
    if len(names) > _MAX_COMPARED:
        return "check its spelling"
    known = sorted(names)
    if close := difflib.get_close_matches(name[:100], known, 1):
        return f"did you mean {close[0]}?"
    return f"one of: {', '.join(known[:20])}" if known else ""


def field_path(base: str, location: Sequence[str | int]) -> str:
    """`steps[3].input.path` of a base and a pydantic location."""
    path = base
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def model_problems(error: ValidationError, model: type[BaseModel], base: str) -> list[Problem]:
    """What pydantic found, in our words and with a way out."""
    return [_problem(item, base, model, count) for count, item in enumerate(error.errors(include_url=False))]


def check_params(model: type[BaseModel], value: Mapping[str, Any]) -> list[Problem]:
    """The faults of a step's input against its model, relative to the input.

    A fault in a value that holds a reference is passed over: what stands there is known only once resolved.
    """
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [
            _problem(item, "", model, count)
            for count, item in enumerate(error.errors(include_url=False))
            if item["type"] in _SHAPE or not has_references(item["input"])
        ]
    return []


def _problem(item: Any, base: str, model: type[BaseModel], count: int) -> Problem:
    """Only the first ones are shown, so only they are worth a search for what was meant."""
    where = field_path(base, item["loc"])
    return (
        Problem(where, *_explain(item["type"], item["msg"], item, model))
        if count < MAX_PROBLEMS
        else Problem(where, item["msg"])
    )


# The shape of an input stands whatever its references become.
_SHAPE = ("missing", "extra_forbidden", "shape")


_WORDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
}


def _explain(kind: str, text: str, item: Any, model: type[BaseModel]) -> tuple[str, str | None]:
    context = item.get("ctx", {})
    match kind:
        case "missing":
            return "is missing", "add it"
        case "extra_forbidden":
            # Below the top level the names of another model apply.
            known = model.model_fields if len(item["loc"]) == 1 else ()
            return "no such field", nearest(str(item["loc"][-1]), known) or "remove it"
        case "literal_error":
            return f"must be {context.get('expected')}", None
        case "value_error":
            message = str(context.get("error", text))
            return message, duration.FIX if message == "not a duration" else None
        case "string_pattern_mismatch" if context.get("pattern") in (KEY_PATTERN, NAME_PATTERN):
            return "not a valid name", "a letter, then up to 63 letters, digits, - or _"
        case "string_pattern_mismatch":
            return "not of the right form", f"it must match {context.get('pattern')}"
        case _ if kind in _WORDS:
            return _WORDS[kind], None
        case _:
            return text[:1].lower() + text[1:], context.get("fix")
