"""Prices where routers say none: exact, offline, unknown rather than guessed, and a worst case that is one."""

import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.budget import Charge
from stepgate.domain.errors import InvalidValue
from stepgate.llm.prices import PER_MESSAGE, Price, Prices, prompt_tokens
from stepgate.llm.protocol import Message, ModelRequest, Role, Usage

USAGE = Usage(input=1000, output=100, cached=500)
GIVEN = {"own": Price.parse("0.15:0.60"), "gpt-4o-mini": Price.parse("1:2")}
OPENAI = "https://api.openai.com/v1"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever opens a connection fails."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("no price is fetched")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def test_a_price_that_was_given_is_exact() -> None:
    assert Prices(GIVEN, None).of("own", USAGE) == Decimal("0.00021")
    assert Prices({"*": Price.parse("0:0")}, None).of("whatever", USAGE) == 0


def test_a_price_that_was_given_goes_before_a_published_one() -> None:
    assert Prices(GIVEN, OPENAI).of("gpt-4o-mini", USAGE) == Decimal("0.0012")


@pytest.mark.usefixtures("offline")
def test_a_published_price_counts_cached_tokens_as_such_and_is_found_without_a_network() -> None:
    """0.15 in, 0.075 cached and 0.60 out, for a million tokens."""
    assert Prices({}, OPENAI).of("gpt-4o-mini", USAGE) == Decimal("0.0001725")


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("no-such-model", OPENAI),
        ("gpt-4o-mini", None),
        ("gpt-4o-mini", "http://localhost:11434/v1"),
        ("gpt-4o-mini", "http://10.0.0.7:8000/v1"),
        ("gpt-4o-mini", "https://router.example.org/v1"),
        (None, OPENAI),
    ],
)
def test_a_model_without_a_published_price_is_unknown_and_not_free(model: str | None, url: str | None) -> None:
    """A server of one's own may call its models as it likes."""
    assert Prices({}, url).of(model, USAGE) is None


@pytest.mark.parametrize("usage", [Usage(), Usage(input=5), Usage(output=5), Usage(input=5, output=1, cached=9)])
def test_tokens_that_nobody_counted_or_that_contradict_themselves_have_no_price(usage: Usage) -> None:
    assert Prices({}, OPENAI).of("gpt-4o-mini", usage) is None


@pytest.mark.parametrize("text", ["", "1", "a:b", "1:-2", "1:2:3"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        Price.parse(text)


@given(st.lists(st.text(), max_size=5))
def test_a_prompt_has_no_fewer_tokens_than_bytes(texts: list[str]) -> None:
    request = ModelRequest(tuple(Message(Role.USER, text.encode("utf-8", "replace").decode()) for text in texts))
    size = sum(len(message.content.encode()) for message in request.messages)
    assert prompt_tokens(request) == size + PER_MESSAGE * len(texts)


def test_the_worst_case_is_every_byte_a_token_and_an_answer_as_long_as_it_may_be() -> None:
    request = ModelRequest((Message(Role.USER, "x" * 984),))
    assert Prices(GIVEN, None).worst("own", request, 100) == Charge(Decimal("0.00021"), 1100)
    assert Prices({}, None).worst("own", request, 100) == Charge(None, 1100)
    wanted = ModelRequest((Message(Role.USER, "x"),), schema={"type": "object"})
    assert prompt_tokens(wanted) == 1 + PER_MESSAGE + len('{"type":"object"}')
