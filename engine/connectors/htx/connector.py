"""HTX spot, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.base import HttpRequest
from engine.connectors.htx import constants
from engine.connectors.htx.market_data import HtxMarketData
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.settings import Endpoints
from engine.pairs import split_symbol


class HtxConnector(MarketDataConnector):
    """HTX spot (once Huobi). Options: ``levels`` (5, 20, 150 or 400: changes of so many levels, many times a second; 0,
    the default: the whole book once a second).
    """

    venue = "htx"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    option_names: ClassVar[tuple[str, ...]] = (*MarketDataConnector.option_names, "levels")
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    rules_requests = (HttpRequest(path=constants.PATH_RULES),)

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return f"{base}{quote}".lower()

    @staticmethod
    def unspell(symbol: str) -> str | None:
        return split_symbol(symbol)

    def market_data(self) -> HtxMarketData:
        levels = self._choice("levels", 0, constants.LEVELS)
        return HtxMarketData(self.endpoints.ws, self.symbols, levels=levels)
