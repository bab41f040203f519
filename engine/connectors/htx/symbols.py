"""HTX's symbols. Source: "Get all Supported Trading Symbols" of the HTX documentation (2026)."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Symbol(msgspec.Struct, rename="kebab"):
    symbol: str
    base_currency: str
    quote_currency: str
    price_precision: int
    amount_precision: int
    state: str = "online"
    min_order_value: Decimal = Decimal(0)
    limit_order_min_order_amt: Decimal = Decimal(0)
    limit_order_max_order_amt: Decimal = Decimal(0)


class _Reply(msgspec.Struct):
    data: list[msgspec.Raw]
    status: str = "ok"


def parse_symbols(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no such reply. One that cannot be read costs no other."""
    return _LISTING.rules(body)


def _rule(entry: _Symbol) -> TradingRule:
    if not (0 <= entry.price_precision <= 30 and 0 <= entry.amount_precision <= 30):
        raise ValueError(f"{entry.symbol} has no precision")
    smallest, largest, notional = (
        entry.limit_order_min_order_amt,
        entry.limit_order_max_order_amt,
        entry.min_order_value,
    )
    require_amounts(smallest, largest, notional)
    base, quote = entry.base_currency.upper(), entry.quote_currency.upper()
    return TradingRule(
        pair=f"{base}-{quote}",
        symbol=entry.symbol,
        base=base,
        quote=quote,
        price_increment=Decimal(1).scaleb(-entry.price_precision),
        size_increment=Decimal(1).scaleb(-entry.amount_precision),
        min_size=smallest,
        max_size=largest or None,
        min_notional=notional,
        order_types=[OrderType.LIMIT, OrderType.MARKET, OrderType.LIMIT_MAKER],
        is_trading=entry.state == "online",
    )


_LISTING = Listing("symbols", _Reply, lambda reply: reply.data, _Symbol, _rule)
