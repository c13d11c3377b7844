"""Plan files as text: a small, bounded reading of YAML 1.2 and JSON that says which line is at fault.

The parser's events are put together here and not by PyYAML, whose own composer overflows the C stack on deeply
nested text, lets an alias bomb grow without bound, keeps the last of two equal names, and follows YAML 1.1, where
`no` is false and `1:30` is ninety.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, InvalidValue, Problem
from stepgate.domain.limits import MAX_PLAN_BYTES, MAX_PLAN_NODES

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_CONSTANTS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Longer rows of digits are over 64 bits anyway, and slow to convert.
_MAX_DIGITS = 40


def parse_plan_text(text: str | bytes, source: str = "the plan") -> dict[str, Any]:
    """The mapping a plan file holds; `source` names the file in messages.

    Raises InvalidPlan with the line for text that is not UTF-8, over 4 MiB, not YAML 1.2, nested over 64 levels,
    grown over 500,000 values by aliases, with a name twice in one mapping, with tags, or not a mapping.
    """
    content = _decode(text, source)
    value = _read_json(content, source)
    if value is None:
        value = _Reader(source).read(content)
    if not isinstance(value, dict):
        raise _fault(source, 1, "a plan is a mapping", "write version: 1, goal: ... and steps: [...]")
    return value


def line_of(text: str | bytes, path: str) -> int | None:
    """The line (from 1) where the value at a problem's field path stands, as `steps[3].input.path`.

    Where that field is missing it is the line of the nearest part around it; None where the text is not a plan.
    """
    reader = _Reader("", keep_lines=True)
    try:
        reader.read(_decode(text, ""))
    except InvalidPlan:
        return None
    while path not in reader.lines:
        cut = max(path.rfind("."), path.rfind("["))
        if cut < 0:
            return 1
        path = path[:cut]
    return reader.lines[path]


def _read_json(text: str, source: str) -> Any:
    """The value of a JSON text, or None where it is not one: YAML reads a few of JSON's escapes otherwise."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        canonical.check(value, source)
    except RecursionError as error:
        raise _fault(source, None, "nested too deeply", "flatten it") from error
    except InvalidValue as error:
        raise _fault(source, None, error.message, error.fix) from error
    except ValueError:
        return None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise InvalidValue(f"the name {name!r} stands twice in one mapping", fix="keep one of them")
        value[name] = item
    return value


def _decode(text: str | bytes, source: str) -> str:
    if len(text) > MAX_PLAN_BYTES:
        raise _fault(source, None, f"larger than {MAX_PLAN_BYTES // 2**20} MiB", "split the plan")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _fault(source, line, "not UTF-8", "save the file as UTF-8") from error


def _fault(source: str, line: int | None, message: str, fix: str | None = None) -> InvalidPlan:
    where = f"line {line}" if line else ""
    return InvalidPlan(
        f"{source}{', ' if where else ''}{where}: {message}",
        fix=fix,
        problems=(Problem(where, message, fix),),
        details={"source": source, "line": line},
    )


@dataclass(slots=True)
class _Open:
    """A mapping or list being read; `size` counts the values below it, aliases in full."""

    value: dict[str, Any] | list[Any]
    path: str
    anchor: str | None
    size: int = 1
    name: str | None = None


@dataclass(slots=True)
class _Reader:
    source: str
    keep_lines: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    _root: Any = None
    _documents: int = 0

    def read(self, text: str) -> Any:
        for event in self._events(text):
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise _fault(self.source, line, "a second document", "keep one plan a file")
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    done = self._stack.pop()
                    self._put(done.value, done.size, done.anchor, line)
                case yaml.ScalarEvent():
                    self._scalar(event, line)
                case yaml.AliasEvent():
                    self._alias(event, line)
                case _:
                    pass
        return self._root

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or "not valid YAML"
            raise _fault(self.source, mark.line + 1 if mark else None, problem) from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise _fault(self.source, None, f"not valid YAML: {str(error).splitlines()[0]}") from error

    def _open(self, event: Any, line: int) -> None:
        self._refuse_tag(event.tag, line)
        if self._expects_name():
            raise _fault(self.source, line, "a name that is not text", "names are plain text")
        if len(self._stack) >= canonical.MAX_DEPTH:
            raise _fault(self.source, line, f"nested more than {canonical.MAX_DEPTH} levels deep", "flatten it")
        path = self._path()
        if self.keep_lines:
            self.lines.setdefault(path, line)
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(value, path, event.anchor))

    def _scalar(self, event: Any, line: int) -> None:
        self._refuse_tag(event.tag, line)
        if self._expects_name():
            self._name(event.value, line)
            return
        if self.keep_lines:
            self.lines[self._path()] = line
        # `implicit[0]`: written without quotes and without a tag.
        value = self._constant(event.value, line) if event.implicit[0] else event.value
        self._put(value, 1, event.anchor, line)

    def _name(self, name: str, line: int) -> None:
        top = self._stack[-1]
        if name in top.value:
            raise _fault(self.source, line, f"the name {name!r} stands twice in one mapping", "keep one of them")
        top.name = name
        if self.keep_lines:
            self.lines[self._path()] = line

    def _alias(self, event: Any, line: int) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise _fault(self.source, line, f"the alias *{event.anchor} names nothing complete before it")
        if self._expects_name():
            raise _fault(self.source, line, "an alias as a name", "write the name itself")
        self._put(*found, None, line)

    def _put(self, value: Any, size: int, anchor: str | None, line: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self._root = value
            return
        top = self._stack[-1]
        top.size += size
        if top.size > MAX_PLAN_NODES:
            raise _fault(
                self.source, line, f"more than {MAX_PLAN_NODES} values", "use fewer aliases, or split the plan"
            )
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.name is not None:
            top.value[top.name] = value
            top.name = None

    def _expects_name(self) -> bool:
        top = self._stack[-1] if self._stack else None
        return top is not None and isinstance(top.value, dict) and top.name is None

    def _path(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.value, list):
            return f"{top.path}[{len(top.value)}]"
        return f"{top.path}.{top.name}" if top.path else str(top.name)

    def _refuse_tag(self, tag: str | None, line: int) -> None:
        # "!" is the tag of a quoted text.
        if tag not in (None, "!"):
            raise _fault(self.source, line, f"the tag {tag} is not accepted", "write plain values")

    def _constant(self, text: str, line: int) -> Any:
        """What a value without quotes means (YAML 1.2, core schema)."""
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        number: int | float | None = None
        if _INTEGER.fullmatch(text):
            number = int(text[:_MAX_DIGITS])
        elif len(text) <= _MAX_DIGITS:
            if _HEX_OR_OCTAL.fullmatch(text):
                number = int(text, 0)
            elif _FLOAT.fullmatch(text):
                number = float(text)
        if number is None:
            return text
        try:
            canonical.check(number)
        except InvalidValue as error:
            raise _fault(self.source, line, error.message, "quote it to make it text") from error
        return number
