"""A provider behind the proxy: OpenAI's wire format, and whatever goes wrong there, as the question asks for it.

python -m tests.router.upstream PORT
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

SAYS = ["Upstream ", "says ", "hi."]
USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 350,
    "total_tokens": 1550,
    "prompt_tokens_details": {"cached_tokens": 1024},
    "completion_tokens_details": {"reasoning_tokens": 128},
}
HEAD = {"id": "chatcmpl-up1", "created": 1, "model": "gpt-4o-mini-2024-07-18", "system_fingerprint": "fp_1"}
REFUSALS: Mapping[str, tuple[int, str, Mapping[str, str]]] = {
    "[[401]]": (401, "Incorrect API key provided", {}),
    "[[429]]": (429, "Rate limit reached", {"retry-after": "7"}),
    "[[500]]": (500, "The server had an error", {}),
}

app = FastAPI()
seen: list[Any] = []


@app.get("/seen")
async def asked() -> list[Any]:
    """Every request that reached the provider."""
    return seen


@app.post("/v1/chat/completions")
async def complete(request: Request) -> Response:
    body = await request.json()
    seen.append(body)
    text = str(body["messages"][-1]["content"])
    for mark, (status, refusal, headers) in REFUSALS.items():
        if mark in text:
            return JSONResponse({"error": {"message": refusal, "type": "error"}}, status, dict(headers))
    if "[[hang]]" in text:
        await asyncio.sleep(60)
    if body.get("stream"):
        chunks = _chunks(text, usage=bool((body.get("stream_options") or {}).get("include_usage")))
        return StreamingResponse(chunks, media_type="text/event-stream")
    content = '{"steps": []}' if "[[json]]" in text else "".join(SAYS)
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "length" if "[[length]]" in text else "stop"}
    answer = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    return JSONResponse(answer, headers={"x-request-id": "req_up_1"})


async def _chunks(text: str, *, usage: bool) -> AsyncIterator[str]:
    yield _chunk({"role": "assistant", "content": ""})
    for said in SAYS:
        yield _chunk({"content": said})
        if "[[miderr]]" in text:
            yield _data({"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}})
            return
    yield _chunk({}, "stop")
    if usage:
        yield _data({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
    yield "data: [DONE]\n\n"


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})


def _data(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
