"""Replays a run: its steps one after another in a throw-away copy, each compared with what its journal recorded."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepgate.domain import canonical, forking, references
from stepgate.domain.course import Course, Turn, course_of
from stepgate.domain.errors import ModelFailure, StepgateError
from stepgate.domain.events import Event
from stepgate.domain.evolve import fold
from stepgate.domain.ids import ChangeSetId, RunId, StepId
from stepgate.domain.state import FORK, Effect, RunState, StepState
from stepgate.engine import actions
from stepgate.executors.base import Done, Executor, Failed, Prepared, Replaying
from stepgate.executors.outcomes import Origin, change_set_of
from stepgate.executors.preview import change_digest
from stepgate.storage.answers import RecordedCall
from stepgate.worker import ruling
from stepgate.worker.outcome import validated
from stepgate.worker.planning import PLAN
from stepgate.worker.replayed import Diverged, NotKept, ReplayedContext
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.rewind import rewind
from stepgate.workspace.sandbox.levels import Level

if TYPE_CHECKING:
    from stepgate.worker.claimed import ClaimedRun

ALWAYS_VARIES = frozenset({"change_set_id", "workspace_rev"})
PRINTED = frozenset({"stdout", "stderr", "truncated"})


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as its proved journal and the bodies beside it tell it."""

    events: Sequence[Event]
    state: RunState
    course: Course
    inputs: Mapping[StepId, str]
    outputs: Mapping[str, Any]
    calls: Sequence[RecordedCall]
    applied: Sequence[ChangeSet]


class RunReplaying(Replaying):
    """For the one step that replays, in its run's worker."""

    def __init__(self, run: "ClaimedRun") -> None:
        self._run = run
        self._tools = run.tools

    async def again(self, run_id: str, *, printed: bool) -> Mapping[str, Any]:
        recorded = await self._recorded(RunId(run_id))
        async with self._run.workplace.throwaway() as root:
            await asyncio.to_thread(self._begin, recorded, root)
            return await _Replay(self._run, recorded, root, printed=printed).whole()

    async def _recorded(self, run_id: RunId) -> Recorded:
        tools = self._tools
        events = await tools.journals.proved(run_id)
        state, course = fold(events), course_of(events)
        forking.check_size(state.steps.values())
        texts = await tools.steps.outputs(run_id, list(course.done))
        return Recorded(
            events,
            state,
            course,
            await tools.steps.inputs(run_id, [turn.step_id for turn in course.turns]),
            {state.steps[step_id].spec.key: canonical.loads(texts[step_id]) for step_id in course.done},
            await tools.answers.of_run(run_id),
            await tools.change_sets_of(run_id),
        )

    def _begin(self, recorded: Recorded, root: Root) -> None:
        """The copy as the workspace was before the first step; of a fork: after the step that made it so."""
        results = (step.result for step in recorded.state.steps.values() if step.spec.type == FORK)
        prologue = {str(result.change_set_id) for result in results if result is not None}
        blobs = self._tools.blobs
        apply(root, rewind(root, recorded.applied, prologue, blobs), blobs)


class _Replay:
    def __init__(self, run: "ClaimedRun", recorded: Recorded, root: Root, *, printed: bool) -> None:
        self._run = run
        self._tools = run.tools
        self._recorded = recorded
        self._root = root
        self._printed = printed

    async def whole(self) -> Mapping[str, Any]:
        """Until the first step that comes out otherwise."""
        turns, taken, divergence = self._recorded.course.turns, list[str](), None
        agreed = 0
        for turn in turns:
            step = self._recorded.state.steps[turn.step_id]
            try:
                await self._step(turn, step)
                agreed += 1
            except NotKept:
                await self._take(step)
                taken.append(step.spec.key)
            except Diverged as found:
                divergence = {"step": step.spec.key, **found.told()}
                break
        return {
            "run_id": self._recorded.state.info.id,
            "steps": len(turns),
            "agreed": agreed,
            "taken": taken,
            "divergence": divergence,
        }

    async def _step(self, turn: Turn, step: StepState) -> None:
        """Raises Diverged, or NotKept for a step that is not executed but taken from the record."""
        executor = self._tools.registry.find(step.spec.type)
        if executor is None or executor.internal or step.spec.effect is Effect.ONCE:
            raise NotKept
        if executor.sandboxed:
            self._check_sandbox(step)
        try:
            done = await self._execute(turn, step, executor)
        except TimeoutError as error:
            raise Diverged("outcome", "completed", "timeout") from error
        except (StepgateError, ModelFailure) as error:
            raise Diverged("outcome", "completed", f"{error.reason_code}: {error.message}") from error
        self._compare_output(step, executor, done)
        await self._compare_changes(step, done)

    def _check_sandbox(self, step: StepState) -> None:
        """A command is executed again in a sandbox of the recorded level, or not at all."""
        sandbox = self._tools.sandbox
        found = Level.UNSAFE_NONE if sandbox is None else sandbox.level
        recorded = self._recorded.outputs[step.spec.key].get("level")
        if sandbox is None or found is Level.UNSAFE_NONE:
            raise Diverged("sandbox", str(recorded), "none")
        if recorded not in (None, found.value):
            raise Diverged("sandbox", str(recorded), found.value)

    async def _execute(self, turn: Turn, step: StepState, executor: Executor[Any]) -> Done:
        recorded, tools = self._recorded, self._tools
        value = canonical.loads(recorded.inputs[step.id])
        resolved = references.resolve(value, recorded.outputs.__getitem__)
        params = validated(executor, resolved)
        seen = frozenset(recorded.course.done[: turn.seen])
        before = fold(recorded.events[: turn.events]) if step.spec.type == PLAN else recorded.state
        context = ReplayedContext(self._run, self._root, step, before, seen, recorded)
        limit_s = (step.spec.timeout_ms or tools.step_timeout_ms) / 1000
        async with tools.lanes[executor.type], asyncio.timeout(limit_s):
            if step.approvals:
                prepared = await executor.prepare(context, params)
                self._check_approved(step, executor, prepared, resolved, await context.shown())
                if prepared.outcome is None:  # else what was shown is its outcome, which is now written anew
                    context.hold(prepared)
            self._check_policy(step, executor, params, context.prepared)
            outcome = await executor.execute(context, params)
        if isinstance(outcome, Failed):
            raise Diverged("outcome", "completed", f"{outcome.code}: {outcome.message}")
        return outcome

    def _check_approved(
        self,
        step: StepState,
        executor: Executor[Any],
        prepared: Prepared,
        resolved: Mapping[str, Any],
        shown: Any,
    ) -> None:
        """Only the very action that was approved then is done again."""
        approval = step.approval
        if approval is None or not isinstance(shown, Mapping):
            raise Diverged("action", "approved", "never shown")
        rev, preview = str(shown["workspace"]["rev"]), shown.get("preview")
        if isinstance(preview, Mapping) and preview.get("outcome") is not None:
            expected, found = str(preview.get("action")), Origin.of(prepared, rev).action
        else:
            state, revision = self._recorded.state, approval.revision
            expected = approval.action_hash
            found = actions.action_hash(state, step, revision, executor, prepared, resolved, rev)
        if expected != found:
            raise Diverged("action", expected, found)

    def _check_policy(self, step: StepState, executor: Executor[Any], params: Any, prepared: Prepared | None) -> None:
        """What nobody may do any more is not done again either; who would have to be asked was asked then."""
        reach = (None if prepared is None else prepared.reach) or executor.reach(params)
        verdict = ruling.of_today(self._tools, self._recorded.state, step, executor, params, reach)
        if verdict.denied:
            raise Diverged("policy", "allowed", ruling.denied(verdict).message)

    def _compare_output(self, step: StepState, executor: Executor[Any], done: Done) -> None:
        varies = ALWAYS_VARIES | executor.varies
        if executor.sandboxed and not self._printed:
            varies |= PRINTED
        sides = self._recorded.outputs[step.spec.key], canonical.loads(canonical.dumps(dict(done.output)))
        expected, found = ({name: value for name, value in side.items() if name not in varies} for side in sides)
        if expected != found:
            names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            raise Diverged("output", _digest(expected), _digest(found), names)

    async def _compare_changes(self, step: StepState, done: Done) -> None:
        """Compares, and does to the copy what the step did to the workspace."""
        found, expected = change_set_of(done), await self._changes_of(step)
        left, right = (None if one is None else change_digest(one) for one in (expected, found))
        if left != right:
            paths = sorted({*_by_path(expected).items()} ^ {*_by_path(found).items()})
            names = sorted({path for path, _ in paths})
            raise Diverged("changes", left or "none", right or "none", names)
        if found is not None:
            await asyncio.to_thread(apply, self._root, found, self._tools.blobs)

    async def _take(self, step: StepState) -> None:
        """The step's effect as it is recorded."""
        change_set = await self._changes_of(step)
        if change_set is not None and step.spec.type != FORK:
            await asyncio.to_thread(apply, self._root, change_set, self._tools.blobs)

    async def _changes_of(self, step: StepState) -> ChangeSet | None:
        if step.result is None or step.result.change_set_id is None:
            return None
        return ChangeSet.from_json(await self._tools.change_sets.body(ChangeSetId(step.result.change_set_id)))


def _by_path(change_set: ChangeSet | None) -> dict[str, str]:
    if change_set is None:
        return {}
    return {one.path: change_digest(ChangeSet.of([one])) for one in change_set.changes}


def _digest(value: Mapping[str, Any]) -> str:
    return canonical.digest(canonical.dumps(dict(value)))
