"""A new run out of an old one: finished steps by reference, the others to begin anew on a private copy."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgate.domain import canonical, forking
from stepgate.domain.errors import Conflict, IntegrityError, StepgateError
from stepgate.domain.forking import Split
from stepgate.domain.ids import RunId, StepId, WorkspaceId, new_id
from stepgate.domain.journal import Head
from stepgate.domain.state import FORK, Inherited, RunState, StepState
from stepgate.domain.states import StepStatus
from stepgate.engine.places import ISOLATED
from stepgate.engine.planning import Definitions, define_fork
from stepgate.executors.registry import Registry
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.database import Database
from stepgate.storage.steps import Steps
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.locks import ApplyMarks, WorkspaceLock
from stepgate.workspace.rewind import rewind

PLAN = "plan"
Load = Callable[[RunId], Awaitable[RunState]]
"""Gives the newest state of a run."""


@dataclass(frozen=True, slots=True)
class Forked:
    """Everything about the new run but who wants it and where: `origin` is what its journal says of the old one."""

    definitions: Definitions
    inherited: tuple[Inherited, ...]
    outputs: Mapping[StepId, str]
    origin: Mapping[str, Any]


class Forking:
    """Reads the old run; nothing of it is changed."""

    def __init__(self, database: Database, load: Load, registry: Registry, blobs: BlobStore, state_dir: Path) -> None:
        self._load = load
        self._steps = Steps(database)
        self._change_sets = ChangeSets(database)
        self._registry = registry
        self._blobs = blobs
        self._marks = ApplyMarks(state_dir)

    async def fork(self, state: RunState, head: Head, from_step: str, folder: Path) -> Forked:
        """Raises InvalidValue `from_step`; Conflict `cannot_fork`, or WorkspaceConflict where paths were changed since,
        both with `details["paths"]` where it is about files.
        """
        first = forking.named(state, from_step)
        if self._registry.get(first.spec.type).internal:
            raise Conflict(
                "what this run does is about another run, and is not forked",
                code="cannot_fork",
                field="from_step",
                fix="fork that run",
            )
        parts = forking.split(state, first, await self._written(state, first))
        forking.check_size((*parts.kept, *parts.anew))
        line = await self._line(state, first)
        kept, applied = await self._sets(line, parts)
        await asyncio.to_thread(self._look, state, folder, applied, kept)
        run_ids = [one.info.id for one in line]
        prologue = define_fork(state, self._registry, first.spec.key, run_ids, kept)
        # A delivery of the fork has the changes of the steps that are kept as those of its first step.
        behind = (*parts.kept, *(one for one in state.steps.values() if one.spec.type == FORK))
        asked_by = dict.fromkeys(by for step in behind for by in state.authors(step))
        specs, inherited = forking.taken_over(parts, prologue.specs[0]._replace(asked_by=tuple(asked_by)))
        copied = [one.id for one in (*parts.kept, *parts.anew)]
        texts = await self._steps.inputs(state.info.id, copied)
        places = {one.spec.key: one.id for one in (*parts.kept, *parts.anew)}
        inputs = {spec.id: texts[places[spec.key]] for spec in specs[1:]}
        outputs = await self._steps.outputs(state.info.id, [one.origin_step_id for one in inherited])
        origin = {
            "run_id": state.info.id,
            "from_step": first.spec.key,
            "head_seq": head.seq,
            "head_hash": head.hash.hex(),
            "requesters": sorted({by for step in parts.anew for by in state.authors(step)}),
            "inherited": forking.usage_data(forking.added(one.usage for one in inherited)),
        }
        kept_outputs = {one.step_id: outputs.get(one.origin_step_id, "") for one in inherited if one.output_sha256}
        digests = {spec.id: spec.input_sha256 for spec in specs[1:]}
        _check_bodies(inputs, digests)
        _check_bodies(kept_outputs, {one.step_id: one.output_sha256 or "" for one in inherited})
        return Forked(Definitions(specs, {**prologue.inputs, **inputs}), inherited, kept_outputs, origin)

    async def _line(self, state: RunState, first: StepState) -> list[RunState]:
        """The run, behind those that it is a fork of, back to the one in which the step was no inheritance."""
        line = [state]
        while first.inherited is not None and line[0].info.origin is not None:
            older = await self._load(RunId(line[0].info.origin["run_id"]))
            first = older.steps[older.keys[first.spec.key]]
            line.insert(0, older)
        return line

    async def _sets(self, line: Sequence[RunState], parts: Split) -> tuple[list[str], list[ChangeSet]]:
        """The ids of the change sets that stay, and all sets, in applied order."""
        kept, applied = list[str](), list[ChangeSet]()
        keys = {one.spec.key for one in parts.kept}
        for state in reversed(line):
            steps = [state.steps[state.keys[key]] for key in keys]
            own = {one.id for one in steps if one.inherited is None}
            keys = {one.spec.key for one in steps if one.inherited is not None}
            if state is line[0]:
                own |= {one.id for one in state.steps.values() if one.spec.type == FORK}
            rows = await self._change_sets.applied(state.info.id)
            kept += [row.id for row in rows if row.step_id in own]
            applied[:0] = [ChangeSet.from_json(row.body) for row in rows]
        return kept, applied

    async def _written(self, state: RunState, first: StepState) -> Mapping[StepId, Collection[str]]:
        """The keys that finished planning steps added, as their outputs say."""
        planners = [
            one.id
            for one in state.steps.values()
            if one.spec.type == PLAN and one.status is StepStatus.COMPLETED and one.spec.number >= first.spec.number
        ]
        found = {}
        for step_id, text in (await self._steps.outputs(state.info.id, planners)).items():
            output = canonical.loads(text)
            if output.get("added"):
                found[step_id] = [str(step.get("key")) for step in output.get("steps", ())]
        return found

    def _look(self, state: RunState, folder: Path, applied: Sequence[ChangeSet], kept: Sequence[str]) -> None:
        """Says nothing where it cannot tell now: the folder is not here, or a change is being applied to it."""
        info = state.info
        try:
            with Root.open(folder, exact=True) as root, WorkspaceLock(root).shared():
                half = info.workspace_mode != ISOLATED and self._marks.standing(WorkspaceId(info.workspace_id))
                if not half:
                    rewind(root, applied, frozenset(kept), self._blobs, new_id())
        except Conflict:
            raise
        except StepgateError:  # the fork's first step says what is wrong where it is
            return


def _check_bodies(texts: Mapping[StepId, str], digests: Mapping[StepId, str]) -> None:
    """Raises IntegrityError where a stored body is not the one that the journal names."""
    for step_id, text in texts.items():
        if canonical.digest(text.encode()) != digests[step_id]:
            raise IntegrityError(
                "a step's stored input or output is not what was recorded", fix="stepgate verify the run"
            )
