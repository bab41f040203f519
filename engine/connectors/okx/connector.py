"""OKX v5, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.base import HttpRequest
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.okx import constants
from engine.connectors.okx.market_data import OkxMarketData
from engine.connectors.settings import Endpoints


class OkxConnector(MarketDataConnector):
    """Spot, swaps and futures: an instrument's id is its pair."""

    venue = "okx"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    rules_requests = tuple(
        HttpRequest(path=constants.PATH_RULES, query=f"instType={kind}") for kind in ("SPOT", "SWAP", "FUTURES")
    )

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return f"{base}-{quote}"

    @staticmethod
    def unspell(symbol: str) -> str | None:
        base, _, quote = symbol.partition("-")
        return symbol if base and quote else None

    def market_data(self) -> OkxMarketData:
        return OkxMarketData(self.endpoints.ws, self.symbols)
