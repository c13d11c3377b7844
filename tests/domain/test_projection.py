"""The rows of a run: what the tables hold is what the journal adds up to."""

from decimal import Decimal

import orjson

from stepgate.domain import projection
from stepgate.domain.evolve import fold
from stepgate.domain.journal import parse
from stepgate.domain.state import ApprovalStatus, Effect, RunState
from stepgate.domain.wake import next_wake
from tests.domain.golden_run import golden_run
from tests.domain.runs import CHANGE, HASH, OTHER_HASH, SECOND, Run, gated, spec, started


def rows(state: RunState) -> list[object]:
    """Every row the state stands for, in a fixed order."""
    run_id = state.info.id
    found: list[object] = [projection.run_facts(state), projection.run_row(state)]
    for step in sorted(state.steps.values(), key=lambda step: step.spec.number):
        found += [projection.step_facts(run_id, step), projection.step_row(run_id, step)]
        for approval in step.approvals:
            found += [
                projection.request_row(run_id, step, approval),
                projection.decision_rows(run_id, approval),
            ]
    return found


def run_row(run: Run) -> projection.RunRow:
    return projection.run_row(run.state)


def step_row(run: Run, number: int) -> projection.StepRow:
    return projection.step_row(run.state.info.id, run.step(number))


def test_the_rows_folded_from_the_stored_texts_are_the_rows_written_with_the_events() -> None:
    run = golden_run()
    records, _ = run.records()
    assert rows(fold(parse(record.body) for record in records)) == rows(run.state)


def test_the_order_of_keys_in_labels_and_metadata_does_not_reach_the_rows() -> None:
    run = golden_run()
    facts = projection.run_facts(run.state)
    assert facts.metadata == '{"Alpha":[1.5,-0.25,true,null,{"a":1,"b":2}],"zeta":1,"é":""}'
    assert facts.labels == '{"team":"core"}'


def test_a_status_reads_in_a_row_as_it_reads_in_the_database() -> None:
    run = started(gated(1))
    run.ask(1)
    row = run_row(run)
    assert (row.status, row.phase) == ("awaiting_approval", "running")
    assert orjson.loads(orjson.dumps([row.status, row.phase])) == ["awaiting_approval", "running"]
    assert f"{row.status}" == "awaiting_approval"


def test_progress_counts_planned_steps_and_leaves_undo_steps_out() -> None:
    run = started(spec(1), spec(2))
    run.complete(1)
    assert (run_row(run).steps_done, run_row(run).steps_total) == (1, 2)
    run.complete(2)
    run.undo(3)
    assert (run_row(run).steps_done, run_row(run).steps_total) == (2, 2)


def test_the_wake_time_of_a_row_is_the_one_of_its_state() -> None:
    run = started(spec(1, max_attempts=2, backoff_ms=1000))
    assert run_row(run).wake_at == next_wake(run.state) == run.state.queued_at
    run.fail(1, retryable=True)
    assert run_row(run).wake_at == run.now + SECOND
    run.pause()
    assert run_row(run).wake_at is None


def test_the_wake_time_stays_the_same_from_step_to_step() -> None:
    run = started(spec(1), spec(2), spec(3))
    before = run_row(run).wake_at
    run.wait(SECOND)
    run.complete(1)
    run.wait(SECOND)
    run.begin(2)
    assert run_row(run).wake_at == before


def test_the_result_of_a_step_stands_in_its_row() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.compute(1)
    run.complete(1, result=CHANGE)
    row = step_row(run, 1)
    assert (row.status, row.change_set_id, row.change_set_digest) == ("completed", "c-1", "d" * 64)
    assert (row.workspace_before, row.workspace_after, row.latency_ms) == ("rev-0", "rev-1", 5)
    assert run_row(run).workspace_rev == "rev-1"


def test_an_error_stands_in_a_row_as_canonical_json() -> None:
    run = started(spec(1))
    run.fail(1, code="boom")
    row = step_row(run, 1)
    assert row.error == '{"code":"boom","field":null,"message":"it went wrong"}'
    assert row.reason == "boom"


def test_an_unknown_cost_is_counted_and_never_added_as_zero() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1, "a")
    run.settle_model(1, "a", cost=Decimal("0.25"), source="router")
    run.call_model(1, "b")
    for row in (run_row(run), step_row(run, 1)):
        assert (row.model_calls, row.unknown_cost_calls, row.known_cost_usd) == (2, 1, Decimal("0.25"))
    assert run_row(run).tokens_input is None


def test_every_revision_is_a_row_and_every_answer_is_a_row() -> None:
    run = started(gated(1))
    run.ask(1, OTHER_HASH)
    run.approve(1, OTHER_HASH)
    run.ask(1, HASH)
    run.reject(1, HASH, then="skip")
    run_id, step = run.state.info.id, run.step(1)
    requests = [projection.request_row(run_id, step, approval) for approval in step.approvals]
    assert [(row.revision, row.status) for row in requests] == [(1, "superseded"), (2, "rejected")]
    decisions = [row for approval in step.approvals for row in projection.decision_rows(run_id, approval)]
    assert [(row.verdict, row.then, row.action_hash, row.actor) for row in decisions if row.settles] == [
        ("approved", None, OTHER_HASH, "ada"),
        ("rejected", "skip", HASH, "ada"),
    ]


def test_a_question_without_an_answer_has_no_decision_row_and_neither_has_an_expired_one() -> None:
    run = started(gated(1))
    run.ask(1, expires_at=run.now + 1)
    (asked,) = run.step(1).approvals
    assert projection.decision_rows(run.state.info.id, asked) == ()
    run.wait(1)
    run.expire()
    (expired,) = run.step(1).approvals
    assert expired.status is ApprovalStatus.EXPIRED
    assert projection.decision_rows(run.state.info.id, expired) == ()


def test_a_decision_with_an_implied_hash_says_so_in_its_row() -> None:
    run = started(gated(1))
    run.ask(1)
    run.approve(1, None)
    (decision,) = projection.decision_rows(run.state.info.id, run.step(1).approvals[0])
    assert (decision.implied, decision.action_hash) == (True, HASH)


def test_columns_outside_the_journal_are_named_in_one_place_and_are_no_row_s_field() -> None:
    kinds: dict[str, tuple[tuple[str, ...], ...]] = {
        "runs": (projection.RunRow._fields, projection.RunFacts._fields),
        "steps": (projection.StepRow._fields, projection.StepFacts._fields),
        "approval_requests": (projection.RequestRow._fields,),
        "approval_decisions": (projection.DecisionRow._fields,),
    }
    assert set(projection.UNJOURNALED) == set(kinds)
    for table, columns in projection.UNJOURNALED.items():
        for fields in kinds[table]:
            assert not set(columns) & set(fields)
