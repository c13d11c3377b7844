import difflib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from stepgate.domain.errors import InvalidPlan, Problem
from stepgate.domain.limits import MAX_PROBLEMS
from stepgate.domain.plan import KnownStep, Plan, PlannedStep, StepType, ValidPlan
from stepgate.domain.plan_check import validate_plan, validate_steps
from stepgate.domain.plan_faults import check_params

Step = dict[str, Any]


class ReadParams(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    lines: list[int] | None = None
    mode: str | None = Field(default=None, pattern="^[0-7]{3}$")


STEP_TYPES: Mapping[str, StepType] = {
    "read_file": StepType("read_file", lambda value: check_params(ReadParams, value)),
    "analyze": StepType("analyze", lambda value: [], max_attempts=3, step_keys=("context",)),
}


def read(**fields: Any) -> Step:
    return {"type": "read_file", "input": {"path": "a.txt"}, **fields}


def plan(*steps: Any, **fields: Any) -> dict[str, Any]:
    return {"version": 1, "steps": list(steps), **fields}


def valid(raw: Any, **given: Any) -> ValidPlan:
    return validate_plan(raw, step_types=STEP_TYPES, **given)


def problems(raw: Any, **given: Any) -> tuple[Problem, ...]:
    with pytest.raises(InvalidPlan) as caught:
        valid(raw, **given)
    return caught.value.problems


def fields(raw: Any, **given: Any) -> list[str]:
    return [problem.field for problem in problems(raw, **given)]


def using(key: str) -> Step:
    return read(input={"path": f"${{{{ steps.{key}.output.text }}}}"})


def test_everything_a_step_may_say() -> None:
    step = read(
        key="a",
        needs=[],
        retry={"max_attempts": 3, "backoff": "2s"},
        timeout="5m",
        on_error="continue",
        gate="ask",
        why="because",
    )
    found = valid(plan(step, name="n", goal="g", limits={"max_steps": 5}))
    assert found == ValidPlan(
        name="n",
        goal="g",
        params={},
        limits=found.limits,
        steps=(
            PlannedStep(
                key="a",
                type="read_file",
                input={"path": "a.txt"},
                needs=(),
                max_attempts=3,
                backoff_ms=2000,
                timeout_ms=300_000,
                on_error="continue",
                gate="ask",
                why="because",
            ),
        ),
    )
    assert found.limits.max_steps == 5


def test_what_a_step_leaves_out() -> None:
    (step, other) = valid(plan(read(), {"type": "analyze"})).steps
    assert step == PlannedStep("step-1", "read_file", {"path": "a.txt"}, (), 1, 1000, None, "fail", None, None)
    assert (other.key, other.needs, other.max_attempts) == ("step-2", ("step-1",), 3)


def test_step_type_is_another_name_for_type() -> None:
    assert valid(plan({"step_type": "analyze"})).steps[0].type == "analyze"
    assert fields(plan({"step_type": "analyze", "type": "analyze"})) == ["steps[0].step_type"]


def test_a_list_runs_in_order_and_needs_make_a_graph() -> None:
    steps = valid(
        plan(read(key="a"), read(key="b", needs=[]), read(key="c"), read(key="d", needs=["a", "b", "a"]))
    ).steps
    assert [step.needs for step in steps] == [(), (), ("b",), ("a", "b")]


def test_a_step_may_need_one_written_after_it() -> None:
    steps = valid(plan(read(key="a", needs=["b"]), read(key="b", needs=[]))).steps
    assert steps[0].needs == ("b",)


def test_steps_added_to_a_run_go_on_from_its_last_step() -> None:
    existing = [KnownStep("a", ()), KnownStep("b", ("a",))]
    steps = validate_steps([using("a"), read()], step_types=STEP_TYPES, existing=existing)
    assert [(step.key, step.needs) for step in steps] == [("step-3", ("b",)), ("step-4", ("step-3",))]


def test_steps_added_to_a_run_are_checked_against_it() -> None:
    existing = [KnownStep("a", ()), KnownStep("b", ())]
    with pytest.raises(InvalidPlan) as caught:
        validate_steps([read(key="a"), using("a"), read(needs=["x"])], step_types=STEP_TYPES, existing=existing)
    assert [problem.field for problem in caught.value.problems] == ["steps[0].key", "steps[2].needs"]
    with pytest.raises(InvalidPlan) as caught:
        validate_steps([using("a")], step_types=STEP_TYPES, existing=existing)
    assert caught.value.problems[0].fix == "add a to its needs"
    with pytest.raises(InvalidPlan):
        validate_steps([read()], step_types=STEP_TYPES, existing=existing, max_steps=2)
    with pytest.raises(InvalidPlan) as caught:
        validate_steps([read(needs=["c"])], step_types=STEP_TYPES, existing=[*existing, KnownStep("c", (), gone=True)])
    (problem,) = caught.value.problems
    assert (problem.field, problem.message.split(",")[0]) == ("steps[0].needs", "step 'c' was rejected or replaced")


@pytest.mark.parametrize(
    ("raw", "field", "fix"),
    [
        (plan(read(type="red_file")), "steps[0].type", "did you mean read_file?"),
        (plan({"input": {}}), "steps[0].type", "add it"),
        (plan(read(tiemout=3)), "steps[0].tiemout", "did you mean timeout?"),
        (plan(read(input={"path": "a", "lins": [1]})), "steps[0].input.lins", "did you mean lines?"),
        (plan(read(input={})), "steps[0].input.path", "add it"),
        (plan(read(input={"path": 123})), "steps[0].input.path", None),
        (plan(read(input={"path": "a", "lines": [1, "2"]})), "steps[0].input.lines[1]", None),
        (plan(read(input={"path": "a", "mode": "rw-"})), "steps[0].input.mode", "it must match ^[0-7]{3}$"),
        (plan(read(input="a.txt")), "steps[0].input", None),
        (plan(read(input={"path": "a\x00b"})), "steps[0].input.path", "remove the NUL character"),
        (plan(read(input={"path": "\ud800"})), "steps[0].input.path", "send valid UTF-8 text"),
        (plan(read(input={"path": float("nan")})), "steps[0].input.path", "send a finite number or null"),
        (plan(read(input={"path": 2**63})), "steps[0].input.path", "send it as a string"),
        (plan(read(input={"path": "${{ steps.a }}"})), "steps[0].input.path", "write ${{ steps"),
        (plan(read(timeout="soon")), "steps[0].timeout", "write seconds"),
        (plan(read(timeout="25h")), "steps[0].timeout", None),
        (plan(read(timeout=0)), "steps[0].timeout", None),
        (plan(read(retry={"max_attempts": 11})), "steps[0].retry.max_attempts", None),
        (plan(read(retry={"max_attempts": "3"})), "steps[0].retry.max_attempts", None),
        (plan(read(retry={"max_attempts": 0})), "steps[0].retry.max_attempts", None),
        (plan(read(retry={"backoff": "1s"})), "steps[0].retry.max_attempts", "add it"),
        (plan(read(on_error="ignore")), "steps[0].on_error", None),
        (plan(read(gate="allow")), "steps[0].gate", None),
        (plan(read(key="1st")), "steps[0].key", "a letter, then"),
        (plan(read(key="a" * 65)), "steps[0].key", "a letter, then"),
        (plan(read(key="a\n")), "steps[0].key", "a letter, then"),
        (plan(read(needs="a")), "steps[0].needs", None),
        (plan(read(needs=["a"])), "steps[0].needs", "one of: step-1"),
        (plan(read(), 7), "steps[1]", None),
        (plan(read(), needs=[]), "needs", None),
        (plan(read(), gaol="x"), "gaol", "did you mean goal?"),
        (plan(read(), version=2), "version", None),
        (plan(read(), version="1"), "version", None),
        (plan(read(), goal=""), "goal", None),
        (plan(read(), goal="x" * 10_001), "goal", None),
        (plan(read(), goal="a\x00"), "goal", "remove the NUL character"),
        (plan(read(), limits={"max_steps": 0}), "limits.max_steps", None),
        (plan(read(), limits={"max_steps": True}), "limits.max_steps", None),
        (plan(read(), limits={"dollars": 1}), "limits.dollars", None),
        (plan(read(), read(), limits={"max_steps": 1}), "steps", "split the work in runs"),
        (plan(), "steps", "add at least one step"),
        (plan(*[read()] * 10_001), "steps", "split the work in runs"),
        ({"goal": "g"}, "steps", "add a list of steps"),
        (plan(read(), steps={"a": read()}), "steps", "write one list entry"),
        ([read()], "", "write version: 1"),
        (plan(read(key="a"), read(key="a")), "steps[1].key", "give it another key"),
        (plan(read(key="step-2"), read()), "steps[1].key", "give it another key"),
        (plan(read(key="a", needs=["a"])), "steps[0].needs", "remove one of these needs"),
    ],
)
def test_a_fault_is_named_by_field_with_its_fix(raw: Any, field: str, fix: str | None) -> None:
    (problem,) = problems(raw)
    assert problem.field == field
    if fix is not None:
        assert problem.fix is not None
        assert problem.fix.startswith(fix)


def test_all_faults_come_at_once() -> None:
    raw = plan(
        {"key": "a", "type": "red_file", "input": {"pth": 1}, "timeout": "5x", "foo": 1},
        read(key="a", input={"path": 3}, needs=["nowhere"]),
        read(gate="allow"),
        read(key="d", needs=["e"]),
        read(key="e", needs=["d"]),
        version=3,
        params={"p": {"type": "integer", "default": "x"}},
    )
    assert fields(raw) == [
        "version",
        "steps[0].timeout",
        "steps[0].foo",
        "steps[0].type",
        "steps[1].input.path",
        "steps[2].gate",
        "steps[1].key",
        "steps[1].needs",
        "steps[3].needs",
    ]


def test_a_faulty_step_brings_no_blame_on_others() -> None:
    assert fields(plan(read(key="a", gate=3), using("a"), read(needs=["a"]))) == ["steps[0].gate"]
    assert fields(plan(read(key="a"), read(key="b", needs=5), using("a"))) == ["steps[1].needs"]


def test_cycles_are_named_by_their_steps() -> None:
    raw = plan(
        read(key="a", needs=["c"]),
        read(key="b", needs=["a"]),
        read(key="c", needs=["b"]),
        read(key="behind", needs=["a"]),
        read(key="x", needs=["y"]),
        read(key="y", needs=["x"]),
    )
    found = problems(raw)
    assert [problem.field for problem in found] == ["steps[0].needs", "steps[4].needs"]
    assert "a needs c needs b needs a" in found[0].message
    assert "x needs y needs x" in found[1].message


@pytest.mark.parametrize(
    ("steps", "fix"),
    [
        ([read(key="a"), read(key="b", needs=[]), using("a")], "add a to its needs"),
        ([using("later"), read(key="later")], "add later to its needs"),
        ([read(key="a"), using("step-2")], "refer to a step before it"),
        ([read(key="alpha"), using("alpah")], "did you mean alpha?"),
    ],
)
def test_a_reference_reaches_ancestors_only(steps: Sequence[Step], fix: str) -> None:
    (problem,) = problems(plan(*steps))
    assert problem.field == f"steps[{steps.index(next(s for s in steps if '$' in s['input']['path']))}].input.path"
    assert problem.fix == fix


def test_a_reference_reaches_through_several_steps() -> None:
    valid(plan(read(key="a"), read(key="b"), read(key="x", needs=[]), {**using("a"), "needs": ["x", "b"]}))


def test_what_holds_a_reference_is_checked_only_once_resolved() -> None:
    step: Step = {"type": "read_file", "input": {"path": "a", "lines": "${{ steps.a.output.lines }}"}}
    valid(plan(read(key="a"), step))
    assert fields(plan(read(key="a"), {**step, "input": {**step["input"], "more": 1}})) == ["steps[1].input.more"]


@pytest.mark.parametrize(
    ("context", "field"),
    [
        (["a", "nope"], "steps[2].input.context[1]"),
        (["b"], "steps[2].input.context[0]"),
        (["c"], "steps[2].input.context[0]"),
    ],
)
def test_steps_named_as_context_must_be_ancestors(context: list[str], field: str) -> None:
    asking = {"key": "c", "type": "analyze", "needs": ["a"], "input": {"context": context}}
    assert fields(plan(read(key="a"), read(key="b"), asking)) == [field]


def test_ancestors_may_be_named_as_context() -> None:
    asking: Step = {"type": "analyze", "input": {"context": ["a", "${{ steps.b.output.text }}", "b"]}}
    valid(plan(read(key="a"), read(key="b"), asking))


def test_parameters_are_filled_in_with_their_types() -> None:
    raw = plan(
        read(input={"path": "src/${{ params.file }}", "lines": ["${{ params.first }}", 9]}),
        using("step-1"),
        goal="Read ${{ params.file }}, $${{ as it is }}",
        params={"file": {"default": "a.py"}, "first": {"type": "integer"}},
    )
    found = valid(raw, params={"first": 3})
    assert found.goal == "Read a.py, ${{ as it is }}"
    assert found.params == {"file": "a.py", "first": 3}
    assert [step.input for step in found.steps] == [
        {"path": "src/a.py", "lines": [3, 9]},
        {"path": "${{ steps.step-1.output.text }}"},
    ]


def test_filled_in_parameters_are_checked_like_anything_else() -> None:
    raw = plan(read(input={"path": "${{ params.p }}"}), params={"p": {"type": "json"}})
    assert fields(raw, params={"p": 3}) == ["steps[0].input.path"]


@pytest.mark.parametrize(
    ("raw", "given_values", "field"),
    [
        (plan(read(), params={"p": {}}), {}, "params.p"),
        (plan(read(), params={"p": {}}), {"p": "x", "q": 1}, "params.q"),
        (plan(read(), params={"p": {"type": "integer"}}), {"p": True}, "params.p"),
        (plan(read(), params={"p": {"enum": ["a", "b"]}}), {"p": "c"}, "params.p"),
        (plan(read(), params={"p": {"type": "date"}}), {}, "params.p.type"),
        (plan(read(), params={"p q": {}}), {}, "params.p q.[key]"),
        (plan(using("x"), goal="${{ steps.a.output }}"), {}, "goal"),
        (plan(read(), goal="${{ params.nope }}"), {}, "goal"),
        (plan(read(), goal="${{ params.p }}", params={"p": {}}), {"p": "x" * 10_001}, "goal"),
        (plan(read(input={"path": "${{ params.pth }}"}), params={"path": {"default": ""}}), {}, "steps[0].input.path"),
    ],
)
def test_faulty_parameters_are_named(raw: Any, given_values: Mapping[str, Any], field: str) -> None:
    assert fields(raw, params=given_values)[0] == field


def test_problems_are_bounded_and_counted() -> None:
    with pytest.raises(InvalidPlan) as caught:
        valid(plan(*[read(needs=["nowhere"], gate="allow") for _ in range(1000)]))
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.details["problems"] == 2000


def long_chain() -> dict[str, Any]:
    return plan(*[read(key="s0"), *[{**using(f"s{i}"), "key": f"s{i + 1}"} for i in range(9_999)]])


def far_references() -> dict[str, Any]:
    return plan(*[read(key="s0"), *[{**using("s0"), "key": f"s{i + 1}"} for i in range(9_999)]])


def wide_join() -> dict[str, Any]:
    many = [read(key=f"s{i}", needs=[]) for i in range(9_999)]
    join = "".join(f"${{{{ steps.s{i}.output.text }}}}" for i in range(9_999))
    return plan(*many, read(needs=[f"s{i}" for i in range(9_999)], input={"path": join}))


def one_great_cycle() -> dict[str, Any]:
    return plan(*[read(key=f"s{i}", needs=[f"s{(i + 1) % 10_000}"]) for i in range(10_000)])


def unknown_needs() -> dict[str, Any]:
    return plan(*[read(key=f"s{i}", needs=[f"t{i}"]) for i in range(10_000)])


def unknown_types() -> dict[str, Any]:
    return plan(*[read(type=f"read_fil{i}") for i in range(10_000)])


@pytest.mark.parametrize("build", [long_chain, far_references, wide_join])
def test_plans_of_ten_thousand_steps_are_accepted(build: Any) -> None:
    assert len(valid(build()).steps) == 10_000


@pytest.mark.parametrize("build", [one_great_cycle, unknown_needs, unknown_types])
def test_hostile_plans_of_ten_thousand_steps_are_refused_without_great_cost(build: Any) -> None:
    raw = build()
    began = time.process_time()
    assert problems(raw)
    # A quadratic search takes minutes here; a linear one tenths of a second.
    assert time.process_time() - began < 20


def test_parameters_fill_steps_up_to_a_bound_for_all_of_them() -> None:
    twice = [read(input={"path": "${{ params.p }}" * 9}) for _ in range(2)]
    raw = plan(*twice, params={"p": {}})
    assert fields(raw, params={"p": "x" * 1_000_000}) == ["steps[1].input.path"]


def misspelt_arguments() -> dict[str, Any]:
    declared = {f"name_{n}": {"default": ""} for n in range(200)}
    return {"raw": plan(read(), params=declared), "params": {f"nane_{n}": "" for n in range(20_000)}}


def misspelt_parameters() -> dict[str, Any]:
    text = "${{ params.q }}" * 20_000
    return {"raw": plan(read(input={"path": text}), params={"p": {"default": ""}})}


def misspelt_fields() -> dict[str, Any]:
    return {"raw": plan(read(), **{f"goal_{n}": 1 for n in range(20_000)})}


def misspelt_inputs() -> dict[str, Any]:
    return {"raw": plan(read(input={f"path_{n}": 1 for n in range(20_000)}))}


@pytest.mark.parametrize("build", [misspelt_arguments, misspelt_parameters, misspelt_fields, misspelt_inputs])
def test_what_was_meant_is_only_looked_for_where_it_is_told(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[str] = []
    search = difflib.get_close_matches

    def counted(word: str, *given: Any) -> list[str]:
        searches.append(word)
        return search(word, *given)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    assert len(problems(**build())) == MAX_PROBLEMS
    assert 0 < len(searches) <= MAX_PROBLEMS


def test_needs_and_references_are_bounded_in_all() -> None:
    needs = [f"s{i}" for i in range(300)]
    many = [read(key=key, needs=[]) for key in needs]
    assert fields(plan(*many, *[read(needs=needs) for _ in range(700)])) == ["steps"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["a", "b", "c", "step-2"])


odd_steps = st.fixed_dictionaries(
    {"type": st.sampled_from(["read_file", "analyze", "x"])},
    optional={
        "key": keys | json_values,
        "needs": st.lists(keys, max_size=3) | json_values,
        "input": st.fixed_dictionaries(
            {"path": st.text(max_size=5) | keys.map(lambda k: f"${{{{ steps.{k}.output }}}}")}
        )
        | json_values,
        "retry": json_values,
        "timeout": json_values,
        "gate": st.just("ask") | json_values,
    },
)


@given(st.lists(odd_steps | json_values, max_size=5) | json_values, json_values)
def test_any_json_is_a_valid_plan_or_an_invalid_one(steps: Any, params: Any) -> None:
    try:
        found = valid({"steps": steps, "params": params})
    except InvalidPlan as error:
        # Without a place and a message nobody can mend it.
        if not error.problems:
            raise
        return
    position = {step.key: None for step in found.steps}
    assert len(position) == len(found.steps) == len(steps)
    done: set[str] = set()
    for _ in found.steps:
        done |= {step.key for step in found.steps if set(step.needs) <= done}
    assert done == set(position)


def test_the_published_schema_describes_steps_and_refuses_extras() -> None:
    schema = Plan.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["PlanStep"]["additionalProperties"] is False
    assert set(schema["$defs"]["PlanStep"]["properties"]) >= {
        "key",
        "type",
        "input",
        "needs",
        "retry",
        "timeout",
        "gate",
    }
