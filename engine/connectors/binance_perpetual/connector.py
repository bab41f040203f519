"""Binance USD-M futures, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.base import HttpRequest
from engine.connectors.binance_perpetual import constants
from engine.connectors.binance_perpetual.market_data import BinancePerpetualMarketData
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.settings import Endpoints
from engine.pairs import split_symbol


class BinancePerpetualConnector(MarketDataConnector):
    """USD-M perpetual and dated contracts. Options: ``snapshot_depth`` (5, 10, 20, 50, 100, 500 or 1000)."""

    venue = "binance_perpetual"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    option_names: ClassVar[tuple[str, ...]] = (*MarketDataConnector.option_names, "snapshot_depth")
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    rules_requests = (HttpRequest(path=constants.PATH_RULES),)

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return base + quote.replace("-", "_")

    @staticmethod
    def unspell(symbol: str) -> str | None:
        contract, _, date = symbol.partition("_")
        pair = split_symbol(contract)
        return f"{pair}-{date}" if pair and date else pair

    def market_data(self) -> BinancePerpetualMarketData:
        depth = self._choice("snapshot_depth", constants.SNAPSHOT_DEPTH, constants.SNAPSHOT_DEPTHS)
        return BinancePerpetualMarketData(self.endpoints.ws, self.symbols, snapshot_depth=depth)
