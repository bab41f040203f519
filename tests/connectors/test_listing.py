"""Trading rules of a reply that lists what a venue trades."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from engine.connectors.errors import MalformedReply
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class Entry(msgspec.Struct):
    pair: str
    tick: Decimal


def rule_of(entry: Entry) -> TradingRule:
    if entry.tick <= 0:
        raise ValueError("no tick")
    base, quote = entry.pair.split("-")
    return TradingRule(
        pair=entry.pair,
        symbol=entry.pair,
        base=base,
        quote=quote,
        price_increment=entry.tick,
        size_increment=entry.tick,
        order_types=[OrderType.LIMIT],
    )


LISTING = Listing("things", list[msgspec.Raw], lambda reply: reply, Entry, rule_of)


def test_each_entry_that_can_be_read_is_a_rule() -> None:
    body = (
        b'[{"pair": "A-B", "tick": "0.1"}, {"pair": "C-D", "tick": "0"}, {"pair": "no pair", "tick": "1"}, 7, '
        b'{"tick": "1"}, {"pair": "E-F", "tick": "nonsense"}, {"pair": "G-H", "tick": "1e400000000"}, '
        b'{"pair": "I-J", "tick": "0.01"}]'
    )
    rules = LISTING.rules(body)
    assert {"A-B", "I-J"} <= rules.keys() <= {"A-B", "G-H", "I-J"}
    assert rules["I-J"].price_increment == Decimal("0.01")


@pytest.mark.parametrize("body", [b"", b"{}", b"[1,", b"\xff\xfe", b"[" * 100_000])
def test_a_reply_that_is_none_says_of_what(body: bytes) -> None:
    with pytest.raises(MalformedReply, match="things"):
        LISTING.rules(body)
