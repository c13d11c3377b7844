"""What models cost, for routers that do not say it, and what a call may cost at most before it is made."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from stepgate.domain import canonical, money
from stepgate.domain.budget import Charge
from stepgate.domain.errors import InvalidValue
from stepgate.llm.protocol import ModelRequest, Usage

EVERY_OTHER: Final = "*"
MILLION: Final = 1_000_000
PER_MESSAGE: Final = 16
"""Tokens of a message that are in none of its words: its role, and where it begins and ends."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens read and written."""

    input: Decimal
    output: Decimal

    @classmethod
    def parse(cls, text: str) -> "Price":
        """`0.15:0.60`; raises InvalidValue."""
        read, colon, written = text.partition(":")
        if not colon:
            raise InvalidValue(f"{text!r} is not of the form input:output", fix="write dollars per million: 0.15:0.60")
        return cls(money.usd(read.strip()), money.usd(written.strip()))

    def of(self, usage: Usage) -> Decimal:
        """Cached tokens are taken for any others."""
        return money.usd((self.input * (usage.input or 0) + self.output * (usage.output or 0)) / MILLION)


class Prices:
    """Those that settings give, before those that are published for the provider at `url`.

    A server on this machine or at a bare address is no provider whose prices are published, whatever its models are
    called.
    """

    def __init__(self, given: Mapping[str, Price], url: str | None) -> None:
        self._given = dict(given)
        self._url = url if url is not None and _is_named(url) else None

    def of(self, model: str | None, usage: Usage) -> Decimal | None:
        """What so many tokens cost; None where no price is known, or not how many they were. May take a second once."""
        if usage.input is None or usage.output is None:
            return None
        price = self._given.get(model or EVERY_OTHER) or self._given.get(EVERY_OTHER)
        if price is not None:
            return price.of(usage)
        return None if self._url is None or model is None else _published(model, usage, self._url)

    def worst(self, model: str | None, request: ModelRequest, most_output: int) -> Charge:
        """What a call may cost at most, its answer bounded to so many tokens."""
        read = prompt_tokens(request)
        return Charge(self.of(model, Usage(input=read, output=most_output)), read + most_output)


def prompt_tokens(request: ModelRequest) -> int:
    """No fewer than any model counts: a token stands for one byte at least."""
    schema = 0 if request.schema is None else len(canonical.dumps(dict(request.schema)))
    return schema + sum(len(message.content.encode()) + PER_MESSAGE for message in request.messages)


def _is_named(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host
    return False


def _published(model: str, usage: Usage, url: str) -> Decimal | None:
    from genai_prices import Usage as Tokens  # noqa: PLC0415 - a hundred megabytes that most installations never need
    from genai_prices import calc_price  # noqa: PLC0415

    tokens = Tokens(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached)
    try:
        return money.usd(calc_price(tokens, model, provider_api_url=url).total_price)
    except (LookupError, ValueError, InvalidValue):  # no such provider or model, or counts that contradict themselves
        return None
