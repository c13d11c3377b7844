"""What a step that changes a workspace costs: one command, a change set of many files, a large workspace below."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import load
from bench.child import Child
from bench.rounds import Rounds
from stepgate.compose import Stack
from stepgate.domain.ids import RunId

COMMANDS = 20
CHANGED = 1000
SMALL, LARGE = 100, 100_000
PER_FOLDER = 1000
SOMEBODY = 12_345
GROWN = 10
"""Commands over each size, turn by turn."""
PREVIEWED = {"bench": "preview"}
POLICY = """
version: 1
rules:
  - name: ahead
    match: {executor: run_command, labels: {bench: preview}}
    verdict: ask
    approvals: {preview: true}
"""
_WRITE = f"i=0; while [ $i -lt {CHANGED} ]; do printf '%0{load.FILE_BYTES}d' $i > new-$i; i=$((i+1)); done"
_EDIT = "echo more >> 0/0"


def prepare(root: Path) -> None:
    """The folders that commands run over; as root also such as belong to somebody else."""
    (root / "command").mkdir()
    for owner in owners():
        for size in (SMALL, LARGE):
            fill(folder_of(root, size, owner), size, owner)


def owners() -> list[int]:
    return [os.geteuid(), SOMEBODY] if os.geteuid() == 0 else [os.geteuid()]


def folder_of(root: Path, size: int, owner: int) -> Path:
    return root / f"{size}-of-{owner}"


def fill(folder: Path, size: int, owner: int) -> None:
    """`size` files, a thousand to a folder, all of one owner."""
    folder.mkdir()
    for number in range(size):
        inside = folder / str(number // PER_FOLDER)
        if number % PER_FOLDER == 0:
            inside.mkdir()
            os.chown(inside, owner, owner)
        path = f"{inside}/{number % PER_FOLDER}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        os.chown(path, owner, owner)
    os.chown(folder, owner, owner)


def command(*argv: str) -> list[dict[str, Any]]:
    return [{"type": "run_command", "input": {"argv": list(argv)}}]


async def commands(stack: Stack, child: Child, figures: Rounds) -> None:
    """`/bin/true`, each approved alone; from the approval to the completed step, beside a bare start of it."""
    folder = stack.settings.workspace_root / "command"
    runs = await load.create(stack, COMMANDS, lambda _: command("/bin/true"), folder)
    await child.work()
    took = await child.work(runs=runs)
    figures.add("bare_spawn_ms", load.middle(took["bare_ms"]))
    figures.add("run_command_ms", await middle_ms(stack, runs, figures))


async def changed_files(stack: Stack, child: Child, figures: Rounds, number: int) -> None:
    """A thousand new files, and then none of them again; `alone` is from the recorded change set to its end."""
    folder = stack.settings.workspace_root / f"changed-{number}"
    folder.mkdir()
    (run_id,) = await load.create(stack, 1, lambda _: command("/bin/sh", "-c", _WRITE), folder)
    await child.work()
    await child.work(runs=[run_id])
    await add_change(stack, run_id, figures, "apply_1000_files", len(list(folder.iterdir())) == CHANGED)
    await stack.engine.undo(run_id, load.ACTOR)
    await child.work()
    await child.work(runs=[run_id])
    await add_change(stack, run_id, figures, "undo_1000_files", not list(folder.iterdir()))


async def add_change(stack: Stack, run_id: RunId, figures: Rounds, name: str, happened: bool) -> None:
    sound = happened and await figures.sound(stack, [run_id])
    figures.add(f"{name}_s", await load.lasted_ms(stack, run_id) / 1000 if sound else None)
    alone = "step.computed"
    figures.add(f"{name}_alone_s", await load.lasted_ms(stack, run_id, alone) / 1000 if sound else None)


async def previews(stack: Stack, child: Child, figures: Rounds) -> None:
    """What running `/bin/true` ahead of its question adds to the work before and after the answer."""
    folder, runs = stack.settings.workspace_root / "command", []
    for labels in ({}, PREVIEWED):
        made = await load.create(stack, COMMANDS, lambda _: command("/bin/true"), folder, start=False, labels=labels)
        runs.append(made)
    plain, previewed = runs
    await child.work(runs=[run for pair in zip(plain, previewed, strict=True) for run in pair], begin=True)
    if await figures.sound(stack, [*plain, *previewed]):
        without, with_ = [load.middle([await asked_ms(stack, run_id) for run_id in made]) for made in runs]
        figures.add("preview_ms", with_ - without)
    else:
        figures.add("preview_ms", None)


async def asked_ms(stack: Stack, run_id: RunId) -> float:
    """From the start to the question, and from the answer to the end."""
    return await load.lasted_ms(stack, run_id, "run.queued", "approval.requested") + await load.lasted_ms(stack, run_id)


async def growth(stack: Stack, child: Child, figures: Rounds) -> None:
    """The same small edit by a command over a hundred and over a hundred thousand files."""
    root = stack.settings.workspace_root
    for owner, name in zip(owners(), ("overlay_growth", "overlay_growth_idmapped"), strict=False):
        folders = [folder_of(root, size, owner) for size in (SMALL, LARGE)]
        small, large = [
            await load.create(stack, GROWN, lambda _: command("/bin/sh", "-c", _EDIT), folder) for folder in folders
        ]
        await child.work()
        await child.work(runs=[run for pair in zip(small, large, strict=True) for run in pair])
        few, many = await middle_ms(stack, small, figures), await middle_ms(stack, large, figures)
        figures.add(f"{name}_100_files_ms", few)
        figures.add(name, many / few if few and many else None)


async def middle_ms(stack: Stack, runs: Sequence[RunId], figures: Rounds) -> float | None:
    if not await figures.sound(stack, runs):
        return None
    return load.middle([await load.lasted_ms(stack, run_id) for run_id in runs])
