"""Kraken, WebSocket v1: addresses and limits. Source: "WebSockets API v1" of Kraken's API centre."""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {"": Endpoints(rest="https://api.kraken.com", ws="wss://ws.kraken.com")}

PATH_RULES = "/0/public/AssetPairs"
PATH_DEPTH = "/0/public/Depth"
AUDIT_LEVELS = 100
DEPTHS = (10, 25, 100, 500, 1000)
DEPTH = 100
PAIRS_A_CONNECTION = 100
KEEPALIVE_S = 30.0

CLIENT_ORDER_ID_LIMIT = 36

COMMON_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
"""Kraken's own names of assets that the rest of the world calls otherwise."""
OWN_NAMES = {common: own for own, common in COMMON_NAMES.items()}
