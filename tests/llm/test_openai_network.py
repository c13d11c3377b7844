"""Against a real server on loopback, which behaves as badly as the network allows."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stepgate.domain.errors import ModelFailure
from stepgate.llm.openai import OpenAIRouter
from tests.fixtures.patience import PATIENCE_S
from tests.llm.captures import ask, completion

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = completion("hello").content


@asynccontextmanager
async def serving(serve: Serve, max_response_bytes: int = 2**24) -> AsyncIterator[OpenAIRouter]:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    router = OpenAIRouter(f"http://127.0.0.1:{port}", None, "m", max_response_bytes=max_response_bytes)
    try:
        yield router
    finally:
        await router.aclose()
        server.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def response(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def failure(router: OpenAIRouter, timeout_s: float = 20) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await router.complete(ask(timeout_s=timeout_s))
    return caught.value


async def test_connections_are_kept_for_the_next_call() -> None:
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            await read_request(reader)
            writer.write(response(GOOD))
            await writer.drain()

    async with serving(serve) as router:
        for _ in range(3):
            answer = await router.complete(ask())
            assert (answer.text, answer.latency_ms >= 0) == ("hello", True)
    assert len(connections) == 1


async def test_a_silent_router_is_given_up_at_the_deadline() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        assert await reader.read() == b""
        gone.set()

    async with serving(serve) as router:
        failed = await failure(router, timeout_s=0.2)
        assert (failed.reason_code, failed.retryable, failed.billed) == ("model_timeout", True, None)
        await asyncio.wait_for(gone.wait(), PATIENCE_S)


async def test_a_router_that_drips_cannot_stretch_the_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            try:
                await asyncio.wait_for(reader.read(), 0.02)
            except TimeoutError:
                continue
            return

    async with serving(serve) as router:
        began = time.monotonic()
        failed = await failure(router, timeout_s=0.3)
        assert failed.reason_code == "model_timeout"
        assert time.monotonic() - began < 10


async def test_a_body_without_end_is_cut_at_the_limit() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 2**28:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(serve, max_response_bytes=1_000_000) as router:
        failed = await failure(router)
        assert (failed.reason_code, failed.retryable) == ("model_answer_too_large", False)
    assert sent < 2**27


async def test_a_compressed_bomb_is_cut_at_the_limit() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"accept-encoding: identity" in (await read_request(reader)).lower()
        writer.write(response(gzip.compress(b" " * 50_000_000), "content-encoding: gzip"))
        await writer.drain()

    async with serving(serve, max_response_bytes=1_000_000) as router:
        assert (await failure(router)).reason_code == "model_answer_too_large"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", b"nonsense\r\n\r\n"])
async def test_a_connection_that_breaks_may_have_been_billed(start: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        await writer.drain()

    async with serving(serve) as router:
        failed = await failure(router)
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_connection_lost", True, None)


async def test_nobody_listening_is_not_billed() -> None:
    with socket.socket() as bound:
        # Bound and not listening: the port refuses, and nobody else can take it meanwhile.
        bound.bind(("127.0.0.1", 0))
        router = OpenAIRouter(f"http://127.0.0.1:{bound.getsockname()[1]}", None, "m")
        failed = await failure(router)
        await router.aclose()
    assert (failed.reason_code, failed.retryable, failed.billed) == ("model_unreachable", True, False)


async def test_a_cancelled_call_lets_its_connection_go() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        assert await reader.read() == b""
        gone.set()

    async with serving(serve) as router:
        call = asyncio.create_task(router.complete(ask()))
        await asyncio.wait_for(arrived.wait(), PATIENCE_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), PATIENCE_S)
