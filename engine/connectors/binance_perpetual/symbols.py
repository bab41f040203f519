"""Binance USD-M's exchangeInfo: its contracts, as pairs.

Source: "Exchange Information" of the USDⓈ-M Futures documentation (2026). A perpetual is ``BASE-QUOTE``; a
dated contract carries its date as well (``BTC-USDT-240329``).
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Filter(msgspec.Struct, rename="camel"):
    filter_type: str
    min_price: str = "0"
    max_price: str = "0"
    tick_size: str = "0"
    min_qty: str = "0"
    max_qty: str = "0"
    step_size: str = "0"
    notional: str = "0"


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    price_precision: int
    quantity_precision: int
    contract_type: str = "PERPETUAL"
    filters: list[_Filter] = []
    time_in_force: list[str] = []


class _Reply(msgspec.Struct):
    symbols: list[msgspec.Raw]


def parse_exchange_info(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no exchangeInfo. A contract that cannot be read costs no other."""
    return _LISTING.rules(body)


def _rule(symbol: _Symbol) -> TradingRule:
    filters = {entry.filter_type: entry for entry in symbol.filters}
    price = filters.get("PRICE_FILTER") or _Filter("PRICE_FILTER")
    lot = filters.get("LOT_SIZE") or _Filter("LOT_SIZE")
    _, _, date = symbol.symbol.partition("_")
    order_types = [OrderType.LIMIT, OrderType.MARKET]
    return TradingRule(
        pair="-".join(part for part in (symbol.base_asset, symbol.quote_asset, date) if part),
        symbol=symbol.symbol,
        base=symbol.base_asset,
        quote=symbol.quote_asset,
        price_increment=_number(price.tick_size) or Decimal(1).scaleb(-symbol.price_precision),
        size_increment=_number(lot.step_size) or Decimal(1).scaleb(-symbol.quantity_precision),
        min_size=_number(lot.min_qty),
        max_size=_number(lot.max_qty) or None,
        min_price=_number(price.min_price) or None,
        max_price=_number(price.max_price) or None,
        min_notional=_number((filters.get("MIN_NOTIONAL") or _Filter("MIN_NOTIONAL")).notional),
        order_types=[*order_types, OrderType.LIMIT_MAKER] if "GTX" in symbol.time_in_force else order_types,
        is_trading=symbol.status == "TRADING",
    )


def _number(text: str) -> Decimal:
    value = Decimal(text)
    require_amounts(value)
    if value < 0:
        raise ValueError(f"{text!r} is no limit")
    return value


_LISTING = Listing("exchangeInfo", _Reply, lambda reply: reply.symbols, _Symbol, _rule)
