"""Recorded router responses as transports, so that tests see what real proxies sent."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import orjson

from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.protocol import Message, ModelRequest, Role

FOLDER = Path(__file__).parent / "captures"
URL = "http://router.test"
KEY = "sk-secret"


def recorded(name: str, extra: Mapping[str, str] | None = None) -> httpx2.Response:
    """The response of a file in captures/, with headers added."""
    head, _, body = (FOLDER / f"{name}.http").read_text().partition("\n\n")
    status, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return httpx2.Response(int(status.split()[1]), headers={**headers, **(extra or {})}, content=body.strip().encode())


def answering(response: httpx2.Response, seen: list[httpx2.Request] | None = None, **options: Any) -> OpenAIRouter:
    """A client whose router always gives this response."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        return response

    return client(answer, **options)


def client(answer: Callable[[httpx2.Request], httpx2.Response], **options: Any) -> OpenAIRouter:
    given = {"url": URL, "key": KEY, "default_model": "small", "transport": httpx2.MockTransport(answer), **options}
    return OpenAIRouter(**given)


def completion(content: Any, **changes: Any) -> httpx2.Response:
    """A minimal 200 of a server that adds nothing of its own."""
    message = {"role": "assistant", "content": content, **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "stop")}
    return httpx2.Response(200, content=orjson.dumps({"id": "c1", "model": "m1", "choices": [choice], **changes}))


def ask(text: str = "hi", **fields: Any) -> ModelRequest:
    return ModelRequest((Message(Role.USER, text),), **fields)
