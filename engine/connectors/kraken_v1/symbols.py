"""Kraken's AssetPairs. Source: "Get Tradable Asset Pairs" of Kraken's API centre.

The WebSocket's names (``wsname``, ``XBT/USD``) are the symbols here; pairs say BTC and DOGE for XBT and XDG.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.kraken_v1.constants import COMMON_NAMES
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Pair(msgspec.Struct):
    wsname: str
    pair_decimals: int
    lot_decimals: int
    tick_size: Decimal | None = None
    ordermin: Decimal = Decimal(0)
    costmin: Decimal = Decimal(0)
    status: str = "online"


class _Reply(msgspec.Struct):
    result: dict[str, msgspec.Raw]
    error: list[str] = []


def pair_of(symbol: str) -> str | None:
    """``BTC-USD`` of ``XBT/USD``; None if it is no symbol."""
    base, slash, quote = symbol.partition("/")
    if not (base and slash and quote) or "-" in symbol:
        return None
    return f"{COMMON_NAMES.get(base, base)}-{COMMON_NAMES.get(quote, quote)}"


def parse_asset_pairs(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no such reply. An entry without a name on the WebSocket is left
    out, as is one that cannot be read.
    """
    return _LISTING.rules(body)


def _rule(entry: _Pair) -> TradingRule:
    pair = pair_of(entry.wsname)
    if pair is None or not (0 <= entry.pair_decimals <= 30 and 0 <= entry.lot_decimals <= 30):
        raise ValueError(f"{entry.wsname!r} is no pair")
    increment = entry.tick_size or Decimal(1).scaleb(-entry.pair_decimals)
    require_amounts(increment, entry.ordermin, entry.costmin)
    base, quote = pair.split("-")
    return TradingRule(
        pair=pair,
        symbol=entry.wsname,
        base=base,
        quote=quote,
        price_increment=increment,
        size_increment=Decimal(1).scaleb(-entry.lot_decimals),
        min_size=entry.ordermin,
        min_notional=entry.costmin,
        order_types=[OrderType.LIMIT, OrderType.MARKET, OrderType.LIMIT_MAKER],
        is_trading=entry.status == "online",
    )


_LISTING = Listing("AssetPairs", _Reply, lambda reply: reply.result.values(), _Pair, _rule)
