"""Comparing the journal's fills with the venue's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from engine.messages import OrderFill

_Key = tuple[str, str, str, Decimal, Decimal]


def audit(
    journal_fills: Iterable[OrderFill], venue_fills: Iterable[OrderFill]
) -> tuple[list[OrderFill], list[OrderFill]]:
    """What the venue has and the journal lacks (missed), and what the journal has beyond the venue (duplicated).

    Fills are the same if pair, trade id, order, price and size are; one that differs in price or size is in both lists.
    """
    journal, venue = list(journal_fills), list(venue_fills)
    return _beyond(venue, journal), _beyond(journal, venue)


def _beyond(fills: list[OrderFill], others: list[OrderFill]) -> list[OrderFill]:
    """Those of ``fills`` that have no counterpart in ``others``, each counterpart taken once."""
    available = Counter(map(_key, others))
    left = []
    for fill in fills:
        key = _key(fill)
        if available[key] > 0:
            available[key] -= 1
        else:
            left.append(fill)
    return left


def _key(item: OrderFill) -> _Key:
    return item.pair, item.fill.trade_id, item.client_order_id, item.fill.price, item.fill.size
