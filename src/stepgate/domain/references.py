"""References `${{ steps.read.output.text }}`: how a step uses what an earlier one produced.

Grammar, the whole of it:

    reference = "${{" scope [ "|" "default(" JSON ")" ] "}}"
    scope     = "steps." key ".output" path | "params." name path
    path      = { "." name | "[" digits "]" | '["' JSON string '"]' }

`$${{` stands for the characters `${{`. A text that is one reference and nothing else takes the value with
its type; inside other text a string is inserted as it is, anything else as canonical JSON. What is inserted
is never read for references again, so neither a file nor a model can smuggle one in.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidReference, InvalidValue

OPENING: Final = "${{"
MAX_TEXT_CHARS: Final = 16 * 1024 * 1024

_START = re.compile(r"\$?\$\{\{")
_SPACE = re.compile(r"\s*")
_STEP = re.compile(r"steps\.([A-Za-z][A-Za-z0-9_-]{0,63})\.output(?![A-Za-z0-9_-])")
_PARAM = re.compile(r"params\.([A-Za-z_][A-Za-z0-9_-]{0,63})")
_NAME = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)")
_INDEX = re.compile(r"\[(\d{1,9})\]", re.ASCII)
_DEFAULT = re.compile(r"\|\s*default\(\s*")
_FIX = "write ${{ steps.<key>.output.<path> }}, or $${{ for these characters themselves"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference: `name` is a step's key or a parameter's name, `field` where it stands."""

    scope: Literal["steps", "params"]
    name: str
    path: tuple[str | int, ...]
    field: str
    has_default: bool = False
    default: Any = None

    def __str__(self) -> str:
        head = f"steps.{self.name}.output" if self.scope == "steps" else f"params.{self.name}"
        return head + path_text(self.path)


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    reference: Reference | None  # None: the escape `$${{`


def path_text(path: tuple[str | int, ...]) -> str:
    """A path as it is written: `.a.b[0]["c d"]`."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif _NAME.fullmatch("." + part):
            parts.append("." + part)
        else:
            parts.append(f"[{canonical.dumps(part).decode()}]")
    return "".join(parts)


def has_references(value: Any) -> bool:
    """Whether `resolve` could change the value: a scan for `${{` and nothing more, for every step's start."""
    if isinstance(value, str):
        return OPENING in value
    if isinstance(value, dict):
        return any(has_references(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(has_references(item) for item in value)
    return False


def find(value: Any, field: str = "input") -> tuple[Reference, ...]:
    """Every reference in the value, in order, each with the path of the field it stands in.

    Raises InvalidReference (`invalid_reference`) at the first one that cannot be parsed.
    """
    return tuple(_find(value, field))


def _find(value: Any, field: str) -> Iterator[Reference]:
    if isinstance(value, str):
        if OPENING in value:
            yield from (span.reference for span in _scan(value, field) if span.reference is not None)
    elif isinstance(value, dict):
        for key, item in value.items():
            if OPENING in key:
                raise InvalidReference("a reference in a name", field=field, fix="references stand in values only")
            yield from _find(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _find(item, f"{field}[{index}]")


class Room:
    """How much text references may still insert; a short plan must not grow without bounds.

    What takes the place of a whole text counts too: it is shared in memory, but not where the input is written.
    """

    __slots__ = ("_left",)

    def __init__(self, chars: int = MAX_TEXT_CHARS) -> None:
        self._left = chars

    def take(self, value: Any, field: str) -> Any:
        """The value itself; raises InvalidReference where it does not fit any more."""
        match value:
            case str():
                self._left -= len(value)
            case Mapping() | list() | tuple():
                self._left -= len(canonical.dumps(value))
            case _:
                self._left -= 1
        if self._left < 0:
            raise InvalidReference(f"the text grows over {MAX_TEXT_CHARS} characters", field=field, fix="refer to less")
        return value


def resolve(value: Any, outputs: Callable[[str], Any], field: str = "input") -> Any:
    """A copy of the value with every step reference replaced and every `$${{` unescaped.

    `outputs(key)` gives the output of a finished step and raises LookupError where there is none (skipped,
    or not of this run); a dict's `__getitem__` will do. Raises InvalidReference: `reference_missing` where a
    reference without a default leads nowhere, `invalid_reference` where it cannot be parsed.
    """
    room = Room()
    return _replace(value, field, lambda text, where: _resolve_text(text, outputs, where, room))


def substitute(value: Any, params: Mapping[str, Any], field: str = "input", room: Room | None = None) -> Any:
    """A copy with every `params.` reference replaced; step references and escapes stay as they are written.

    Parameters are data: a `${{` inside one is escaped, so that `resolve` later gives back its characters.
    Several values that belong together share one `room`. Raises InvalidReference as `resolve` does.
    """
    shared = Room() if room is None else room
    return _replace(value, field, lambda text, where: _substitute_text(text, params, where, shared))


def fill_text(text: str, params: Mapping[str, Any], field: str) -> str:
    """The text with every `params.` reference replaced for good; it must hold no step references."""
    parts: list[str] = []
    at, room = 0, Room()
    for span in _scan(text, field):
        inserted = OPENING if span.reference is None else _render(_value(span.reference, params.__getitem__))
        parts += (text[at : span.start], room.take(inserted, field))
        at = span.end
    return "".join(parts) + text[at:]


def escape(value: Any) -> Any:
    """The value written so that `resolve` gives it back unchanged."""
    if isinstance(value, str):
        return value.replace(OPENING, "$" + OPENING)
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape(item) for item in value]
    return value


def _replace(value: Any, field: str, text: Callable[[str, str], Any]) -> Any:
    if isinstance(value, str):
        return text(value, field) if OPENING in value else value
    if isinstance(value, dict):
        return {key: _replace(item, f"{field}.{key}", text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(item, f"{field}[{index}]", text) for index, item in enumerate(value)]
    return value


def _resolve_text(text: str, outputs: Callable[[str], Any], field: str, room: Room) -> Any:
    spans = _scan(text, field)
    if (whole := _whole(spans, text)) is not None:
        return room.take(_step_value(whole, outputs), field)
    parts: list[str] = []
    at = 0
    for span in spans:
        inserted = OPENING if span.reference is None else _render(_step_value(span.reference, outputs))
        parts += (text[at : span.start], room.take(inserted, field))
        at = span.end
    parts.append(text[at:])
    return "".join(parts)


def _substitute_text(text: str, params: Mapping[str, Any], field: str, room: Room) -> Any:
    spans = _scan(text, field)
    whole = _whole(spans, text)
    if whole is not None and whole.scope == "params":
        return escape(room.take(_value(whole, params.__getitem__), field))
    out, plain, at = list[str](), list[str](), 0
    for span in spans:
        plain.append(text[at : span.start])
        at = span.end
        reference = span.reference
        if reference is not None and reference.scope == "params":
            plain.append(room.take(_render(_value(reference, params.__getitem__)), field))
            continue
        before = "".join(plain)
        if before.endswith("$"):
            # `$` and `${{` side by side would read as the escape.
            raise InvalidReference(
                "a parameter that ends in $ stands right before a reference",
                field=field,
                fix="put a blank between",
            )
        out += (escape(before), text[span.start : span.end])
        plain.clear()
    return "".join([*out, escape("".join(plain) + text[at:])])


def _whole(spans: list[_Span], text: str) -> Reference | None:
    only = spans[0] if len(spans) == 1 else None
    return only.reference if only and only.start == 0 and only.end == len(text) else None


def _render(value: Any) -> str:
    return value if isinstance(value, str) else canonical.dumps(value).decode()


def _step_value(reference: Reference, outputs: Callable[[str], Any]) -> Any:
    if reference.scope == "params":
        raise InvalidReference("parameters are filled in when a run is created", field=reference.field)
    return _value(reference, outputs)


def _value(reference: Reference, values: Callable[[str], Any]) -> Any:
    try:
        value = values(reference.name)
        for part in reference.path:
            value = _descend(value, part)
    except LookupError as error:
        if reference.has_default:
            return reference.default
        raise InvalidReference(
            f"{reference} has no value",
            code="reference_missing",
            field=reference.field,
            fix="check the path, or add a default: | default(null)",
        ) from error
    return value


def _descend(value: Any, part: str | int) -> Any:
    if isinstance(part, str) and isinstance(value, dict):
        return value[part]
    if isinstance(part, int) and isinstance(value, list | tuple):
        return value[part]
    raise LookupError(part)


def _scan(text: str, field: str) -> list[_Span]:
    """The references and escapes of a text, left to right."""
    spans = []
    at = 0
    while found := _START.search(text, at):
        if len(found[0]) > len(OPENING):
            spans.append(_Span(found.start(), found.end(), None))
            at = found.end()
        else:
            reference, at = _parse(text, found.end(), field)
            spans.append(_Span(found.start(), at, reference))
    return spans


def _parse(text: str, start: int, field: str) -> tuple[Reference, int]:
    """Parses from behind `${{` to behind `}}`."""
    at = _skip(text, start)
    scope: Literal["steps", "params"]
    if found := _STEP.match(text, at):
        scope = "steps"
    elif found := _PARAM.match(text, at):
        scope = "params"
    else:
        raise _fault(text, start, field, "not a reference to a step's output or a parameter")
    path, at = _parse_path(text, found.end(), field)
    at = _skip(text, at)
    default: Any = None
    has_default = False
    if operator := _DEFAULT.match(text, at):
        has_default = True
        default, at = _parse_json(text, operator.end(), field)
        at = _skip(text, at)
        if text[at : at + 1] != ")":
            raise _fault(text, start, field, "the default is not closed by )")
        at = _skip(text, at + 1)
    if text[at : at + 2] != "}}":
        raise _fault(text, start, field, "cannot be read to its }}; `| default(<JSON>)` is the only operator")
    return Reference(scope, found[1], path, field, has_default, default), at + 2


def _parse_path(text: str, at: int, field: str) -> tuple[tuple[str | int, ...], int]:
    path: list[str | int] = []
    while True:
        if found := _NAME.match(text, at):
            path.append(found[1])
        elif found := _INDEX.match(text, at):
            path.append(int(found[1]))
        elif text[at : at + 2] == '["':
            name, end = _parse_json(text, at + 1, field)
            if text[end : end + 1] != "]":
                raise _fault(text, at, field, "the name in brackets is not closed by ]")
            path.append(name)
            at = end + 1
            continue
        else:
            return tuple(path), at
        at = found.end()


def _parse_json(text: str, at: int, field: str) -> tuple[Any, int]:
    try:
        value, end = _JSON.raw_decode(text, at)
        canonical.check(value, field)
    except (ValueError, RecursionError, InvalidValue) as error:
        raise _fault(text, at, field, "not valid JSON in a reference") from error
    return value, end


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _fault(text: str, at: int, field: str, message: str) -> InvalidReference:
    shown = text[at : at + 60].split("}}", 1)[0].strip()
    return InvalidReference(f"`{shown}`: {message}", field=field, fix=_FIX)
