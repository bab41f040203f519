"""KuCoin spot: addresses. Source: "Websocket Feed" and "REST API" of the KuCoin documentation (2026).

A stream's real address and its token come from ``POST /api/v1/bullet-public``; without it the venue refuses.
"""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {"": Endpoints(rest="https://api.kucoin.com", ws="wss://ws-api-spot.kucoin.com")}

PATHS_RULES = ("/api/v1/symbols", "/api/v2/symbols")
PATH_DEPTH = "/api/v1/market/orderbook/level2_100"
"""The largest book without a key."""
PATHS_DEPTH = (
    PATH_DEPTH,
    "/api/v1/market/orderbook/level2_20",
    "/api/v1/market/orderbook/level2",
    "/api/v2/market/orderbook/level2",
    "/api/v3/market/orderbook/level2",
)
PAIRS_A_TOPIC = 100
PAIRS_A_CONNECTION = 100
"""A connection takes 300 topics, and each pair needs three."""
KEEPALIVE_S = 18.0

CLIENT_ORDER_ID_LIMIT = 40
