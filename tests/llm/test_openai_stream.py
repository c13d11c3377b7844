"""Answers that come piece by piece: put together, timed, and never taken for whole when they are not."""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import httpx2
import orjson
import pytest

from stepgate.domain.errors import ModelFailure
from stepgate.llm.openai_stream import events
from stepgate.llm.protocol import CostSource, Usage
from tests.llm.captures import answering, ask, client, completion

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + orjson.dumps({"id": "c1", "model": "m1", "choices": choices, **more}) + b"\n\n"


def stream(*parts: bytes, **headers: str) -> httpx2.Response:
    given = {"content-type": "text/event-stream; charset=utf-8", **headers}
    return httpx2.Response(200, headers=given, content=b"".join(parts))


WHOLE = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    b": a comment\n\n",
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    chunk(None, usage={**USAGE, "cost": 0.00025}),
    b"data: [DONE]\n\n",
)


async def failure(response: httpx2.Response) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await answering(response).complete(ask(), lambda _: None)
    return caught.value


async def test_pieces_arrive_in_order_and_add_up_to_the_answer() -> None:
    pieces: list[str] = []
    seen: list[httpx2.Request] = []
    answer = await answering(stream(*WHOLE), seen).complete(ask(), pieces.append)
    assert (pieces, answer.text, answer.finish_reason) == (["Hel", "lo"], "Hello", "stop")
    assert answer.usage == Usage(input=12, output=3, cached=8, reasoning=1)
    assert (answer.cost_usd, answer.cost_source) == (Decimal("0.00025"), CostSource.USAGE)
    assert answer.ttft_ms is not None
    assert answer.ttft_ms <= answer.latency_ms
    body = orjson.loads(seen[0].content)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_nothing_is_streamed_where_nobody_listens_or_json_is_wanted() -> None:
    seen: list[httpx2.Request] = []
    await answering(completion("hi"), seen).complete(ask())
    await answering(completion("{}"), seen).complete(ask(schema={"type": "object"}), lambda _: None)
    assert all(b"stream" not in request.content for request in seen)


async def test_a_server_that_cannot_stream_answers_whole() -> None:
    response = completion("hello")
    response.headers["content-type"] = "application/json"
    assert (await answering(response).complete(ask(), lambda _: None)).text == "hello"


async def test_an_error_in_the_middle_is_a_failure_although_the_status_was_good() -> None:
    broken = b'data: {"error": {"message": "overloaded mid-stream", "code": "overloaded"}}\n\n'
    failed = await failure(stream(*WHOLE[:2], broken))
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_stream_broken", True, None)
    assert "overloaded mid-stream" in failed.message


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
async def test_an_answer_that_breaks_off_is_not_taken_for_whole(kept: int) -> None:
    failed = await failure(stream(*WHOLE[:kept]))
    assert (failed.reason_code, failed.retryable) == ("model_stream_broken", True)


async def test_a_stream_without_its_last_line_is_whole_once_it_said_why_it_ended() -> None:
    assert (await answering(stream(*WHOLE[:5])).complete(ask(), lambda _: None)).text == "Hello"


async def test_an_answer_cut_at_the_limit_is_a_failure_with_its_cost() -> None:
    failed = await failure(stream(WHOLE[1], chunk({}, "length"), WHOLE[5], WHOLE[6]))
    assert (failed.reason_code, failed.billed) == ("model_answer_cut", True)


async def test_what_is_no_chunk_is_unreadable() -> None:
    assert (await failure(stream(b"data: no json\n\n"))).reason_code == "model_answer_unreadable"


async def test_a_refusal_before_the_stream_is_classified_by_its_status() -> None:
    assert (await failure(httpx2.Response(429, headers={"retry-after": "7"}))).retry_after_s == 7


async def test_a_stream_without_end_is_cut_at_the_cap() -> None:
    router = client(lambda request: stream(*([chunk({"content": "x" * 1000})] * 100)), max_response_bytes=10_000)
    with pytest.raises(ModelFailure) as caught:
        await router.complete(ask(), lambda _: None)
    assert caught.value.reason_code == "model_answer_too_large"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    text = b'data: {"a":1}\r\n\r\n:x\nevent: e\ndata:one\ndata: two\n\n\ndata: last'

    async def cut() -> AsyncIterator[bytes]:
        for at in range(0, len(text), size):
            yield text[at : at + size]

    found: Sequence[bytes] = [event async for event in events(cut())]
    assert found == [b'{"a":1}', b"one\ntwo", b"last"]
