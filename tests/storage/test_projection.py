"""Whatever people and workers do in whatever order, the tables are what the journal adds up to."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stepgate.domain import canonical
from stepgate.domain import commands as c
from stepgate.domain.errors import StepgateError
from stepgate.domain.ids import CallId, RunId, StepId, new_id
from stepgate.domain.quorum import Authority, Quorum
from stepgate.domain.state import Effect, Gate, RunState, StepSpec, StepState
from stepgate.domain.states import CLOSED, StepStatus
from stepgate.storage.attachments import Attachments, ModelCallRow, SettledCallRow
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer, RunHandle
from stepgate.storage.database import Database
from stepgate.storage.verify import verify
from stepgate.storage.workspaces import Workspaces
from tests.storage.building import (
    PERSON,
    WORKER,
    asking,
    change_set,
    changed,
    create,
    inputs_of,
    output,
    question,
    register,
    result,
    spec,
)

Move = tuple[list[c.Command], Attachments | None]


@dataclass
class Walk:
    """One run driven at random, its worker and its people by turns."""

    random: Random
    committer: Committer
    claims: Claims
    workspace_id: str
    handle: RunHandle
    calls: list[tuple[StepId, CallId]]

    async def step(self) -> None:
        people = self.random.random() < 0.35
        if people or self.handle.epoch is None:
            commands, attachments = self.of_a_person(await self.committer.load(self.handle.run_id))
            try:
                await self.committer.submit_once(self.handle.run_id, commands, attachments)
            except StepgateError:
                return
            return
        moves = [self.of_a_worker(self.handle.state) for _ in range(self.random.choice([1, 1, 1, 3]))]
        answers = await asyncio.gather(
            *(self.committer.submit(self.handle, commands, attachments) for commands, attachments in moves),
            return_exceptions=True,
        )
        faults = [a for a in answers if isinstance(a, BaseException) and not isinstance(a, StepgateError)]
        if faults:
            raise faults[0]

    def pick(self, state: RunState) -> StepState:
        steps = sorted(state.steps.values(), key=lambda step: step.spec.number)
        moving = [step for step in steps if step.status not in CLOSED and not step.blocked] or steps
        return self.random.choice(moving)

    def of_a_person(self, state: RunState) -> Move:
        step = self.pick(state)
        asked = step.approval.action_hash if step.approval else "0" * 64
        more = spec(len(state.steps) + 1, [step.id], gate=self.random.choice(list(Gate)))
        plain: list[c.Command] = [
            c.Start(PERSON),
            c.Execute(PERSON),
            c.Resume(PERSON),
            c.Resume(PERSON),
            c.Approve(PERSON, step.id, asked, "fine"),
            c.Approve(PERSON, step.id, asked),
            c.Approve(PERSON._replace(id="bob"), step.id, asked, None, Authority(("approver",))),
            c.Approve(PERSON, step.id, None),
            c.Reject(PERSON, step.id, asked, "no", "skip"),
            c.Skip(PERSON, step.id),
        ]
        rare: list[c.Command] = [c.Pause(PERSON), c.Cancel(PERSON), c.Reject(PERSON, step.id, asked, None, "abort")]
        choice = self.random.random()
        if choice < 0.08:
            return [self.random.choice(rare)], None
        if choice < 0.18:
            return [c.AddSteps(PERSON, (more,))], Attachments(inputs=inputs_of([more]), plan='{"version":1}')
        return [self.random.choice(plain)], None

    def of_a_worker(self, state: RunState) -> Move:
        step = self.pick(state)
        hash_ = None if step.approval is None else step.approval.action_hash
        if step.status is StepStatus.COMPUTED and step.result is not None and self.random.random() < 0.7:
            return [c.Complete(WORKER, step.id, step.result)], None
        if step.spec.gate is Gate.ASK and not step.authorised and self.random.random() < 0.7:
            return self.ask(step)
        match self.random.randrange(12):
            case 0:
                return [c.Begin(WORKER, step.id, hash_)], None
            case 1:
                return self.fail(step)
            case 2:
                return [c.Interrupt(WORKER, step.id), c.Settle(WORKER)], None
            case 3:
                error = {"code": "workspace_conflict", "message": "moved", "field": None, "paths": ["a"]}
                return [c.Review(WORKER, step.id, error)], None
            case 4:
                return [c.Prepare(WORKER, step.id)], None
            case 5:
                return [c.Expire(WORKER)], None
            case 6 | 7:
                return self.call(step)
            case 8:
                text = f"[{self.random.randrange(9)}]"
                both: list[c.Command] = [c.Begin(WORKER, step.id, hash_), self.done(step, text, hash_)]
                return both, output(step.id, text)
            case _:
                return self.finish(step, hash_)

    def done(self, step: StepState, text: str, hash_: str | None) -> c.Complete:
        return c.Complete(WORKER, step.id, result(text), hash_)

    def finish(self, step: StepState, hash_: str | None) -> Move:
        if step.spec.effect is not Effect.WORKSPACE:
            return [self.done(step, '{"text":"ä"}', hash_)], output(step.id, '{"text":"ä"}')
        row = change_set(step.id, self.workspace_id)
        left = changed(row, "rev-0", f"rev-{row.id}")
        attachments = Attachments(outputs=output(step.id).outputs, change_sets=[row])
        return [c.Compute(WORKER, step.id, left, hash_)], attachments

    def ask(self, step: StepState) -> Move:
        soon = self.random.choice([None, 1, 4_000_000_000_000_000])
        asked = question(f"{self.random.randrange(3):064x}", expires_at=soon, on_expiry="pause")
        asked = asked._replace(required=Quorum(self.random.choice([1, 2]), exclude_requester=False))
        command, attachments = asking(step.id, asked)
        return [command], attachments

    def fail(self, step: StepState) -> Move:
        error = {"code": "boom", "message": 'it said "no"\n', "field": None}
        text = '"printed"'
        kept = {"sha256": canonical.digest(text.encode()), "size": len(text)}
        command = c.Fail(WORKER, step.id, error, retryable=True, retry_after_ms=1, output=kept)
        return [command], output(step.id, text)

    def call(self, step: StepState) -> Move:
        if self.calls and self.random.random() < 0.5:
            step_id, call_id = self.calls.pop()
            return [self.settled(step_id, call_id)], Attachments(
                settled_calls=[SettledCallRow(call_id, "maker", 3, "stop", 200, '["id"]', False, 0)]
            )
        call_id = CallId(new_id())
        commands: list[c.Command] = [c.CallModel(WORKER, step.id, call_id, "h", "router", "small")]
        if self.random.random() < 0.3:
            commands.append(self.settled(step.id, call_id))
        else:
            self.calls.append((step.id, call_id))
        return commands, Attachments(calls=[ModelCallRow(call_id, "maker")])

    def settled(self, step_id: StepId, call_id: CallId) -> c.SettleModel:
        cost = self.random.choice([None, Decimal("0.000000000001"), Decimal("1.5")])
        tokens = {"input": 3, "output": self.random.choice([None, 4]), "cached": None, "reasoning": None}
        return c.SettleModel(WORKER, step_id, call_id, "ok", "small", cost, "router", tokens, 12)


def plan(random: Random) -> Sequence[StepSpec]:
    specs: list[StepSpec] = []
    for number in range(1, random.randrange(1, 7)):
        needs = [step.id for step in specs if random.random() < 0.4]
        specs.append(
            spec(
                number,
                needs,
                gate=random.choice([Gate.ALLOW, Gate.ALLOW, Gate.ASK]),
                effect=random.choice(list(Effect)),
                on_error=random.choice(["fail", "continue"]),
                max_attempts=random.choice([1, 3]),
                backoff_ms=1,
                why="because",
            )
        )
    return specs or [spec(1)]


async def walk(database_url: str, random: Random) -> None:
    database = Database(database_url)
    await database.open()
    committer = Committer(database)
    await committer.start()
    try:
        workspace = await Workspaces(database).get_or_create("/srv/project")
        claims = Claims(database)
        worker = await register(claims)
        state = await create(committer, workspace.id, plan(random))
        claimed = await claims.claim(worker, ["default"], 100)
        claim = next(claim for claim in claimed if claim.handle.run_id == state.info.id)
        moving = Walk(random, committer, claims, workspace.id, claim.handle, [])
        for _ in range(random.randrange(5, 40)):
            await moving.step()
        await committer.refresh(moving.handle)
        await agree(database, committer, moving.handle, state.info.id)
        if not moving.handle.released:
            await claims.release_failed(moving.handle)
    finally:
        await committer.stop()
        await database.close()


async def agree(database: Database, committer: Committer, handle: RunHandle, run_id: RunId) -> None:
    verdict = await verify(database, run_id)
    assert verdict.verified, verdict.reason
    assert verdict.head_hash == handle.head.hash
    assert await committer.load(run_id) == handle.state
    assert await Committer(database).load(run_id) == handle.state


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_tables_are_what_the_journal_adds_up_to(database_url: str, seed: int) -> None:
    asyncio.run(walk(database_url, Random(seed)))
