"""Shows the action that a person is asked to approve: all of what will happen, made by the engine, never by a model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from stepgate.cli import diffs, words
from stepgate.cli.text import exact, exact_line, plain, plain_line
from stepgate.engine import views

FEW_LINES = 60
SHOWN_APART = frozenset(
    {"title", "command", "shell", "executable", "cwd", "env", "stdin", "sandbox", "limits", "notes", "diff", "files"}
    | {"truncated", "step", "workspace", "requester", "risk", "cost_so_far_usd", "claim", "no_preview", "path", "reads"}
)


def show(console: Console, step: views.Step, *, whole: bool = False) -> None:
    """The question of a step; long diffs and texts in full only with `whole`."""
    approval = step.approval
    if approval is None:
        return
    console.print()
    console.print(Rule(Text(f"{plain_line(step.key)}: {step.step_type}", style="bold yellow"), align="left"))
    if approval.rendering is None:
        console.print(Text("its rendering is not here", style="red"))
        return
    console.print(Group(*rendering(approval, whole=whole)), soft_wrap=True)


def rendering(approval: views.ApprovalRef, *, whole: bool = False) -> Iterator[RenderableType]:
    """The lines of one question."""
    shown = approval.rendering or {}
    yield Text(plain_line(str(shown.get("title", ""))), style="bold")
    yield _line("risk", Text(approval.risk, style=words.RISK_STYLES.get(approval.risk, "")))
    yield from _command(shown, whole=whole)
    yield from _notes(shown)
    if claim := shown.get("claim"):
        yield _line("plan says", Text(plain(str(claim)), style="italic"))
    yield from _change(shown, whole=whole)
    if whole:
        yield from _details(approval, shown)


def _command(shown: Mapping[str, Any], *, whole: bool) -> Iterator[RenderableType]:
    if "command" in shown:
        yield _line("shell" if shown.get("shell") else "command", Text(exact(str(shown["command"])), style="bold cyan"))
    if shown.get("executable"):
        yield _line("program", exact_line(str(shown["executable"])))
    if shown.get("cwd") not in (None, "", "."):
        yield _line("in folder", exact_line(str(shown["cwd"])))
    for name, value in dict(shown.get("env") or {}).items():
        yield _line("env", f"{exact_line(name)}={exact_line(str(value))}")
    if shown.get("stdin"):
        yield _line("stdin", _bounded(exact(str(shown["stdin"])), whole=whole))
    if sandbox := shown.get("sandbox"):
        network = f", network: {plain_line(str(sandbox.get('network')))}" if sandbox.get("network") else ""
        yield _line("sandbox", f"{plain_line(str(sandbox.get('level') or 'none'))}{network}")
    if limits := shown.get("limits"):
        yield _line("limits", _main_limits(limits))


def _main_limits(limits: Mapping[str, Any]) -> str:
    shown = []
    if "wall_s" in limits:
        shown.append(f"{limits['wall_s']:g} s")
    if "memory_bytes" in limits:
        shown.append(f"{words.size(limits['memory_bytes'])} of memory")
    if "pids" in limits:
        shown.append(f"{limits['pids']} processes")
    return ", ".join(shown)


def _notes(shown: Mapping[str, Any]) -> Iterator[RenderableType]:
    for note in shown.get("notes") or ():
        if str(note).startswith("no preview: ") and shown.get("no_preview"):
            continue
        yield _line("note", Text(plain(str(note)), style="yellow"))
    if shown.get("no_preview"):
        yield _line("no preview", Text(plain(str(shown["no_preview"])), style="red"))
    if shown.get("truncated"):
        yield _line("note", Text("the change is too large to show whole; the hash covers all of it", style="yellow"))


def _change(shown: Mapping[str, Any], *, whole: bool) -> Iterator[RenderableType]:
    files = list(shown.get("files") or ())
    diff = str(shown.get("diff") or "")
    if files and (whole or not diff):
        for file in files:
            yield _line(str(file.get("op", "file")), exact_line(str(file.get("path", ""))))
    if diff:
        yield diffs.coloured(diff, most_lines=None if whole else FEW_LINES)


def _details(approval: views.ApprovalRef, shown: Mapping[str, Any]) -> Iterator[RenderableType]:
    workspace = shown.get("workspace") or {}
    yield _line("workspace", exact_line(str(workspace.get("path", ""))))
    yield _line("at rev", exact_line(str(workspace.get("rev", ""))))
    if shown.get("requester"):
        yield _line("asked by", plain_line(str(shown["requester"])))
    if shown.get("cost_so_far_usd") is not None:
        yield _line("cost so far", words.usd(str(shown["cost_so_far_usd"])))
    for file in shown.get("reads") or ():
        yield _line("reads", f"{exact_line(str(file.get('path')))} {plain_line(str(file.get('sha256')))}")
    if limits := shown.get("limits"):
        yield _line("limits", ", ".join(f"{name} {value}" for name, value in sorted(limits.items())))
    for name in sorted(set(shown) - SHOWN_APART):
        if shown[name] not in (None, [], {}, ""):
            yield _line(plain_line(name), exact(json.dumps(shown[name], ensure_ascii=False, indent=2)))
    if approval.expires_at:
        yield _line("expires", words.local_time(approval.expires_at))
    yield _line("question", f"revision {approval.revision}")
    yield _line("hash", approval.action_hash)


def _line(name: str, value: Text | str) -> Text:
    return Text.assemble((f"{name:>11}  ", "dim"), value)


def _bounded(text: str, *, whole: bool) -> str:
    lines = text.splitlines()
    if whole or len(lines) <= FEW_LINES:
        return text
    return "\n".join([*lines[:FEW_LINES], f"… {len(lines) - FEW_LINES} more lines; view shows them"])
