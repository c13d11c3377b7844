#!/usr/bin/env python3
"""Writes docs/states.md out of the tables and sentences in stepgate.domain.states, so that the page cannot differ."""

import ast
import inspect
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from stepgate.domain import states
from stepgate.domain.states import EventType, RunStatus, StepStatus

PAGE = Path(__file__).with_name("states.md")

INTRO = """# States

A run and each of its steps are two small state machines. Only the transitions on this page exist: an event that
has no row here cannot be recorded, whoever asks for it. The page is made from `stepgate/domain/states.py` by
`docs/generate_states.py`.
"""

RUN_INTRO = """
`awaiting_approval` is not recorded: it is how a `planning`, `queued` or `running` run is shown while only a person can
move it. A finished run (`completed`, `failed`, `cancelled`) keeps its status for good; all it still takes is an undo.
"""

STEP_INTRO = """
`completed`, `failed`, `skipped`, `rejected` and `cancelled` are ends. A late report (`step.discarded`) and a model call
(`model.called`, `model.settled`) are recorded in every status and move nothing.
"""

Table = Mapping[Any, Mapping[EventType, tuple[StrEnum, ...]]]


def sentences(enum: type[StrEnum]) -> dict[str, str]:
    """Each member's value and the docstring that stands below it in the source."""
    said: dict[str, str] = {}
    name = ""
    for node in ast.walk(ast.parse(inspect.getsource(enum))):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case ast.Expr(value=ast.Constant(value=str(text))):
                said[enum[name].value] = text
            case _:
                pass
    return said


def diagram(table: Table, first: StrEnum, ends: Iterable[StrEnum]) -> str:
    """A Mermaid picture: one arrow for each pair of statuses, with its events; what stays is left to the table."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, row in table.items():
        for event, targets in row.items():
            for target in targets:
                if target is not source:
                    arrows.setdefault((source.value, target.value), []).append(event.value)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    lines += [f"    {end.value} --> [*]" for end in sorted(ends)]
    return "\n".join([*lines, "```"])


def statuses(table: Table, enum: type[StrEnum]) -> str:
    """One line for each status: its sentence, the events that lead on from it, and those after which it stays."""
    said = sentences(enum)
    reached = {target for row in table.values() for targets in row.values() for target in targets}
    lines = ["| status | meaning | leads on to | stays on |", "|---|---|---|---|"]
    for status in enum:
        row = table.get(status, {})
        onward, stays = [], []
        for event, targets in row.items():
            others = [f"`{target.value}`" for target in targets if target is not status]
            if others:
                onward.append(f"{' or '.join(others)} by `{event.value}`")
            if status in targets:
                stays.append(f"`{event.value}`")
        if not row and status not in reached:
            onward.append("(no event leads here)")
        lines.append(f"| `{status.value}` | {said[status.value]} | {'; '.join(onward)} | {', '.join(stays)} |")
    return "\n".join(lines)


def events() -> str:
    """One line for each event."""
    said = sentences(EventType)
    lines = [f"| `{event.value}` | {said[event.value]} |" for event in EventType]
    return "\n".join(["| event | what happened |", "|---|---|", *lines])


def page() -> str:
    """The whole page."""
    runs, steps = states.RUN_TRANSITIONS, states.STEP_TRANSITIONS
    parts = (
        INTRO,
        "## Runs\n" + RUN_INTRO,
        diagram(runs, RunStatus.CREATED, states.FINISHED) + "\n",
        statuses(runs, RunStatus) + "\n",
        "## Steps\n" + STEP_INTRO,
        diagram(steps, StepStatus.PENDING, states.CLOSED) + "\n",
        statuses(steps, StepStatus) + "\n",
        "## Events\n",
        events() + "\n",
    )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
