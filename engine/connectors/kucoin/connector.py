"""KuCoin spot, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.kucoin import constants
from engine.connectors.kucoin.market_data import KucoinMarketData
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.settings import Endpoints


class KucoinConnector(MarketDataConnector):
    """KuCoin spot: a symbol is its pair."""

    venue = "kucoin"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    capabilities = ("recordings",)

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return f"{base}-{quote}"

    @staticmethod
    def unspell(symbol: str) -> str | None:
        base, _, quote = symbol.partition("-")
        return symbol if base and quote else None

    def market_data(self) -> KucoinMarketData:
        return KucoinMarketData(self.endpoints.ws, self.symbols)
