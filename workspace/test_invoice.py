import unittest
from decimal import Decimal

from invoice import Line, net, render, total, vat


class NetTest(unittest.TestCase):
    def test_quantity_times_price(self) -> None:
        self.assertEqual(net(Line("Notebook", 3, Decimal("2.50"))), Decimal("7.50"))

    def test_ten_or_more_get_the_bulk_discount(self) -> None:
        self.assertEqual(net(Line("Pencil", 10, Decimal("1.00"))), Decimal("9.00"))
        self.assertEqual(net(Line("Pencil", 11, Decimal("1.00"))), Decimal("9.90"))

    def test_nine_pay_the_full_price(self) -> None:
        self.assertEqual(net(Line("Pencil", 9, Decimal("1.00"))), Decimal("9.00"))

    def test_half_a_cent_is_rounded_up(self) -> None:
        self.assertEqual(net(Line("Screw", 1, Decimal("0.125"))), Decimal("0.13"))

    def test_nonsense_is_refused(self) -> None:
        for quantity, price, rate in [(0, "1", "standard"), (1, "-1", "standard"), (1, "1", "luxury")]:
            with self.subTest(quantity=quantity, price=price, rate=rate), self.assertRaises(ValueError):
                Line("Nonsense", quantity, Decimal(price), rate)


class TotalTest(unittest.TestCase):
    def test_vat_is_rounded_once_for_each_rate(self) -> None:
        lines = [
            Line("Pen", 1, Decimal("0.75")),
            Line("Ink", 1, Decimal("0.75")),
            Line("Book", 1, Decimal("5.00"), "reduced"),
        ]
        self.assertEqual(vat(lines), {"standard": Decimal("0.29"), "reduced": Decimal("0.35")})

    def test_a_whole_invoice(self) -> None:
        lines = [Line("Chair", 10, Decimal("49.95")), Line("Manual", 2, Decimal("12.25"), "reduced")]
        self.assertEqual(total(lines), Decimal("561.18"))

    def test_an_empty_invoice_costs_nothing(self) -> None:
        self.assertEqual(total([]), Decimal(0))

    def test_rendered_rows(self) -> None:
        self.assertEqual(
            render([Line("Tea", 2, Decimal("3.00"), "reduced")]).splitlines(),
            [
                "   2 x Tea                            6.00",
                "       VAT reduced                     0.42",
                "       Total                           6.42",
            ],
        )


if __name__ == "__main__":
    unittest.main()
