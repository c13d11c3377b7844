"""Invoices: priced lines, a discount for bulk orders, VAT, and the amount to pay.

Amounts are in euros and exact: `Decimal`, never `float`. The rules are in README.md.
"""

from dataclasses import dataclass
from decimal import Decimal

CENT = Decimal("0.01")
BULK_QUANTITY = 10
BULK_DISCOUNT = Decimal("0.10")
VAT_RATES = {"standard": Decimal("0.19"), "reduced": Decimal("0.07"), "none": Decimal("0")}


@dataclass(frozen=True)
class Line:
    """One position of an invoice; `unit_price` is net."""

    description: str
    quantity: int
    unit_price: Decimal
    vat: str = "standard"

    def __post_init__(self) -> None:
        if self.quantity < 1:
            raise ValueError(f"{self.description}: the quantity must be at least 1")
        if self.unit_price < 0:
            raise ValueError(f"{self.description}: the price must not be negative")
        if self.vat not in VAT_RATES:
            raise ValueError(f"{self.description}: no VAT rate called {self.vat!r}")


def to_cents(amount: Decimal) -> Decimal:
    """Round to whole cents."""
    return amount.quantize(CENT)


def net(line: Line) -> Decimal:
    """What a line costs before VAT, with the bulk discount."""
    amount = line.quantity * line.unit_price
    if line.quantity > BULK_QUANTITY:
        amount -= amount * BULK_DISCOUNT
    return to_cents(amount)


def vat(lines: list[Line]) -> dict[str, Decimal]:
    """VAT by rate name; each rate is rounded once, on the sum of its lines."""
    sums: dict[str, Decimal] = {}
    for line in lines:
        sums[line.vat] = sums.get(line.vat, Decimal(0)) + net(line)
    return {name: to_cents(amount * VAT_RATES[name]) for name, amount in sums.items()}


def total(lines: list[Line]) -> Decimal:
    """What the customer pays."""
    return sum((net(line) for line in lines), Decimal(0)) + sum(vat(lines).values(), Decimal(0))


def render(lines: list[Line]) -> str:
    """The invoice as text, one row for each line and rate."""
    rows = [f"{line.quantity:>4} x {line.description:<24} {net(line):>10}" for line in lines]
    rows += [f"       VAT {name:<21} {amount:>10}" for name, amount in vat(lines).items()]
    return "\n".join([*rows, f"       {'Total':<25} {total(lines):>10}"])
