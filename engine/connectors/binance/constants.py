"""Binance spot: addresses, limits and what requests cost.

Sources: Binance's "Spot API" documentation, pages "General API information", "Limits", "WebSocket Streams",
"WebSocket API" (2026). Binance.US keeps the same interface under its own hosts.
"""

from __future__ import annotations

import re

from engine.connectors.settings import Endpoints
from engine.connectors.throttler import ACCOUNT, RateLimit

DOMAINS = {
    "": Endpoints(
        rest="https://api.binance.com",
        ws="wss://stream.binance.com:9443",
        ws_api="wss://ws-api.binance.com:443/ws-api/v3",
    ),
    "us": Endpoints(
        rest="https://api.binance.us",
        ws="wss://stream.binance.us:9443",
        ws_api="wss://ws-api.binance.us:443/ws-api/v3",
    ),
    "testnet": Endpoints(
        rest="https://testnet.binance.vision",
        ws="wss://stream.testnet.binance.vision",
        ws_api="wss://ws-api.testnet.binance.vision/ws-api/v3",
    ),
}

PATH_TIME = "/api/v3/time"
PATH_RULES = "/api/v3/exchangeInfo"
PATH_DEPTH = "/api/v3/depth"
PATHS_RULES = (PATH_RULES, "/api/v1/exchangeInfo")
PATHS_DEPTH = (PATH_DEPTH, "/api/v1/depth")
"""Recordings of before 2023 may have the old ones."""
PATH_ORDER = "/api/v3/order"
PATH_OPEN_ORDERS = "/api/v3/openOrders"
PATH_FILLS = "/api/v3/myTrades"
PATH_ACCOUNT = "/api/v3/account"
PATH_COMMISSION = "/api/v3/account/commission"

WEIGHT = "REQUEST_WEIGHT_1M"
RAW = "RAW_REQUESTS_5M"
ORDERS_10S = "ORDERS_10S"
ORDERS_1D = "ORDERS_1D"
_SECOND = 1_000_000_000
DEFAULT_LIMITS = {
    WEIGHT: RateLimit(6000, 60 * _SECOND, linked=((RAW, 1),)),
    RAW: RateLimit(300_000, 300 * _SECOND),
    ORDERS_10S: RateLimit(50, 10 * _SECOND, ACCOUNT, reserve=0.0),
    ORDERS_1D: RateLimit(160_000, 86_400 * _SECOND, ACCOUNT, reserve=0.0),
}
"""Until exchangeInfo tells the present ones."""

SUBSCRIBE_CHUNK = 200
MAX_STREAMS = 4 * SUBSCRIBE_CHUNK
"""Of one connection. The venue takes 1024, but cuts one that sends it more than five messages in a second: four
subscribe to these, and one is left for a ping ("WebSocket Streams", limits).
"""
MAX_URL = 4000
"""Longer addresses are refused by some proxies; past this the streams are subscribed to by messages."""
SNAPSHOT_DEPTH = 1000
QUOTE_OVERDUE_S = 2.0
"""Diffs come every 100 ms, and cover every id of a best quote; in recordings within 0.2 s of it."""

RECV_WINDOW_MS = 5000
CONNECT_WEIGHT = 2
"""What opening a WebSocket API connection costs."""
SUBSCRIBE_WEIGHT = 2
"""What ``userDataStream.subscribe.signature`` costs."""
TIMESTAMP_LEAD_MS = 1000
"""A request is accepted iff ``timestamp < serverTime + 1000 && serverTime - timestamp <= recvWindow``."""

CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
CLIENT_ORDER_ID_LIMIT = 36
