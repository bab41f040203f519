"""Binance USD-M futures: addresses and paths.

Sources: the "USDⓈ-M Futures" documentation, pages "General Info" and "Websocket Market Streams" (2026). Since
April 2026 streams are split by path: depth and best quotes under ``/public``, trades under ``/market``.
"""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {
    "": Endpoints(rest="https://fapi.binance.com", ws="wss://fstream.binance.com"),
    "testnet": Endpoints(rest="https://demo-fapi.binance.com", ws="wss://fstream.binancefuture.com"),
}

PATH_RULES = "/fapi/v1/exchangeInfo"
PATH_DEPTH = "/fapi/v1/depth"

MAX_STREAMS = 200
MAX_URL = 4000
SNAPSHOT_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
SNAPSHOT_DEPTH = 1000
QUOTE_OVERDUE_S = 2.0
"""Diffs come every 100 ms, and cover every id of a best quote; in recordings within 0.2 s of it."""

CLIENT_ORDER_ID_LIMIT = 36
