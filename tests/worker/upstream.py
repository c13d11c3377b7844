"""A model router on loopback that answers what the test has prepared, and looks at the database as a call arrives."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PRICE = "x-litellm-response-cost: 0.25"


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int = 200
    text: str = "an answer"
    headers: tuple[str, ...] = (PRICE,)
    usage: tuple[int, int] | None = (10, 5)
    """Tokens in and out."""

    def bytes(self) -> bytes:
        if self.status == 200:
            message = {"role": "assistant", "content": self.text}
            usage = self.usage and {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            body = json.dumps({"id": "c1", "model": "m1", "choices": choices, "usage": usage}).encode()
        else:
            body = json.dumps({"error": {"message": self.text}}).encode()
        lines = [f"HTTP/1.1 {self.status} X", f"content-length: {len(body)}", "connection: close", *self.headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


HALF = Reply(status=206)
"""Half an answer as it comes, the rest when the test says so."""
SILENCE = Reply(status=0)
"""No answer until the test says so."""


def _chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "model": "m1", "choices": [choice]}).encode() + b"\n\n"


@dataclass
class Upstream:
    """`replies` are given in order, the last one again and again; `known` is what the database knew at each call."""

    superuser: Any
    port: int = 0
    replies: deque[Reply] = field(default_factory=lambda: deque([Reply()]))
    late: Reply = Reply(text="too late")
    known: list[list[tuple[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def settings(self) -> dict[str, Any]:
        return {"model_router": "openai", "model_url": f"http://127.0.0.1:{self.port}", "model_default": "m1"}

    def prepare(self, *replies: Reply) -> None:
        self.replies = deque(replies)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            sizes = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.asked.append((await reader.readexactly(int(sizes[0]))).decode())
            query = "SELECT status, cost_usd FROM stepgate.model_calls ORDER BY called_at, id"
            async with self._turn:
                self.known.append([tuple(row) for row in await self.superuser.fetch(query)])
            reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
            if reply is SILENCE:
                await self.awake.wait()
                reply = self.late
            if reply is HALF:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + _chunk("half ")
                )
                await writer.drain()
                await self.awake.wait()
                writer.write(_chunk("an answer", "stop") + b"data: [DONE]\n\n")
            else:
                writer.write(reply.bytes())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving(superuser: Any) -> AsyncIterator[Upstream]:
    upstream = Upstream(superuser)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        upstream.awake.set()
        server.close()
