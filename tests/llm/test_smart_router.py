"""The Smart Model Router's contract, from recorded responses of a real one."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import orjson
import pytest

from stepgate.domain.errors import ModelFailure, ModelUnavailable
from stepgate.llm.protocol import CostSource, Message, ModelRequest, Role, Usage
from stepgate.llm.smart_router import MAX_PROMPT_CHARS, MAX_SYSTEM_CHARS, SmartRouter
from tests.llm.captures import KEY, URL, ask, recorded

STEPS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "step_type": {"oneOf": [{"const": "read_file"}, {"const": "summarize"}]},
            "input": {"type": "object"},
            "description": {"type": "string"},
        },
        "required": ["step_type", "input"],
    },
}


def client(answer: Callable[[httpx2.Request], httpx2.Response], url: str = URL) -> SmartRouter:
    return SmartRouter(url, KEY, transport=httpx2.MockTransport(answer))


def answering(name: str, seen: list[httpx2.Request] | None = None, url: str = URL) -> SmartRouter:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        return recorded(name)

    return client(answer, url)


def sent(seen: list[httpx2.Request]) -> dict[str, Any]:
    (request,) = seen
    body: dict[str, Any] = orjson.loads(request.content)
    return body


async def failed(router: SmartRouter, request: ModelRequest) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await router.complete(request)
    return caught.value


async def test_an_answer_has_its_cost_exactly_and_what_was_never_told_is_unknown() -> None:
    answer = await answering("smart-sysprompt-ignored").complete(ask())
    assert answer.text == "FAKE[gemini-2.0-flash-exp] explain decorators"
    assert (answer.model, answer.difficulty_tag) == ("gemini-2.0-flash-exp", "medium")
    assert (answer.cost_usd, answer.cost_source) == (Decimal("0.000004"), CostSource.SMART_ROUTER)
    assert answer.estimated_savings_usd == Decimal("0.000111")
    assert (answer.usage, answer.finish_reason, answer.ttft_ms) == (Usage(), None, None)


async def test_a_cache_hit_costs_nothing_and_says_what_it_avoided() -> None:
    answer = await answering("smart-forced-cached-ignored").complete(ask())
    assert (answer.cost_usd, answer.cost_source, answer.cache_hit) == (Decimal(0), CostSource.ROUTER_CACHE, True)
    assert answer.avoided_cost_usd == Decimal("0.000084")


async def test_the_system_prompt_is_put_before_the_prompt_because_it_would_be_dropped() -> None:
    seen: list[httpx2.Request] = []
    messages = (Message(Role.SYSTEM, "be exact"), Message(Role.USER, "explain"))
    await answering("smart-complex", seen).complete(ModelRequest(messages, tier="complex"))
    assert sent(seen) == {"prompt": "be exact\n\nexplain", "force_tier": "complex"}
    assert (seen[0].url.path, seen[0].headers["x-api-key"]) == ("/v1/complete", KEY)


@pytest.mark.parametrize("url", ["http://router.test", "http://router.test/", "http://router.test/v1"])
async def test_the_address_may_end_in_v1(url: str) -> None:
    seen: list[httpx2.Request] = []
    await answering("smart-complex", seen, url).complete(ask())
    assert seen[0].url.path == "/v1/complete"


async def test_structured_data_is_asked_for_without_const_and_one_of_and_checked_with_them() -> None:
    seen: list[httpx2.Request] = []
    messages = (Message(Role.SYSTEM, "be exact"), Message(Role.USER, "plan"))
    answer = await answering("smart-structure-array", seen).complete(ModelRequest(messages, schema=STEPS))
    assert [step["step_type"] for step in answer.data or ()] == ["read_file", "summarize"]
    assert (answer.cost_usd, answer.cost_source) == (Decimal("0.000014"), CostSource.SMART_ROUTER)
    body = sent(seen)
    assert (body["prompt"], body["system_prompt"], seen[0].url.path) == ("plan", "be exact", "/v1/structure")
    assert b"const" not in seen[0].content
    assert b"oneOf" not in seen[0].content
    assert body["json_schema"]["items"]["properties"]["step_type"] == {
        "anyOf": [{"enum": ["read_file"]}, {"enum": ["summarize"]}]
    }


async def test_data_that_fits_only_the_flattened_schema_is_a_billed_failure() -> None:
    strict = {"type": "array", "items": {"oneOf": [{"required": ["input"]}, {"required": ["step_type"]}]}}
    failure = await failed(answering("smart-structure-array"), ask(schema=strict))
    assert (failure.reason_code, failure.billed, failure.retryable) == ("model_answer_invalid", True, True)


async def test_a_long_system_prompt_goes_with_the_prompt() -> None:
    seen: list[httpx2.Request] = []
    messages = (Message(Role.SYSTEM, "x" * (MAX_SYSTEM_CHARS + 1)), Message(Role.USER, "plan"))
    await answering("smart-structure-array", seen).complete(ModelRequest(messages, schema=STEPS))
    assert set(sent(seen)) == {"prompt", "json_schema"}


@pytest.mark.parametrize(
    ("capture", "code", "retryable", "most"),
    [
        ("smart-badjson", "model_server_error", True, 2),
        ("smart-s429", "model_server_error", True, 2),
        ("smart-s-missing", "model_request_refused", False, None),
        ("smart-c429", "model_server_error", True, None),
        ("smart-c500", "model_server_error", True, None),
    ],
)
async def test_a_recorded_failure_is_classified_by_its_status(
    capture: str, code: str, retryable: bool, most: int | None
) -> None:
    failure = await failed(answering(capture), ask())
    assert (failure.reason_code, failure.retryable, failure.most_attempts) == (code, retryable, most)


async def test_a_model_or_an_unknown_tier_cannot_be_asked_for() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await answering("smart-complex").complete(ask(model="gpt-5"))
    assert (caught.value.reason_code, caught.value.field) == ("model_not_selectable", "input.model")
    with pytest.raises(ModelUnavailable) as caught:
        await answering("smart-complex").complete(ask(tier="huge"))
    assert (caught.value.reason_code, caught.value.field) == ("unknown_tier", "input.tier")


async def test_a_prompt_that_is_too_long_never_leaves() -> None:
    seen: list[httpx2.Request] = []
    failure = await failed(answering("smart-complex", seen), ask("x" * (MAX_PROMPT_CHARS + 1)))
    assert (failure.reason_code, failure.retryable, failure.billed) == ("model_request_refused", False, False)
    assert seen == []


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"response": 1}', b"no", b'{"response": null, "estimated_cost": 1}'])
async def test_a_body_of_another_shape_is_unreadable(body: bytes) -> None:
    failure = await failed(client(lambda request: httpx2.Response(200, content=body)), ask())
    assert (failure.reason_code, failure.retryable) == ("model_answer_unreadable", True)


@pytest.mark.parametrize("cost", ["null", '"free"', "-1", "1e99", "true"])
async def test_a_cost_that_is_no_amount_is_unknown(cost: str) -> None:
    body = f'{{"response": "hi", "model_used": "m", "estimated_cost": {cost}}}'.encode()
    answer = await client(lambda request: httpx2.Response(200, content=body)).complete(ask())
    assert (answer.cost_usd, answer.cost_source) == (None, CostSource.UNKNOWN)


async def test_its_health_is_asked_at_its_own_address() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"status": "ok"})

    assert (await client(answer).check()).status == "ok"
    assert seen[0].url.path == "/health"
    assert (await client(lambda request: httpx2.Response(503)).check()).status == "failing"
