"""Kraken by its WebSocket v1, as a connector of market data."""

from __future__ import annotations

from typing import ClassVar

from engine.connectors.base import HttpRequest
from engine.connectors.kraken_v1 import constants
from engine.connectors.kraken_v1.market_data import KrakenV1MarketData
from engine.connectors.kraken_v1.symbols import pair_of
from engine.connectors.market_only import MarketDataConnector
from engine.connectors.settings import Endpoints


class KrakenV1Connector(MarketDataConnector):
    """Kraken spot. Options: ``depth`` (10, 25, 100, 500 or 1000)."""

    venue = "kraken_v1"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    option_names: ClassVar[tuple[str, ...]] = (*MarketDataConnector.option_names, "depth")
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    rules_requests = (HttpRequest(path=constants.PATH_RULES),)

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return f"{constants.OWN_NAMES.get(base, base)}/{constants.OWN_NAMES.get(quote, quote)}"

    @staticmethod
    def unspell(symbol: str) -> str | None:
        return pair_of(symbol)

    def market_data(self) -> KrakenV1MarketData:
        depth = self._choice("depth", constants.DEPTH, constants.DEPTHS)
        return KrakenV1MarketData(self.endpoints.ws, self.symbols, depth=depth)
