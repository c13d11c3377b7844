from decimal import Decimal
from typing import Any

import httpx2
import orjson
import pytest

from stepgate.domain.errors import InvalidValue, ModelFailure, ModelUnavailable
from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.protocol import CostSource, Message, ModelAnswer, ModelRequest, Role, Usage
from tests.llm.captures import KEY, answering, ask, client, completion, recorded

SCHEMA = {"type": "object", "properties": {"steps": {"type": "array"}}, "required": ["steps"]}


async def failure(router: OpenAIRouter, request: ModelRequest) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await router.complete(request)
    return caught.value


async def test_everything_a_proxy_tells_is_recorded() -> None:
    answer = await answering(recorded("upstream-basic")).complete(ask())
    assert answer == ModelAnswer(
        text="Upstream says hi.",
        model="gpt-4o-mini",
        provider="openai",
        latency_ms=answer.latency_ms,
        finish_reason="stop",
        usage=Usage(input=1200, output=350, cached=1024, reasoning=128),
        cost_usd=Decimal("0.000313200000"),
        cost_source=CostSource.LITELLM_HEADER,
        status=200,
        request_id="729dfbb2-153a-4e90-a07a-26bcb79e6ff2",
        upstream_id="req_up_1",
        response_id="chatcmpl-up123",
        fingerprint="fp_abc123",
        router_retries=0,
        router_fallbacks=0,
    )


async def test_tokens_that_nobody_counted_are_unknown() -> None:
    answer = await answering(recorded("mock-basic")).complete(ask())
    assert answer.usage == Usage(input=10, output=20, cached=None, reasoning=None)
    assert (await answering(completion("x")).complete(ask())).usage == Usage()


async def test_a_cost_header_that_is_absent_means_unknown_and_not_nothing() -> None:
    answer = await answering(recorded("mock-unpriced-header")).complete(ask())
    assert (answer.cost_usd, answer.cost_source) == (None, CostSource.UNKNOWN)
    assert (answer.provider, answer.model) == ("anthropic", "claude-sonnet-4-20250514")


async def test_binary_noise_in_a_cost_is_rounded_away_at_twelve_places() -> None:
    answer = await answering(recorded("mock-custom-price")).complete(ask())
    assert answer.cost_usd == Decimal("0.00005")


async def test_a_cost_in_the_body_never_passes_through_a_float() -> None:
    body = b'{"choices": [{"message": {"content": "x"}}], "usage": {"cost": 0.100000000001}}'
    answer = await answering(httpx2.Response(200, content=body)).complete(ask())
    assert (answer.cost_usd, answer.cost_source) == (Decimal("0.100000000001"), CostSource.USAGE)


async def test_a_hit_in_the_proxys_cache_costs_nothing_and_says_so() -> None:
    answer = await answering(recorded("upstream-basic", {"x-litellm-cache-key": "k"})).complete(ask())
    assert (answer.cost_usd, answer.cost_source, answer.cache_hit) == (Decimal(0), CostSource.ROUTER_CACHE, True)


@pytest.mark.parametrize("cost", ["-1", "NaN", "a lot", "", "1e9"])
async def test_a_cost_that_is_no_amount_is_unknown(cost: str) -> None:
    answer = await answering(recorded("mock-basic", {"x-litellm-response-cost": cost})).complete(ask())
    assert (answer.cost_usd, answer.cost_source) == (None, CostSource.UNKNOWN)


@pytest.mark.parametrize("count", [-1, True, 1.5, "7x", None, "9" * 20, []])
async def test_a_count_that_is_no_count_is_unknown(count: Any) -> None:
    answer = await answering(completion("x", usage={"prompt_tokens": count})).complete(ask())
    assert answer.usage.input is None


async def test_a_model_name_with_a_slash_is_not_taken_apart_without_the_proxys_header() -> None:
    answer = await answering(completion("x", model="Qwen/Qwen3-8B")).complete(ask())
    assert (answer.provider, answer.model) == (None, "Qwen/Qwen3-8B")


async def test_content_in_parts_is_joined_and_made_storable() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert (await answering(completion(parts)).complete(ask())).text == "ab"
    body = b'{"choices": [{"message": {"content": "a\\u0000b\\ud800c"}}]}'
    assert (await answering(httpx2.Response(200, content=body)).complete(ask())).text == "a\ufffdb?c"


async def test_what_is_sent() -> None:
    seen: list[httpx2.Request] = []
    router = answering(completion('{"steps": []}'), seen, tiers={"complex": "large"})
    messages = (Message(Role.SYSTEM, "be good"), Message(Role.USER, "hi"))
    await router.complete(ModelRequest(messages, tier="complex", schema=SCHEMA, max_output_tokens=9))
    (request,) = seen
    assert str(request.url) == "http://router.test/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert orjson.loads(request.content) == {
        "model": "large",
        "messages": [{"role": "system", "content": "be good"}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, "small"),
        ({"tier": "complex"}, "large"),
        ({"tier": "odd"}, "small"),
        ({"model": "m", "tier": "complex"}, "m"),
    ],
)
async def test_which_model_is_asked(asked: dict[str, str], sent: str) -> None:
    seen: list[httpx2.Request] = []
    router = answering(completion("x"), seen, tiers={"complex": "large"})
    await router.complete(ask(**asked))
    assert orjson.loads(seen[0].content)["model"] == router.asks(ask(**asked)) == sent


async def test_without_any_model_nothing_is_asked() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await answering(completion("x"), default_model=None).complete(ask())
    assert caught.value.reason_code == "no_model"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h:4000", "http://h:4000/v1/chat/completions"),
        ("http://h:4000/", "http://h:4000/v1/chat/completions"),
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("https://h/api/v1/", "https://h/api/v1/chat/completions"),
        ("https://h/api/v1/chat/completions", "https://h/api/v1/chat/completions"),
    ],
)
async def test_the_address_may_be_given_in_several_ways(url: str, sent: str) -> None:
    seen: list[httpx2.Request] = []
    await answering(completion("x"), seen, url=url).complete(ask())
    assert str(seen[0].url) == sent


async def test_openai_itself_is_given_its_own_name_for_the_bound() -> None:
    seen: list[httpx2.Request] = []
    await answering(completion("x"), seen, url="https://api.openai.com/v1").complete(ask(max_output_tokens=5))
    assert orjson.loads(seen[0].content)["max_completion_tokens"] == 5


@pytest.mark.parametrize("url", ["localhost:4000", "ftp://h", "", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        answering(completion("x"), url=url)
    assert caught.value.field == "MODEL_URL"


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        answering(completion("x"), key=key)
    assert key not in str(caught.value)


async def test_json_for_a_schema_is_parsed() -> None:
    answer = await answering(recorded("mock-json")).complete(ask(schema=SCHEMA))
    assert answer.data == {"steps": [{"id": "s1", "type": "read_file", "input": {"path": "README.md"}}]}


async def test_a_markdown_fence_around_the_json_is_passed_over() -> None:
    answer = await answering(completion('```json\n{"steps": []}\n```')).complete(ask(schema=SCHEMA))
    assert answer.data == {"steps": []}


@pytest.mark.parametrize("content", ["certainly!", "[]", '{"steps": 3}', '{"steps": [NaN]}', '{"steps": []} and more'])
async def test_an_answer_that_does_not_fit_the_schema_fails_with_its_cost(content: str) -> None:
    router = answering(completion(content, usage={"cost": 0.5}))
    failed = await failure(router, ask(schema=SCHEMA))
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_answer_invalid", True, True)
    assert isinstance(failed.answer, ModelAnswer)
    assert failed.answer.cost_usd == Decimal("0.5")


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"properties": 3}])
async def test_a_schema_that_is_none_is_refused_before_the_call(schema: dict[str, Any]) -> None:
    seen: list[httpx2.Request] = []
    with pytest.raises(InvalidValue) as caught:
        await answering(completion("{}"), seen).complete(ask(schema=schema))
    assert caught.value.field == "schema"
    assert seen == []


@pytest.mark.parametrize("ref", ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "#"])
async def test_a_schema_never_makes_us_fetch_anything(ref: str) -> None:
    failed = await failure(answering(completion("{}")), ask(schema={"$ref": ref}))
    assert failed.reason_code == "model_answer_invalid"


async def test_an_answer_cut_off_is_a_failure_that_asking_again_does_not_mend() -> None:
    failed = await failure(answering(recorded("upstream-length")), ask())
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_answer_cut", False, True)
    assert "cut off" in failed.message
    assert isinstance(failed.answer, ModelAnswer)
    assert failed.answer.cost_usd == Decimal("0.0003132")


@pytest.mark.parametrize(
    ("response", "code", "retryable"),
    [
        (recorded("upstream-tool"), "model_answer_empty", True),
        (completion(""), "model_answer_empty", True),
        (completion(None, message={"refusal": "I will not"}), "model_refused", False),
        (completion("par", finish_reason="content_filter"), "model_refused", False),
    ],
)
async def test_an_answer_of_no_use_is_a_failure(response: httpx2.Response, code: str, retryable: bool) -> None:
    failed = await failure(answering(response), ask())
    assert (failed.reason_code, failed.retryable, failed.billed) == (code, retryable, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [1]}',
        b"\xff",
        b"[" * 100_000,
        b'{"choices": NaN}',
    ],
)
async def test_a_body_that_is_no_completion_is_a_failure(body: bytes) -> None:
    failed = await failure(answering(httpx2.Response(200, content=body)), ask())
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_answer_unreadable", True, None)


async def test_health_lists_the_models() -> None:
    seen: list[httpx2.Request] = []
    health = await answering(recorded("models"), seen).check()
    assert (health.status, seen[0].method, seen[0].url.path) == ("ok", "GET", "/v1/models")
    assert "mock-gpt" in health.models


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_health_fails_where_the_router_does(status: int) -> None:
    health = await answering(httpx2.Response(status, content=b'{"error": {"message": "nope"}}')).check()
    assert health.status == "failing"
    assert "nope" in health.detail


async def test_a_server_without_a_list_of_models_is_still_there() -> None:
    assert (await answering(httpx2.Response(404, content=b"x")).check()).status == "ok"


async def test_health_of_an_unreachable_router_is_an_answer_and_no_error() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    assert (await client(refuse).check()).status == "failing"
