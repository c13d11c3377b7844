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
FEW_CHARS = 1000
NO_SANDBOX = ("none", "unsafe-none")
LAST_LINES = 20
SHOWN_APART = frozenset(
    {
        "title",
        "command",
        "shell",
        "executable",
        "cwd",
        "env",
        "stdin",
        "sandbox",
        "limits",
        "notes",
        "diff",
        "files",
        "secrets",
    }
    | {"truncated", "step", "workspace", "requester", "risk", "cost_so_far_usd", "claim", "no_preview", "path", "reads"}
    | {"policy", "preview", "cannot_undo", "undo_max_bytes", "requester_kind", "disguised"}
    | {"also_asked_by", "edited_by", "steps", "verdicts"}
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
    if not all(rule.startswith("default:") for rule in approval.matched_rules):
        yield _line("rule", f"{plain_line(', '.join(approval.matched_rules))} (policy {approval.policy_version[:12]})")
    if needed := words.needed(approval.required):
        yield _line("needs", needed)
    if approval.approvals and approval.decision is None:
        yield _line("approvals", f"{words.progress(approval)}: {plain_line(', '.join(words.approvers(approval)))}")
    yield from _command(shown, whole=whole)
    yield from _circumstances(shown)
    yield from _notes(shown)
    if shown.get("edited_by"):
        yield _line("edited by", plain_line(str(shown["edited_by"])))
    if claim := shown.get("claim"):
        yield _line("plan says", Text(plain(str(claim)), style="italic"))
    yield from _planned(shown, whole=whole)
    yield from _preview(shown, whole=whole)
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
    for name, version in dict(shown.get("secrets") or {}).items():
        yield _line("secret", f"{exact_line(name)} (version {exact_line(str(version))})")
    if shown.get("stdin"):
        yield _line("stdin", _bounded(exact(str(shown["stdin"])), whole=whole))
    if sandbox := shown.get("sandbox"):
        network = f", network: {plain_line(str(sandbox.get('network')))}" if sandbox.get("network") else ""
        least = f", at least: {plain_line(str(sandbox.get('least')))}" if sandbox.get("least") else ""
        level = plain_line(str(sandbox.get("level") or "none"))
        loud = "bold white on red" if level in NO_SANDBOX else ""
        yield _line("sandbox", Text(f"{level}{network}{least}", style=loud))
    if limits := shown.get("limits"):
        yield _line("limits", _main_limits(limits))
    if (most := shown.get("undo_max_bytes")) is not None:
        yield _line("undo", f"of files up to {words.size(most)}")


def _circumstances(shown: Mapping[str, Any]) -> Iterator[RenderableType]:
    if shown.get("requester"):
        kind = f" ({plain_line(str(shown['requester_kind']))})" if shown.get("requester_kind") else ""
        also = f", also {plain_line(str(shown['also_asked_by']))}" if shown.get("also_asked_by") else ""
        yield _line("asked by", f"{plain_line(str(shown['requester']))}{kind}{also}")
    if "cost_so_far_usd" in shown:
        cost = shown["cost_so_far_usd"]
        yield _line("cost so far", words.usd(None if cost is None else str(cost)))


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
        yield _line("note", Text("it is too large to show whole; the hash covers all of it", style="yellow"))
    if shown.get("disguised"):
        text = "it has characters that act on a screen or pass for others; they are written out as escapes"
        yield _line("note", Text(text, style="red"))
    for path in shown.get("cannot_undo") or ():
        yield _line("no undo", Text(f"{exact_line(str(path))}: too large for its content to be kept", style="red"))


def _planned(shown: Mapping[str, Any], *, whole: bool) -> Iterator[RenderableType]:
    """The steps that a plan would add, each with its input and what policy says of it."""
    verdicts = {one.get("key"): one for one in shown.get("verdicts") or ()}
    for step in shown.get("steps") or ():
        verdict = verdicts.get(step.get("key"), {})
        rules = plain_line(", ".join(map(str, verdict.get("rules", ()))))
        needs = f", needs {plain_line(', '.join(step['needs']))}" if step.get("needs") is not None else ""
        key, type_ = exact_line(str(step.get("key"))), exact_line(str(step.get("type")))
        yield _line(
            "adds", Text.assemble((key, "bold"), f"  {type_}{needs}  ({verdict.get('verdict', 'ask')} by {rules})")
        )
        given = exact(json.dumps(step.get("input"), ensure_ascii=False, indent=2 if whole else None))
        yield _line("", given if whole or len(given) <= FEW_CHARS else f"{given[:FEW_CHARS]} … view shows all of it")
        if step.get("why"):
            yield _line("plan says", Text(plain_line(str(step["why"]), 200), style="italic"))


def _preview(shown: Mapping[str, Any], *, whole: bool) -> Iterator[RenderableType]:
    """What came of the command, which was run ahead of the question."""
    preview = shown.get("preview") or {}
    if preview.get("outcome") is None:
        return
    failed = preview.get("failed")
    ended = f"exit code {preview.get('exit_code')}" if preview.get("signal") is None else f"signal {preview['signal']}"
    yield _line(
        "ran ahead", Text(f"{ended}, {words.duration(preview.get('wall_ms'))}", style="red" if failed else "green")
    )
    for stream in ("stdout", "stderr"):
        if text := str(preview.get(stream) or ""):
            yield _line(stream, _ending(exact(text), whole=whole))
    if preview.get("cut"):
        yield _line("note", Text("it printed more than is shown; the hash covers all of it", style="yellow"))
    if failed:
        meaning = "approving records this failure; nothing runs again"
    elif shown.get("files"):
        meaning = "approving applies exactly this; nothing runs again"
    else:
        meaning = "it changes no file; approving takes what it printed; nothing runs again"
    yield _line("note", Text(meaning, style="bold"))


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


def _ending(text: str, *, whole: bool) -> str:
    """The last lines, where the result of a command stands."""
    lines = text.rstrip("\n").splitlines()
    if whole or len(lines) <= LAST_LINES:
        return "\n".join(lines)
    return "\n".join([f"… {len(lines) - LAST_LINES} lines before; view shows them", *lines[-LAST_LINES:]])


def _bounded(text: str, *, whole: bool) -> str:
    lines = text.splitlines()
    if whole or len(lines) <= FEW_LINES:
        return text
    return "\n".join([*lines[:FEW_LINES], f"… {len(lines) - FEW_LINES} more lines; view shows them"])
