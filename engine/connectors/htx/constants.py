"""HTX spot: addresses. Source: "Websocket Market Data" of the HTX documentation (2026)."""

from __future__ import annotations

from engine.connectors.settings import Endpoints

DOMAINS = {
    "": Endpoints(rest="https://api.huobi.pro", ws="wss://api.huobi.pro/ws"),
    "aws": Endpoints(rest="https://api-aws.huobi.pro", ws="wss://api-aws.huobi.pro/ws"),
}

PATH_RULES = "/v1/common/symbols"
PATH_FEED = "/feed"
"""Where the changes of books come from."""
LEVELS = (0, 5, 20, 150, 400)
"""Of a book of changes; 0: whole books."""
PAIRS_A_CONNECTION = 50

CLIENT_ORDER_ID_LIMIT = 64
