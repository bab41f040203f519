"""Binance's exchangeInfo: what it accepts for each symbol, and its request limits.

Source: "Filters" and "Exchange information" of the Spot API documentation (2026). Captures of before 2023
carry ``MIN_NOTIONAL`` in place of ``NOTIONAL``.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from engine.connectors.decoding import UNREADABLE, require_amounts
from engine.connectors.errors import MalformedReply
from engine.connectors.throttler import ACCOUNT, ADDRESS, RateLimit
from engine.messages import OrderType, TradingRule

_ORDER_TYPES = {
    "LIMIT": OrderType.LIMIT,
    "LIMIT_MAKER": OrderType.LIMIT_MAKER,
    "MARKET": OrderType.MARKET,
}
_INTERVAL_S = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}


class ExchangeInfo(msgspec.Struct, frozen=True):
    """Rules by pair, limits by name, and the symbols whose rules could not be read."""

    rules: dict[str, TradingRule]
    limits: dict[str, RateLimit]
    skipped: tuple[str, ...] = ()


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class _Reply(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: list[_RateLimit] = []


class _Filter(msgspec.Struct, rename="camel"):
    filter_type: str
    min_price: str = "0"
    max_price: str = "0"
    tick_size: str = "0"
    min_qty: str = "0"
    max_qty: str = "0"
    step_size: str = "0"
    min_notional: str = "0"
    apply_min_to_market: bool | None = None
    apply_to_market: bool | None = None


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    base_asset_precision: int = 8
    quote_precision: int = 8
    order_types: list[str] = []
    filters: list[_Filter] = []


class _SymbolName(msgspec.Struct):
    symbol: str = "?"


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_symbol = msgspec.json.Decoder(_Symbol).decode
_decode_name = msgspec.json.Decoder(_SymbolName).decode


def parse_exchange_info(body: bytes | str) -> ExchangeInfo:
    """Read the whole reply; MalformedReply if it is none. One symbol that cannot be read costs no other."""
    try:
        reply = _decode_reply(body)
    except UNREADABLE as error:
        raise MalformedReply(f"exchangeInfo: {error}") from error
    rules: dict[str, TradingRule] = {}
    skipped: list[str] = []
    for raw in reply.symbols:
        try:
            rule = _rule(_decode_symbol(raw))
        except (*UNREADABLE, InvalidOperation, ValueError):
            skipped.append(_name_of(raw))
        else:
            rules[rule.pair] = rule
    limits = {
        f"{limit.rate_limit_type}_{limit.interval_num}{limit.interval[:1]}": RateLimit(
            limit.limit,
            limit.interval_num * _INTERVAL_S[limit.interval] * 1_000_000_000,
            ACCOUNT if limit.rate_limit_type == "ORDERS" else ADDRESS,
        )
        for limit in reply.rate_limits
        if limit.interval in _INTERVAL_S and limit.interval_num > 0 and limit.limit > 0
    }
    return ExchangeInfo(rules, limits, tuple(skipped))


def _name_of(raw: msgspec.Raw) -> str:
    try:
        return _decode_name(raw).symbol
    except UNREADABLE:
        return "?"


def _rule(symbol: _Symbol) -> TradingRule:
    filters = {entry.filter_type: entry for entry in symbol.filters}
    price = filters.get("PRICE_FILTER") or _Filter("PRICE_FILTER")
    lot = filters.get("LOT_SIZE") or _Filter("LOT_SIZE")
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or _Filter("NOTIONAL")
    to_market = notional.apply_min_to_market
    if to_market is None:
        to_market = notional.apply_to_market if notional.apply_to_market is not None else True
    return TradingRule(
        pair=f"{symbol.base_asset}-{symbol.quote_asset}",
        symbol=symbol.symbol,
        base=symbol.base_asset,
        quote=symbol.quote_asset,
        price_increment=_number(price.tick_size) or Decimal(1).scaleb(-symbol.quote_precision),
        size_increment=_number(lot.step_size) or Decimal(1).scaleb(-symbol.base_asset_precision),
        min_size=_number(lot.min_qty),
        max_size=_number(lot.max_qty) or None,
        min_price=_number(price.min_price) or None,
        max_price=_number(price.max_price) or None,
        min_notional=_number(notional.min_notional),
        market_min_notional=to_market,
        order_types=[_ORDER_TYPES[name] for name in symbol.order_types if name in _ORDER_TYPES],
        is_trading=symbol.status == "TRADING",
    )


def _number(text: str) -> Decimal:
    """An exact value without trailing zeros and without an exponent. Zero stands for "no limit"."""
    value = Decimal(text)
    require_amounts(value)
    if value < 0:
        raise ValueError(f"{text!r} is no limit")
    value = value.normalize()
    return value if int(value.as_tuple().exponent) <= 0 else value.quantize(Decimal(1))
