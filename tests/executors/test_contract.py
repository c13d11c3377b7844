"""What holds for every executor that ships, whoever writes the next one."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.state import FORK, Effect, Gate
from stepgate.executors.base import Done, Executor
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.llm.offline import OfflineModel
from stepgate.llm.protocol import ModelAnswer, ModelRequest, OnText, Purpose
from tests.executors.bench import Bench

SAMPLES: Mapping[str, list[dict[str, Any]]] = {
    "read_file": [{"path": "f"}, {"path": "f", "lines": [1, 1], "max_bytes": 2}, {"path": "binary"}],
    "analyze": [{"instruction": "what is it?"}, {"instruction": "what?", "context": ["one"], "tier": "simple"}],
    "summarize": [{}],
    "edit_file": [
        {"path": "f", "content": "new\n"},
        {"path": "f", "edits": [{"find": "one", "replace": "1"}]},
        {"path": "f", "patch": "@@ -1,2 +1,1 @@\n one\n-two\n", "mode": "0755"},
        {"path": "f", "delete": True},
        {"path": "deep/er/f", "content": ""},
        {"path": "missing", "delete": True},
    ],
    "run_command": [
        {"argv": ["cat", "f"]},
        {"command": "echo x > g; exit 1", "allow_failure": True},
        {"argv": ["cat"], "stdin": "x", "env": {"A": "1"}, "limits": {"wall_s": 5}},
    ],
    "undo": [{"to": None}, {"to": "edit"}, {"to": 1}],
    "deliver": [{"run_id": "01890000-0000-7000-8000-000000000009"}],
    "fork": [{"run_ids": ["01890000-0000-7000-8000-000000000009"], "from_step": "fix", "kept": []}],
    "replay": [{"run_id": "01890000-0000-7000-8000-000000000009"}],
    "plan": [{}, {"files": ["f"], "add": False, "max_steps": 3, "background": "x"}],
}
CASES = [(executor, input_) for executor in BUILTIN for input_ in SAMPLES[executor.type]]
IDS = [f"{executor.type}-{index}" for index, (executor, _) in enumerate(CASES)]


class Planner(OfflineModel):
    """Can plan, too."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        if request.purpose is not Purpose.PLAN:
            return await super().complete(request, on_text)
        plan = {"steps": [{"key": HOSTILE, "type": "read_file", "input": {"path": HOSTILE}, "why": HOSTILE}]}
        return ModelAnswer(text="", data=plan, model=HOSTILE, latency_ms=1)


@pytest.fixture
async def filled(bench: Bench) -> Bench:
    bench.models.router = Planner()
    (bench.path / "f").write_text("one\ntwo\n")
    (bench.path / "binary").write_bytes(b"\xff\x00")
    bench.finish("one", {"text": "The sum of all of the parts is wrong by one."})
    await bench.do(Registry().get("edit_file"), "edit", {"path": "made", "content": "a\n"})
    await bench.do(Registry().get("edit_file"), "edit-2", {"path": "made", "content": "b\n"})
    return bench


@pytest.mark.parametrize("executor", BUILTIN, ids=lambda executor: executor.type)
def test_it_says_what_it_is(executor: Executor[Any]) -> None:
    assert executor.summary.endswith(".")
    assert executor.version
    assert executor.max_attempts >= 1
    assert type(executor).__doc__
    if executor.effect is not Effect.NONE and executor.type != FORK:  # changes only the copy that was made for it
        assert executor.gate is Gate.ASK
    assert SAMPLES[executor.type]


def properties(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items() if isinstance(schema.get("properties"), dict) else ()
        for value in schema.values():
            yield from properties(value)


@pytest.mark.parametrize("executor", BUILTIN, ids=lambda executor: executor.type)
def test_its_input_is_described_and_closed(executor: Executor[Any]) -> None:
    schema = executor.params.model_json_schema()
    assert schema["additionalProperties"] is False
    found = list(properties(schema))
    assert found
    assert [name for name, body in found if not body.get("description")] == []
    canonical.dumps(schema)


@pytest.mark.parametrize(("executor", "input_"), CASES, ids=IDS)
def test_unknown_fields_and_coercion_are_refused(executor: Executor[Any], input_: dict[str, Any]) -> None:
    executor.params.model_validate(input_)
    with pytest.raises(ValidationError, match="extra_forbidden"):
        executor.params.model_validate({**input_, "surely_no_field": 1})
    assert executor.params.model_config.get("strict") is True
    assert executor.params.model_config.get("frozen") is True


@pytest.mark.parametrize(("executor", "input_"), CASES, ids=IDS)
async def test_preparing_has_no_effect_and_gives_the_same_action_again(
    filled: Bench, executor: Executor[Any], input_: dict[str, Any]
) -> None:
    before = filled.tree()
    first = await filled.prepare(executor, input_)
    second = await filled.prepare(executor, input_)
    assert canonical.dumps(first.action) == canonical.dumps(second.action)
    assert canonical.dumps(first.rendering) == canonical.dumps(second.rendering)
    assert first.rendering["title"]
    assert first.risk in ("low", "medium", "high")
    assert filled.tree() == before
    if not executor.prepares_long(executor.params.model_validate(input_)):
        assert filled.models.asked == []
    for shown in (first.action, first.rendering):
        canonical.check(shown)


HOSTILE = "x\x1b[2J\u202e\r"
HOSTILE_INPUTS: Mapping[str, list[dict[str, Any]]] = {
    "read_file": [{"path": HOSTILE}],
    "analyze": [{"instruction": HOSTILE, "model": HOSTILE, "tier": HOSTILE}],
    "summarize": [{"instruction": HOSTILE}],
    "edit_file": [
        {"path": HOSTILE, "content": HOSTILE},
        {"path": HOSTILE, "delete": True},
        {"path": "f", "edits": [{"find": HOSTILE, "replace": ""}]},
        {"path": "f", "patch": HOSTILE},
    ],
    "run_command": [
        {"argv": [HOSTILE, HOSTILE], "env": {"A": HOSTILE}, "stdin": HOSTILE},
        {"command": HOSTILE, "cwd": HOSTILE},
        {"argv": ["a"], "limits": {"wall_s": 1e9}},
    ],
    "undo": [{"to": HOSTILE}],
    "deliver": [{"run_id": HOSTILE}],
    "fork": [{"run_ids": [HOSTILE], "from_step": HOSTILE, "kept": [HOSTILE]}],
    "replay": [{"run_id": HOSTILE}],
    "plan": [{"instruction": HOSTILE, "files": [HOSTILE], "background": HOSTILE, "model": HOSTILE}],
}


def texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, item in value.items():
                yield name
                yield from texts(item)
        case list() | tuple():
            for item in value:
                yield from texts(item)
        case _:
            assert value is None or isinstance(value, int | float)


@pytest.mark.parametrize(
    ("executor", "input_"), [(executor, input_) for executor in BUILTIN for input_ in HOSTILE_INPUTS[executor.type]]
)
async def test_nothing_a_person_is_shown_acts_on_the_screen(
    filled: Bench, executor: Executor[Any], input_: dict[str, Any]
) -> None:
    prepared = await filled.prepare(executor, input_)
    for text in (*texts(prepared.rendering), prepared.failure or ""):
        assert text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize(("executor", "input_"), [case for case in CASES if "missing" not in case[1].values()])
async def test_executing_does_what_was_prepared_and_leaves_the_workspace_to_the_engine(
    filled: Bench, executor: Executor[Any], input_: dict[str, Any]
) -> None:
    before = filled.tree()
    prepared = await filled.prepare(executor, input_)
    # What came out ahead of the question is what was approved, and is not done again.
    done = prepared.outcome or await filled.execute(executor, input_, prepared=prepared)
    assert isinstance(done, Done)
    assert filled.tree() == before
    canonical.check(done.output)
    assert canonical.loads(canonical.dumps(done.output)) == done.output
    if executor.effect is Effect.NONE:
        assert done.change_set is None
    if done.change_set is not None:
        filled.apply("step", done)
        assert filled.tree() != before


def test_no_case_is_forgotten() -> None:
    assert set(SAMPLES) == {executor.type for executor in BUILTIN}
