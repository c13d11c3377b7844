"""Times and money as people see them."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from stepgate.engine import shapes


def test_a_time_is_utc_with_six_places_also_where_they_are_zero() -> None:
    assert shapes.moment(datetime(2026, 1, 31, 12, 0, 0, 0, UTC)) == "2026-01-31T12:00:00.000000Z"
    elsewhere = datetime(2026, 1, 31, 12, 0, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    assert shapes.moment(elsewhere) == "2026-01-31T06:30:00.123456Z"
    assert shapes.moment(None) is None


@pytest.mark.parametrize(
    ("known", "unknown_calls", "shown"),
    [
        (Decimal("0E-12"), 0, "0"),
        (Decimal("0.001250000000"), 0, "0.00125"),
        (Decimal("0.000000000001"), 0, "0.000000000001"),
        (Decimal("1200.000000000000"), 0, "1200"),
        (Decimal("0.25"), 1, None),
        (Decimal(0), 3, None),
    ],
)
def test_an_unknown_cost_is_null_and_a_known_one_plain_decimal_text(
    known: Decimal, unknown_calls: int, shown: str | None
) -> None:
    assert shapes.total(known, unknown_calls) == shown
