"""Where messages may go, what they say, and what one request does with a hostile receiver."""

import asyncio
import ipaddress
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue
from stepgate.domain.webhooks import Format
from stepgate.engine.webhooks import posting
from stepgate.engine.webhooks.messages import message
from stepgate.engine.webhooks.posting import Answer, Poster
from stepgate.engine.webhooks.targets import Refused, addresses_of, check_literal, is_public
from tests.fixtures.patience import PATIENCE_S

INSIDE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "::7f00:1", "2001:0:7f00:1::"),
]
OUTSIDE = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_what_only_this_network_can_reach_is_no_target(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_open_internet_is_one(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "169.254.169.254", "localhost", "x.localhost", "db.internal", "[::ffff:10.0.0.1]"]
)
def test_an_address_inside_is_refused_when_it_is_named(host: str) -> None:
    with pytest.raises(InvalidValue):
        check_literal(f"https://{host}/x", private=False)
    check_literal(f"https://{host}/x", private=True)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
async def test_other_ways_to_write_an_address_are_seen_through(host: str) -> None:
    """The system's resolver takes them for 127.0.0.1 (or for nothing), whatever they look like."""
    with pytest.raises(Refused):
        await addresses_of(host, 443, private=False)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def found(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


async def test_one_address_inside_is_enough_to_refuse_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "93.184.216.34", "127.0.0.1")
    with pytest.raises(Refused):
        await addresses_of("rebinding.test", 443, private=False)
    resolving(monkeypatch, "93.184.216.34")
    assert await addresses_of("rebinding.test", 443, private=False) == ["93.184.216.34"]


async def test_a_name_server_that_does_not_answer_holds_up_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def silent(*_: Any, **__: Any) -> list[Any]:
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    asking = [asyncio.create_task(addresses_of(f"h{n}.test", 443, private=False)) for n in range(64)]
    try:
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: True), PATIENCE_S)
    finally:
        answered.set()
        await asyncio.gather(*asking)


Answering = Callable[[bytes], bytes]


@asynccontextmanager
async def receiver(answer: bytes | None, *, flood: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and the requests it got; None: it never answers."""
    got: list[bytes] = []
    closing = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        got.append(head + await reader.readexactly(size))
        try:
            if answer is None:
                await closing.wait()
            else:
                writer.write(answer)
                while flood and not closing.is_set():
                    writer.write(b"x" * 65_536)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        closing.set()
        server.close()
        await server.wait_closed()


async def posted(url: str, *, private: bool = True) -> Answer:
    poster = Poster(private=private)
    try:
        return await poster.post(url, {"Content-Type": "application/json", "webhook-id": "m1"}, b'{"a":1}')
    finally:
        await poster.aclose()


async def test_a_message_goes_to_the_address_under_the_hosts_own_name() -> None:
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, got):
        answer = await posted(f"http://localhost:{port}/hook?x=1")
    assert (answer.status, answer.error, answer.arrived) == (204, None, True)
    (request,) = got
    assert request.startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
    assert f"host: localhost:{port}\r\n".encode() in request.lower()
    assert request.endswith(b'{"a":1}')


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (elsewhere, got):
        location = f"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        async with receiver(location.encode()) as (port, _):
            answer = await posted(f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.arrived, got) == (307, False, [])
    assert "not followed" in (answer.error or "")


async def test_an_endless_answer_is_not_read() -> None:
    async with receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", flood=True) as (port, _):
        assert (await posted(f"http://127.0.0.1:{port}/")).status == 200


async def test_a_receiver_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "DEADLINE_S", 0.2)
    async with receiver(None) as (port, _):
        answer = await posted(f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.error) == (None, "no answer within 0.2 s")


async def test_without_the_setting_nothing_inside_is_even_connected_to() -> None:
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, got):
        answer = await posted(f"http://localhost:{port}/", private=False)
    assert (answer.status, got) == (None, [])
    assert "inside this machine" in (answer.error or "")


async def test_nobody_there_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = await posted(f"http://127.0.0.1:{port}/")
    assert answer.status is None
    assert answer.error


@pytest.mark.parametrize(("hint", "least", "most"), [("7", 7, 7), ("a date", 3400, 3600)])
async def test_a_receivers_hint_is_heard(hint: str, least: float, most: float) -> None:
    if hint == "a date":
        hint = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: {hint}\r\nContent-Length: 0\r\n\r\n"
    async with receiver(head.encode()) as (port, _):
        answer = await posted(f"http://127.0.0.1:{port}/")
    assert answer.retry_after_s is not None
    assert least <= answer.retry_after_s <= most


def row(type_: str = "approval.requested", **changes: Any) -> dict[str, Any]:
    event = {
        "type": type_,
        "run_id": "r1",
        "seq": 4,
        "at": 1_700_000_000_123_456,
        "actor": {"id": "worker", "kind": "system", "channel": "worker"},
        "data": {"request_id": "q1"},
    }
    rendering = canonical.dumps({"title": "Run <script> & <!channel> \u202ereversed"}).decode()
    base = {"body": json.dumps(event), "goal": "fix <b>it</b>\x1b[2J", "name": None, "step_id": "s1", "key": "edit"}
    asked = {"revision": 1, "risk": "high", "action_hash": "ab", "expires_at": None, "required": 1}
    return {**base, "type": "run_command", **asked, "rendering": rendering, **changes}


def test_a_message_says_what_happened_and_leads_to_a_page() -> None:
    body = message(row(), Format.JSON, "https://gate.test/")
    told = json.loads(body)
    assert (told["type"], told["timestamp"]) == ("approval.requested", "2023-11-14T22:13:20.123456Z")
    assert told["data"]["url"] == "https://gate.test/console/runs/r1/steps/s1"
    assert told["data"]["approval"]["title"].endswith("\\u202ereversed")
    assert told["data"]["run"]["goal"] == "fix <b>it</b>\\x1b[2J"
    assert body == message(row(), Format.JSON, "https://gate.test/")
    assert json.loads(message(row(), Format.JSON, None))["data"]["url"] is None


def test_slack_shows_a_runs_words_as_plain_text_only() -> None:
    told = json.loads(message(row(), Format.SLACK, "https://gate.test"))
    assert "<" not in told["text"]
    assert "&lt;script&gt; &amp; &lt;!channel&gt;" in told["text"]
    kinds = {text["type"] for block in told["blocks"] for text in [block.get("text"), *block.get("fields", [])] if text}
    assert kinds == {"plain_text"}
    assert "\u202e" not in json.dumps(told, ensure_ascii=False)
    assert told["blocks"][-1]["elements"][0]["url"] == "https://gate.test/console/runs/r1/steps/s1"
    long = json.loads(message(row(goal="x" * 10_000, rendering=None), Format.SLACK, None))
    assert max(len(block["text"]["text"]) for block in long["blocks"] if "text" in block) <= 600


def test_an_alert_says_how_much_of_which_budget_is_spent() -> None:
    event = {**json.loads(row("budget.alerted")["body"]), "data": {"percent": 80, "scope": "day", "label": "a\u202e"}}
    spent = row(body=json.dumps(event), step_id=None, revision=None, rendering=None)
    told = json.loads(message(spent, Format.JSON, None))["data"]
    assert told["budget"] == {"percent": 80, "scope": "day", "label": "a\\u202e"}
    assert "Spent: 80 % of the day budget" in message(spent, Format.SLACK, None).decode()
