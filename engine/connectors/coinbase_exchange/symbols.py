"""Coinbase Exchange's products. Source: "Get all known trading pairs" of its documentation (2026).

A product's id is its pair. Captures of before 2022 carry ``base_min_size`` and ``base_max_size``.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Product(msgspec.Struct):
    id: str
    base_currency: str
    quote_currency: str
    quote_increment: str
    base_increment: str
    base_min_size: str = ""
    base_max_size: str = ""
    min_market_funds: str = ""
    status: str = "online"
    trading_disabled: bool = False


def parse_products(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no such reply. One that cannot be read costs no other."""
    return _LISTING.rules(body)


def _rule(product: _Product) -> TradingRule:
    tick, step = Decimal(product.quote_increment), Decimal(product.base_increment)
    smallest, largest = Decimal(product.base_min_size or 0), Decimal(product.base_max_size or 0)
    notional = Decimal(product.min_market_funds or 0)
    require_amounts(tick, step, smallest, largest, notional)
    if tick <= 0 or step <= 0:
        raise ValueError(f"{product.id} has no increments")
    return TradingRule(
        pair=f"{product.base_currency}-{product.quote_currency}",
        symbol=product.id,
        base=product.base_currency,
        quote=product.quote_currency,
        price_increment=tick,
        size_increment=step,
        min_size=smallest,
        max_size=largest or None,
        min_notional=notional,
        order_types=[OrderType.LIMIT, OrderType.MARKET, OrderType.LIMIT_MAKER],
        is_trading=product.status == "online" and not product.trading_disabled,
    )


_LISTING = Listing("products", list[msgspec.Raw], lambda reply: reply, _Product, _rule)
