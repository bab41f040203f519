"""Coinbase Exchange: addresses. Source: "WebSocket Overview" of the Coinbase Exchange documentation (2026)."""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {
    "": Endpoints(rest="https://api.exchange.coinbase.com", ws="wss://ws-feed.exchange.coinbase.com"),
    "sandbox": Endpoints(
        rest="https://api-public.sandbox.exchange.coinbase.com",
        ws="wss://ws-feed-public.sandbox.exchange.coinbase.com",
    ),
}

PATH_RULES = "/products"
PAIRS_A_CONNECTION = 50

CLIENT_ORDER_ID_LIMIT = 36
