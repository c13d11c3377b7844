"""Money: decimal US dollars with 12 places, the resolution of a single token's price; unknown is None."""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from stepgate.domain.errors import InvalidValue

PLACES = Decimal("0.000000000001")
LIMIT = Decimal("100000000")


def usd(value: str | int | Decimal) -> Decimal:
    """A non-negative amount in USD, rounded to 12 places; floats are refused because they are not exact.

    Raises InvalidValue for text that is no number, for negatives and for amounts of 100 million or more.
    """
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise InvalidValue(f"{value!r} is not an amount", fix="send a decimal string such as 0.25") from error
    if not amount.is_finite() or amount < 0 or amount >= LIMIT:
        raise InvalidValue(f"{value!r} is not an amount between 0 and 100 million")
    return amount.quantize(PLACES, rounding=ROUND_HALF_EVEN)


def text(amount: Decimal | None) -> str | None:
    """The shortest plain decimal text, never an exponent; None stays None."""
    if amount is None:
        return None
    plain = format(amount, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
