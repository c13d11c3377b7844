"""What a real LiteLLM proxy answers is what the client makes of it: costs, tokens, streams, refusals."""

import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain.errors import ModelFailure
from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.protocol import CostSource, Message, ModelAnswer, ModelRequest, Role, Usage
from tests.router.conftest import KEY, Proxy
from tests.worker.conftest import OpenLab, open_lab

__all__ = ["open_lab"]

UPSTREAM_COST = Decimal("0.0003132")
"""1,200 tokens in, 1,024 of them cached, and 350 out, at the published price of gpt-4o-mini."""
UPSTREAM_USAGE = Usage(input=1200, output=350, cached=1024, reasoning=128)


@pytest.fixture
async def router(proxy: Proxy) -> AsyncIterator[OpenAIRouter]:
    made = OpenAIRouter(proxy.url, KEY, "up-gpt")
    yield made
    await made.aclose()


def asking(text: str = "hi", model: str | None = None, **more: Any) -> ModelRequest:
    """A question that nobody has asked, for the proxy keeps answers."""
    words = f"{text} {uuid.uuid4()}"
    return ModelRequest((Message(Role.USER, words),), model=model, **{"timeout_s": 30.0, **more})


async def failing(router: OpenAIRouter, request: ModelRequest, **more: Any) -> ModelFailure:
    with pytest.raises(ModelFailure) as failed:
        await router.complete(request, **more)
    return failed.value


def asked(proxy: Proxy, request: ModelRequest) -> list[dict[str, Any]]:
    """How this question reached the provider, each time."""
    words = [{"role": "user", "content": request.messages[0].content}]
    return [one for one in proxy.asked() if one["messages"] == words]


async def test_a_whole_answer_has_its_cost_from_the_header_and_the_real_model(router: OpenAIRouter) -> None:
    answer = await router.complete(asking())
    assert answer.text == "Upstream says hi."
    assert (answer.cost_usd, answer.cost_source) == (UPSTREAM_COST, CostSource.LITELLM_HEADER)
    assert answer.usage == UPSTREAM_USAGE
    assert (answer.model, answer.provider, answer.finish_reason) == ("gpt-4o-mini", "openai", "stop")
    assert answer.upstream_id == "req_up_1"
    assert answer.request_id
    assert (answer.router_retries, answer.router_fallbacks, answer.cache_hit) == (0, 0, False)


async def test_a_streamed_answer_has_its_cost_from_the_last_chunk(router: OpenAIRouter) -> None:
    pieces: list[str] = []
    answer = await router.complete(asking(), pieces.append)
    assert ("".join(pieces), answer.text, answer.finish_reason) == (*["Upstream says hi."] * 2, "stop")
    assert (answer.cost_usd, answer.cost_source) == (UPSTREAM_COST, CostSource.USAGE)
    assert answer.usage == UPSTREAM_USAGE
    assert answer.ttft_ms is not None


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_out_of_the_proxys_cache_costs_nothing_and_says_what_it_avoided(
    router: OpenAIRouter, proxy: Proxy, streamed: bool
) -> None:
    request, on_text = asking(), (lambda _: None) if streamed else None
    first = await router.complete(request, on_text)
    again = await router.complete(request, on_text)
    assert (first.cost_usd, again.text) == (UPSTREAM_COST, first.text)
    assert (again.cost_usd, again.cost_source, again.cache_hit) == (Decimal(0), CostSource.ROUTER_CACHE, True)
    # A stream out of the cache has lost which tokens the provider had cached, so the proxy prices it higher.
    assert again.avoided_cost_usd is not None
    assert again.avoided_cost_usd >= UPSTREAM_COST
    assert streamed or again.avoided_cost_usd == UPSTREAM_COST
    assert len(asked(proxy, request)) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_price_that_the_proxy_does_not_know_is_unknown_and_not_nothing(
    router: OpenAIRouter, streamed: bool
) -> None:
    answer = await router.complete(asking(model="mock-unpriced"), (lambda _: None) if streamed else None)
    assert (answer.cost_usd, answer.cost_source) == (None, CostSource.UNKNOWN)


async def test_a_price_that_was_configured_there_is_exact_to_twelve_places(router: OpenAIRouter) -> None:
    answer = await router.complete(asking(model="mock-custom-price"))
    assert answer.usage.input is not None
    assert answer.usage.output is not None
    expected = Decimal("0.000001") * answer.usage.input + Decimal("0.000002") * answer.usage.output
    assert answer.cost_usd == expected


@pytest.mark.parametrize(
    ("request_", "code", "status", "retryable"),
    [
        (asking("[[401]]"), "model_auth", 401, False),
        (asking("[[429]]"), "model_rate_limited", 429, True),
        (asking("[[500]]"), "model_server_error", 500, True),
        (asking(model="mock-429"), "model_rate_limited", 429, True),
        (asking(model="mock-500"), "model_server_error", 500, True),
        (asking(model="mock-context"), "model_request_refused", 400, False),
        (asking(model="no-such-model"), "model_request_refused", 400, False),
        (asking(model="down-gpt"), "model_server_error", 500, True),
        (asking("[[hang]]"), "model_timeout", 408, True),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal_is_what_its_status_says(
    router: OpenAIRouter, request_: ModelRequest, code: str, status: int, retryable: bool, streamed: bool
) -> None:
    failure = await failing(router, request_, on_text=(lambda _: None) if streamed else None)
    assert (failure.reason_code, failure.status, failure.retryable) == (code, status, retryable)
    assert KEY not in str(failure)


async def test_the_providers_hint_to_wait_comes_through_the_proxy(router: OpenAIRouter) -> None:
    assert (await failing(router, asking("[[429]]"))).retry_after_s == 7


async def test_a_wrong_key_is_refused_and_not_repeated(proxy: Proxy) -> None:
    router = OpenAIRouter(proxy.url, "sk-wrong-key-1", "up-gpt")
    failure = await failing(router, asking())
    await router.aclose()
    # Without a database of keys it answers 400 to one that it does not know.
    assert (failure.status, failure.retryable, failure.billed) == (400, False, False)
    assert "sk-wrong-key-1" not in str(failure)


async def test_an_error_in_the_middle_of_a_stream_is_a_failure_although_the_status_was_good(
    router: OpenAIRouter,
) -> None:
    failure = await failing(router, asking("[[miderr]]"), on_text=lambda _: None)
    assert failure.retryable
    assert failure.reason_code in ("model_server_error", "model_stream_broken")


async def test_an_answer_cut_at_the_limit_is_a_failure_with_its_cost(router: OpenAIRouter) -> None:
    failure = await failing(router, asking("[[length]]"))
    assert failure.reason_code == "model_answer_cut"
    assert isinstance(failure.answer, ModelAnswer)
    assert failure.answer.cost_usd == UPSTREAM_COST


async def test_json_is_checked_here_for_the_proxy_does_not(router: OpenAIRouter) -> None:
    number = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    answer = await router.complete(asking(model="mock-json", schema=number))
    assert answer.data == {"answer": 7}
    text = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    assert (await failing(router, asking(model="mock-json", schema=text))).reason_code == "model_answer_invalid"


async def test_the_bound_of_an_answer_reaches_the_provider(router: OpenAIRouter, proxy: Proxy) -> None:
    request = asking(max_output_tokens=77)
    await router.complete(request)
    (sent,) = asked(proxy, request)
    assert 77 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


async def test_its_health_lists_the_models(router: OpenAIRouter) -> None:
    health = await router.check()
    assert health.status == "ok"
    assert {"up-gpt", "mock-gpt"} <= set(health.models)


async def test_a_run_is_paid_and_held_to_its_budget_through_the_proxy(open_lab: OpenLab, proxy: Proxy) -> None:
    settings = {"model_router": "openai", "model_url": proxy.url, "model_key": KEY, "model_default": "up-gpt"}
    lab = await open_lab(**settings, model_prices="up-gpt=0.15:0.6", model_max_output_tokens=100)
    ask = {"type": "analyze", "input": {"instruction": "why?"}}
    run_id = await lab.create([{**ask, "key": "a"}, {**ask, "key": "b"}], limits={"cost_usd": "0.0004"})
    state = await lab.until_status(run_id, "paused")
    assert (state.reason, state.usage.cost_usd, state.usage.unknown) == ("budget", UPSTREAM_COST, 0)
    cost = await lab.stack.costs.of_run(run_id)
    assert [(one.source, one.known_cost_usd) for one in cost.by_source] == [("usage.cost", "0.0003132")]
    assert [one.model for one in cost.by_model] == ["gpt-4o-mini"]
    await lab.verify(run_id)
