"""Exact amounts: prices, sizes and balances as integers in units of 10^-8, the finest that the venue knows."""

from __future__ import annotations

DECIMALS = 8
ONE = 100_000_000


class TooPrecise(ValueError):
    """The text has more than eight decimals that are not zero."""


def parse_amount(text: str) -> int:
    """``"1.5"`` → 150000000. Plain unsigned decimals only; ValueError otherwise, :class:`TooPrecise` when too fine."""
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isascii() or not whole.isdigit() or (fraction and not fraction.isdigit()):
        raise ValueError(f"not a plain decimal number: {text!r}")
    if fraction[DECIMALS:].strip("0"):
        raise TooPrecise(f"more than {DECIMALS} decimals: {text!r}")
    return int(whole) * ONE + int(fraction[:DECIMALS].ljust(DECIMALS, "0"))


def format_amount(amount: int) -> str:
    """150000000 → ``"1.50000000"``, always with eight decimals as the venue prints them."""
    if amount < 0:
        return "-" + format_amount(-amount)
    return f"{amount // ONE}.{amount % ONE:08d}"


def plain_amount(amount: int) -> str:
    """150000000 → ``"1.5"``: no needless zeros."""
    text = format_amount(amount)
    return text.rstrip("0").rstrip(".")


def notional(price: int, size: int) -> int:
    """Price times size in units of the quote asset, rounded down."""
    return price * size // ONE
