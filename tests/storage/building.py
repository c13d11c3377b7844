"""Runs in a real database: specs whose digests fit their bodies, and the rows they need around them."""

from collections.abc import Iterable, Sequence
from typing import Any

from stepgate.domain import canonical
from stepgate.domain import commands as c
from stepgate.domain.ids import ChangeSetId, RequestId, RunId, StepId, WorkerId, WorkspaceId, new_id
from stepgate.domain.journal import Head
from stepgate.domain.quorum import ANYBODY, Quorum
from stepgate.domain.state import Actor, Approval, Effect, Gate, RunInfo, RunState, StepResult, StepSpec
from stepgate.storage.attachments import Attachments, ChangeSetRow
from stepgate.storage.claim import Claim, Claims, WorkerRow
from stepgate.storage.committer import Committer
from stepgate.storage.entry import RunHandle

PERSON = Actor("ada", "person", "cli")
WORKER = Actor("worker-1", "system", "worker")
INPUT = '{"path":"utils.py"}'
OUTPUT = '{"text":"x = 1"}'
SHOWN = '{"title":"edit utils.py"}'
HASH = "a" * 64
SECOND = 1_000_000


def digest(text: str) -> str:
    return canonical.digest(text.encode())


def spec(number: int, needs: Iterable[StepId] = (), **changes: Any) -> StepSpec:
    """Step `s<number>` with the input INPUT; it waits for nothing unless told."""
    made = StepSpec(
        id=StepId(new_id()),
        key=f"s{number}",
        number=number,
        type="noop",
        effect=Effect.NONE,
        gate=Gate.ALLOW,
        needs=tuple(needs),
        max_attempts=1,
        backoff_ms=0,
        timeout_ms=None,
        on_error="fail",
        input_sha256=digest(INPUT),
        input_size=len(INPUT),
        created_at=0,
    )
    return made._replace(**changes)


def chain(count: int, **changes: Any) -> tuple[StepSpec, ...]:
    """Steps that wait one for the other."""
    specs: list[StepSpec] = []
    for number in range(1, count + 1):
        specs.append(spec(number, [specs[-1].id] if specs else [], **changes))
    return tuple(specs)


def info(workspace_id: str, **changes: Any) -> RunInfo:
    made = RunInfo(
        id=RunId(new_id()),
        goal="make the tests pass",
        name=None,
        workspace_id=workspace_id,
        workspace_path="/w",
        workspace_mode="in_place",
        pool="default",
        labels={"team": "core"},
        metadata={"ticket": 7, "ratio": 1e2},
        requester=PERSON,
        limits={},
        created_at=0,
        tenant="default",
    )
    return made._replace(**changes)


def inputs_of(specs: Iterable[StepSpec]) -> dict[StepId, str]:
    return {step.id: INPUT for step in specs}


def result(text: str = OUTPUT, **changes: Any) -> StepResult:
    return StepResult(digest(text), len(text.encode()), latency_ms=3)._replace(**changes)


def output(step_id: StepId, text: str = OUTPUT) -> Attachments:
    return Attachments(outputs={step_id: text})


def completion(step_id: StepId, text: str = OUTPUT, action_hash: str | None = None) -> c.Complete:
    return c.Complete(WORKER, step_id, result(text), action_hash)


def question(
    action_hash: str = HASH,
    *,
    expires_at: int | None = None,
    on_expiry: str = "reject",
    required: Quorum = ANYBODY,
) -> Approval:
    return Approval(
        request_id=RequestId(new_id()),
        revision=0,
        action_hash=action_hash,
        risk="medium",
        rendering_sha256=digest(SHOWN),
        required=required,
        expires_at=expires_at,
        on_expiry=on_expiry,
        policy_version="builtin-1",
        matched_rules=("default:noop",),
        requested_at=0,
    )


def asking(step_id: StepId, asked: Approval) -> tuple[c.Ask, Attachments]:
    return c.Ask(WORKER, step_id, asked), Attachments(renderings={asked.request_id: SHOWN})


def change_set(step_id: StepId, workspace_id: str) -> ChangeSetRow:
    """One file made, one changed."""
    node = {"kind": "file", "mode": 420, "mtime_ns": 1, "sha256": HASH, "size": 3}
    changes = [
        {"path": "a.py", "op": "create", "before": None, "after": node},
        {"path": "b.py", "op": "modify", "before": node, "after": {**node, "size": 4}},
    ]
    set_id, set_digest = ChangeSetId(new_id()), canonical.digest(canonical.dumps(changes))
    return ChangeSetRow(set_id, step_id, workspace_id, set_digest, {"v": 1, "id": set_id, "changes": changes})


def changed(row: ChangeSetRow, before: str = "rev-0", after: str = "rev-1") -> StepResult:
    return result(change_set_id=row.id, change_set_digest=row.digest, workspace_before=before, workspace_after=after)


async def create(
    committer: Committer, workspace_id: WorkspaceId, specs: Sequence[StepSpec] = (), *, start: bool = True, **about: Any
) -> RunState:
    """A new run, started unless told otherwise."""
    made = info(workspace_id, **about)
    commands: list[c.Command] = [c.Create(PERSON, made, tuple(specs))]
    if start and specs:
        commands.append(c.Start(PERSON))
    state, _ = await committer.submit_once(made.id, commands, Attachments(inputs=inputs_of(specs)))
    return state


_UNTIL_DUE = """
SELECT pg_sleep(coalesce(extract(epoch FROM max(wake_at) - clock_timestamp()), 0)) FROM stepgate.runs
WHERE wake_at < clock_timestamp() + interval '1 second'
"""


async def register(claims: Claims, lease_s: float = 30.0) -> WorkerId:
    """A worker; what was made to run is due by then, however far this process's idea of the time was ahead."""
    worker_id = WorkerId(new_id())
    async with claims._database.session() as connection:
        await connection.execute(_UNTIL_DUE)
    await claims.register(WorkerRow(worker_id, "host", 1, ["default"]), lease_s)
    return worker_id


async def claim_one(claims: Claims, worker_id: WorkerId | None = None) -> Claim:
    """The one run that is due, in the hands of a (new) worker."""
    found = await claims.claim(worker_id or await register(claims), ["default"], 10)
    assert len(found) == 1
    return found[0]


async def drive_to_end(committer: Committer, handle: RunHandle) -> None:
    """Completes every step in order of number."""
    steps = sorted(handle.state.steps.values(), key=lambda step: step.spec.number)
    for step in steps:
        await committer.submit(handle, [completion(step.id)], output(step.id))


def leaseless(state: RunState, head: Head) -> RunHandle:
    return RunHandle(state.info.id, state, head, None)
