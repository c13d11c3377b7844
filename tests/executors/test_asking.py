from typing import Any

import httpx2
import orjson
import pytest

from stepgate.domain.errors import ModelUnavailable, StaleApproval
from stepgate.domain.plan_faults import check_params
from stepgate.executors.analyze import Analyze, AnalyzeParams
from stepgate.executors.base import Done, Failed
from stepgate.executors.summarize import Summarize, SummarizeParams
from stepgate.llm.offline import MODEL
from stepgate.llm.openai import OpenAIRouter
from tests.executors.bench import Bench

ANALYZE, SUMMARIZE = Analyze(), Summarize()
SCHEMA = {"type": "object", "properties": {"bugs": {"type": "integer"}}, "required": ["bugs"]}


class Answering:
    """A router behind which one response stands; `bodies` is what it was sent."""

    def __init__(self, content: str = "", status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.bodies: list[Any] = []
        self._content, self._status, self._headers = content, status, headers or {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(orjson.loads(request.content))
        if self._status != 200:
            return httpx2.Response(self._status, json={"error": {"message": "no"}}, headers=self._headers)
        message = {"role": "assistant", "content": self._content}
        body = {"model": "able-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return httpx2.Response(200, json=body, headers=self._headers)

    def router(self) -> OpenAIRouter:
        return OpenAIRouter("http://router.test", None, "able", transport=httpx2.MockTransport(self))


def texts(bench: Bench) -> str:
    return "\n".join(message.content for message in bench.models.asked[-1].messages)


async def test_offline_the_answer_quotes_the_material_and_says_so(bench: Bench) -> None:
    bench.finish("tests", {"exit_code": 1, "stdout": "FAILED test_sum: expected 3 but got 4 here\n"}, "run_command")
    done = await bench.execute(ANALYZE, {"instruction": "why do the tests fail?"})
    assert isinstance(done, Done)
    assert set(done.output) == {"text", "model", "finish_reason"}
    assert done.output["model"] == MODEL
    assert "No model was called" in done.output["text"]
    assert "FAILED test_sum" in done.output["text"]
    assert done.change_set is None


async def test_all_finished_steps_are_material_unless_some_are_named(bench: Bench) -> None:
    bench.finish("one", {"text": "alpha"})
    bench.finish("two", {"text": "beta"})
    await bench.execute(ANALYZE, {"instruction": "compare"})
    assert "alpha" in texts(bench)
    assert "beta" in texts(bench)
    await bench.execute(ANALYZE, {"instruction": "compare", "context": ["two"]})
    assert "alpha" not in texts(bench)
    assert "beta" in texts(bench)
    await bench.execute(ANALYZE, {"instruction": "compare", "context": []})
    assert "beta" not in texts(bench)


async def test_a_named_step_without_output_is_told_to_the_model(bench: Bench) -> None:
    await bench.execute(ANALYZE, {"instruction": "compare", "context": ["skipped"]})
    assert "skipped" in texts(bench)
    assert "was not completed" in texts(bench)


async def test_goal_and_instruction_reach_the_model(bench: Bench) -> None:
    for executor in (ANALYZE, SUMMARIZE):
        await bench.execute(executor, {"instruction": "look at the sums"})
        assert "make the tests pass" in texts(bench)
        assert "look at the sums" in texts(bench)


async def test_a_summary_needs_no_instruction(bench: Bench) -> None:
    bench.finish("one", {"text": "Everything went as it was planned to go."})
    done = await bench.execute(SUMMARIZE, {})
    assert "Everything went" in done.output["text"]


async def test_a_schema_gives_data(bench: Bench) -> None:
    answering = Answering('{"bugs": 2}')
    bench.models.router = answering.router()
    done = await bench.execute(ANALYZE, {"instruction": "count", "schema": SCHEMA, "model": "best"})
    assert done.output == {"text": '{"bugs": 2}', "data": {"bugs": 2}, "model": "able-1", "finish_reason": "stop"}
    assert answering.bodies[0]["model"] == "best"
    assert "response_format" in answering.bodies[0]


async def test_an_answer_that_does_not_fit_the_schema_may_be_asked_for_again(bench: Bench) -> None:
    bench.models.router = Answering('{"bugs": "two"}').router()
    outcome = await bench.execute(ANALYZE, {"instruction": "count", "schema": SCHEMA})
    assert isinstance(outcome, Failed)
    assert outcome.retryable


async def test_a_router_s_refusal_is_an_outcome_with_its_hint(bench: Bench) -> None:
    bench.models.router = Answering(status=429, headers={"retry-after": "7"}).router()
    outcome = await bench.execute(ANALYZE, {"instruction": "count"})
    assert isinstance(outcome, Failed)
    assert (outcome.retryable, outcome.retry_after_ms) == (True, 7000)
    bench.models.router = Answering(status=401).router()
    outcome = await bench.execute(ANALYZE, {"instruction": "count"})
    assert isinstance(outcome, Failed)
    assert outcome.retryable is False


async def test_offline_json_is_refused(bench: Bench) -> None:
    with pytest.raises(ModelUnavailable):
        await bench.execute(ANALYZE, {"instruction": "count", "schema": SCHEMA})


async def test_characters_no_database_holds_are_replaced(bench: Bench) -> None:
    bench.models.router = Answering("a\0b").router()
    done = await bench.execute(ANALYZE, {"instruction": "count"})
    assert done.output["text"] == "a\ufffdb"


async def test_asked_first_a_person_sees_every_word_that_would_leave(bench: Bench) -> None:
    bench.finish("one", {"text": "secret \x1b[2J plan"})
    prepared = await bench.prepare(ANALYZE, {"instruction": "compare"})
    assert bench.models.asked == []
    shown = "\n".join(message["content"] for message in prepared.rendering["messages"])
    assert "secret \\x1b[2J plan" in shown
    bench.finish("two", {"text": "more"})
    assert (await bench.prepare(ANALYZE, {"instruction": "compare"})).action != prepared.action
    with pytest.raises(StaleApproval):
        await bench.execute(ANALYZE, {"instruction": "compare"}, prepared=prepared)
    assert bench.models.asked == []
    named = {"instruction": "compare", "context": ["one"]}
    await bench.execute(ANALYZE, named, prepared=await bench.prepare(ANALYZE, named))
    assert len(bench.models.asked) == 1


@pytest.mark.parametrize(
    ("input_", "field"),
    [
        ({}, "instruction"),
        ({"instruction": ""}, "instruction"),
        ({"instruction": "a", "context": ["no key!"]}, "context[0]"),
        ({"instruction": "a", "context": "one"}, "context"),
        ({"instruction": "a", "schema": {"type": "nonsense"}}, "schema"),
        ({"instruction": "a", "answer_schema": {}}, "answer_schema"),
        ({"instruction": "a", "temperature": 1}, "temperature"),
    ],
)
def test_bad_input_is_named_by_field(input_: dict[str, object], field: str) -> None:
    assert [problem.field for problem in check_params(AnalyzeParams, input_)] == [field]


def test_summarize_takes_what_analyze_takes() -> None:
    assert set(SummarizeParams.model_fields) == set(AnalyzeParams.model_fields)
