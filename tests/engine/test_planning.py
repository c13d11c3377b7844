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
    assert caught.value.field == "to_step"


def test_what_is_added_to_a_fork_waits_until_its_copy_is_what_the_workspace_was() -> None:
    origin = with_steps([{"key": "a", "type": "read_file", "input": {"path": "a"}}])
    (prologue,) = planning.define_fork(origin, REGISTRY, "a", [origin.info.id], []).specs
    fork = RunState(info(new_id())._replace(origin={"run_id": origin.info.id, "requesters": []}))
    fork = evolve(fork, events.run_planned(PERSON, 1, 1, (prologue,)))
    given: list[tuple[str, list[str]]] = [("x", []), ("y", ["fork"]), ("z", ["x"])]
    added = [{"key": key, "type": "read_file", "input": {"path": "a"}, "needs": needs} for key, needs in given]
    assert [spec.needs[0] for spec in define(added, fork).specs] == [prologue.id, prologue.id, prologue.id]


def test_nobody_can_plan_an_undo() -> None:
    with pytest.raises(InvalidPlan):
        define([{"type": "undo", "input": {}}])


def test_a_step_is_recorded_behind_those_it_needs_wherever_the_plan_has_them() -> None:
    def step(key: str, *needs: str) -> dict[str, Any]:
        return {"key": key, "type": "read_file", "input": {"path": "a"}, "needs": list(needs)}

    specs = define([step("d", "b", "c"), step("c", "a"), step("e"), step("b", "a"), step("a")]).specs
    assert [(spec.key, spec.number) for spec in specs] == [("e", 1), ("a", 2), ("c", 3), ("b", 4), ("d", 5)]
    ids = {spec.key: spec.id for spec in specs}
    assert next(spec.needs for spec in specs if spec.key == "d") == (ids["b"], ids["c"])
    written = [step("a"), step("b", "a"), step("c")]
    assert [spec.key for spec in define(written).specs] == ["a", "b", "c"]
