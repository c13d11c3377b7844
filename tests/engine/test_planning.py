"""From what people write to what is recorded: checks that name the field, and steps with everything filled in."""

from typing import Any

import pytest

from stepgate.domain import canonical, events
from stepgate.domain.errors import InvalidPlan, InvalidValue
from stepgate.domain.evolve import evolve
from stepgate.domain.ids import new_id
from stepgate.domain.state import Effect, Gate, RunState
from stepgate.engine import planning
from stepgate.executors.registry import Registry
from tests.storage.building import PERSON, info

REGISTRY = Registry()


def define(raw: Any, state: RunState | None = None) -> planning.Definitions:
    return planning.define(planning.steps_of(raw, REGISTRY, state), REGISTRY, state)


@pytest.mark.parametrize("goal", [None, "", "  ", 7, "x" * 10_001, "a\x00b", "a\ud800b"])
def test_a_goal_that_cannot_be_kept_is_refused_by_its_field(goal: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        planning.check_goal(goal)
    assert caught.value.field == "goal"


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        (["a"], "labels"),
        ({f"n{n}": "x" for n in range(65)}, "labels"),
        ({"": "x"}, "labels."),
        ({"team": 7}, "labels.team"),
        ({"team": "x" * 201}, "labels.team"),
        ({"team": "a\x00"}, "labels.team"),
    ],
)
def test_labels_that_are_no_short_texts_are_refused_by_their_field(labels: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        planning.check_labels(labels)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "metadata", ["text", {"n": float("nan")}, {"n": 2**64}, {"t": "a\x00"}, {"t": "x" * 70_000}], ids=str
)
def test_metadata_that_is_no_json_object_of_a_fair_size_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        planning.check_metadata(metadata)
    assert (caught.value.field or "").startswith("metadata")


def test_labels_and_metadata_may_be_left_out() -> None:
    assert (planning.check_labels(None), planning.check_metadata(None)) == ({}, {})


@pytest.mark.parametrize("raw", [{"max_steps": 0}, {"max_steps": "many"}, {"budget_usd": 1}, 7])
def test_limits_that_nothing_enforces_are_not_accepted(raw: Any) -> None:
    with pytest.raises(InvalidPlan) as caught:
        planning.limits_of(raw)
    assert all(problem.field.startswith("limits") for problem in caught.value.problems)


@pytest.mark.parametrize("raw", [None, "steps", {"type": "read_file"}])
def test_steps_are_a_list(raw: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        planning.steps_of(raw, REGISTRY)
    assert caught.value.field == "steps"


def test_a_list_runs_in_order_and_its_steps_take_effect_and_gate_from_their_types() -> None:
    found = define(
        [
            {"type": "read_file", "input": {"path": "a"}},
            {"key": "e", "type": "edit_file", "input": {"path": "a", "content": "x"}},
            {"key": "r", "type": "read_file", "input": {"path": "a"}, "needs": [], "gate": "ask"},
        ]
    )
    first, second, third = found.specs
    assert [(spec.key, spec.number) for spec in found.specs] == [("step-1", 1), ("e", 2), ("r", 3)]
    assert (first.needs, second.needs, third.needs) == ((), (first.id,), ())
    assert [(spec.effect, spec.gate) for spec in found.specs] == [
        (Effect.NONE, Gate.ALLOW),
        (Effect.WORKSPACE, Gate.ASK),
        (Effect.NONE, Gate.ASK),
    ]


def test_an_input_is_recorded_by_digest_and_kept_as_canonical_text() -> None:
    found = define([{"type": "edit_file", "input": {"path": "a", "content": "ü"}}])
    (spec,) = found.specs
    text = found.inputs[spec.id]
    assert text == '{"content":"ü","path":"a"}'
    assert (spec.input_sha256, spec.input_size) == (canonical.digest(text.encode()), len(text.encode()))


def test_steps_added_later_count_on_and_may_need_earlier_ones() -> None:
    state = with_steps([{"key": "a", "type": "read_file", "input": {"path": "a"}}])
    found = define([{"key": "b", "type": "read_file", "input": {"path": "b"}, "needs": ["a"]}], state)
    (spec,) = found.specs
    assert (spec.number, spec.needs) == (2, (state.keys["a"],))
    with pytest.raises(InvalidPlan):
        define([{"key": "a", "type": "read_file", "input": {"path": "b"}}], state)


def with_steps(raw: Any) -> RunState:
    return evolve(RunState(info(new_id())), events.run_planned(PERSON, 1, 1, define(raw).specs))


def test_an_undo_names_a_step_by_key_or_number() -> None:
    state = with_steps([{"key": "a", "type": "read_file", "input": {"path": "a"}}])
    for to in (None, "a", "1"):
        (spec,) = planning.define_undo(state, REGISTRY, to).specs
        assert (spec.type, spec.gate, spec.number, spec.key) == ("undo", Gate.ASK, 2, "undo-2")
    with pytest.raises(InvalidValue) as caught:
        planning.define_undo(state, REGISTRY, "zz")
    assert caught.value.field == "to"


def test_nobody_can_plan_an_undo() -> None:
    with pytest.raises(InvalidPlan):
        define([{"type": "undo", "input": {}}])
