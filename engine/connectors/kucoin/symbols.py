"""KuCoin's symbols. Source: "Get All Symbols" of the KuCoin documentation (2026). A symbol is its pair."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: str
    base_currency: str
    quote_currency: str
    price_increment: str
    base_increment: str
    base_min_size: str = "0"
    base_max_size: str = "0"
    min_funds: str | None = None
    enable_trading: bool = True


class _Reply(msgspec.Struct):
    data: list[msgspec.Raw]
    code: str = "200000"


def parse_symbols(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no such reply. One that cannot be read costs no other."""
    return _LISTING.rules(body)


def _rule(entry: _Symbol) -> TradingRule:
    tick, step = Decimal(entry.price_increment), Decimal(entry.base_increment)
    smallest, largest, notional = (
        Decimal(text or 0) for text in (entry.base_min_size, entry.base_max_size, entry.min_funds)
    )
    require_amounts(tick, step, smallest, largest, notional)
    if tick <= 0 or step <= 0 or "-" not in entry.symbol:
        raise ValueError(f"{entry.symbol} has no increments, or is no pair")
    return TradingRule(
        pair=entry.symbol,
        symbol=entry.symbol,
        base=entry.base_currency,
        quote=entry.quote_currency,
        price_increment=tick,
        size_increment=step,
        min_size=smallest,
        max_size=largest or None,
        min_notional=notional,
        order_types=[OrderType.LIMIT, OrderType.MARKET, OrderType.LIMIT_MAKER],
        is_trading=entry.enable_trading,
    )


_LISTING = Listing("symbols", _Reply, lambda reply: reply.data, _Symbol, _rule)
