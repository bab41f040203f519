"""OKX v5: addresses and limits. Source: "Overview" and "WebSocket" of the OKX API v5 documentation (2026)."""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {
    "": Endpoints(rest="https://www.okx.com", ws="wss://ws.okx.com:8443/ws/v5/public"),
    "eea": Endpoints(rest="https://eea.okx.com", ws="wss://wseea.okx.com:8443/ws/v5/public"),
    "us": Endpoints(rest="https://us.okx.com", ws="wss://wsus.okx.com:8443/ws/v5/public"),
}

PATH_RULES = "/api/v5/public/instruments"
BOOK_CHANNELS = {"books": 400, "books-l2-tbt": 400, "books50-l2-tbt": 50}
"""Channels of snapshots and diffs, and how many levels a side they keep; the venue says which ones leave."""
WHOLE_CHANNELS = {"books5": 5}
"""Channels of nothing but whole books. They are read from recordings that have no other."""
PAIRS_A_CONNECTION = 100
KEEPALIVE_S = 25.0

CLIENT_ORDER_ID_LIMIT = 32
