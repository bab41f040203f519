"""Coinbase Exchange, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.base import HttpRequest
from engine.connectors.coinbase_exchange import constants
from engine.connectors.coinbase_exchange.market_data import CoinbaseExchangeMarketData
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.settings import Endpoints


class CoinbaseExchangeConnector(MarketDataConnector):
    """Coinbase Exchange (once Coinbase Pro): a product's id is its pair."""

    venue = "coinbase_exchange"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    rules_requests = (HttpRequest(path=constants.PATH_RULES),)

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return f"{base}-{quote}"

    @staticmethod
    def unspell(symbol: str) -> str | None:
        base, _, quote = symbol.partition("-")
        return symbol if base and quote else None

    def market_data(self) -> CoinbaseExchangeMarketData:
        return CoinbaseExchangeMarketData(self.endpoints.ws, self.symbols)
