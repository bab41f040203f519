"""OKX's instruments. Source: "Get instruments" of the OKX API v5 documentation (2026).

A spot instrument's id is its pair (``BTC-USDT``); derivatives keep their id as well (``BTC-USDT-SWAP``,
``BTC-USD-220527``). Sizes of derivatives are in contracts.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.connectors.decoding import require_amounts
from engine.connectors.listing import Listing
from engine.messages import OrderType, TradingRule


class _Instrument(msgspec.Struct, rename="camel"):
    inst_id: str
    tick_sz: str
    lot_sz: str
    min_sz: str = ""
    max_lmt_sz: str = ""
    base_ccy: str = ""
    quote_ccy: str = ""
    state: str = "live"


class _Reply(msgspec.Struct):
    data: list[msgspec.Raw]
    code: str = "0"


def parse_instruments(body: bytes | str) -> dict[str, TradingRule]:
    """Rules by pair; MalformedReply if it is no such reply. One that cannot be read costs no other."""
    return _LISTING.rules(body)


def _rule(entry: _Instrument) -> TradingRule:
    base, _, rest = entry.inst_id.partition("-")
    if not base or not rest:
        raise ValueError(f"{entry.inst_id!r} is no pair")
    tick, lot = Decimal(entry.tick_sz), Decimal(entry.lot_sz)
    smallest, largest = Decimal(entry.min_sz or 0), Decimal(entry.max_lmt_sz or 0)
    require_amounts(tick, lot, smallest, largest)
    if tick <= 0 or lot <= 0:
        raise ValueError(f"{entry.inst_id} has no increments")
    return TradingRule(
        pair=entry.inst_id,
        symbol=entry.inst_id,
        base=entry.base_ccy or base,
        quote=entry.quote_ccy or rest.partition("-")[0],
        price_increment=tick,
        size_increment=lot,
        min_size=smallest,
        max_size=largest or None,
        order_types=[OrderType.LIMIT, OrderType.MARKET, OrderType.LIMIT_MAKER],
        is_trading=entry.state == "live",
    )


_LISTING = Listing("instruments", _Reply, lambda reply: reply.data, _Instrument, _rule)
