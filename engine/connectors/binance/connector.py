"""Binance spot, as a connector."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from engine.connectors.base import Clock, Connector
from engine.connectors.binance import constants
from engine.connectors.binance.exchange import BinanceExchange
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.binance.public import BinancePublic
from engine.connectors.binance.user_data import BinanceUserData
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.errors import ConfigError
from engine.messages import FeeSchema
from engine.pairs import split_symbol


class BinanceConnector(Connector):
    """Binance spot, Binance.US and the spot test network.

    Options: ``recv_window_ms`` (1 to 60000), ``snapshot_depth`` (1 to 5000), ``timeout_s``, ``ca``, ``order_entry``
    (``websocket``, or ``rest`` for orders by REST alone), ``shared_limits`` (a file in which all processes of the host
    that use the venue count their requests together).
    """

    venue = "binance"
    domains: ClassVar[dict[str, Endpoints]] = constants.DOMAINS
    client_order_id_limit = constants.CLIENT_ORDER_ID_LIMIT
    option_names: ClassVar[tuple[str, ...]] = (
        *Connector.option_names,
        "recv_window_ms",
        "snapshot_depth",
        "order_entry",
        "shared_limits",
    )
    fees: ClassVar[FeeSchema] = FeeSchema(maker=Decimal("0.001"), taker=Decimal("0.001"), buy_from_returns=True)

    def __init__(self, settings: ConnectorSettings) -> None:
        super().__init__(settings)
        self._recv_window_ms = self._whole("recv_window_ms", constants.RECV_WINDOW_MS, 60_000)
        self._snapshot_depth = self._whole("snapshot_depth", constants.SNAPSHOT_DEPTH, 5000)
        self._common: dict[str, Any] = {
            "timeout_s": self.timeout_s,
            "ca": self.ca,
            "shared_limits": settings.options.get("shared_limits"),
        }
        self._order_entry = self._one_of("order_entry", ("websocket", "rest"))

    @staticmethod
    def spell(base: str, quote: str) -> str:
        return base + quote

    @staticmethod
    def unspell(symbol: str) -> str | None:
        return split_symbol(symbol)

    def market_data(self) -> BinanceMarketData:
        return BinanceMarketData(self.endpoints.ws, self.symbols, snapshot_depth=self._snapshot_depth)

    def user_data(self) -> BinanceUserData:
        return BinanceUserData(self.endpoints.ws_api, self.symbols, self._credentials(), self._recv_window_ms)

    def public(self, clock: Clock) -> BinancePublic:
        return BinancePublic(self.endpoints.rest, self.symbols, clock, **self._common)

    def exchange(self, clock: Clock) -> BinanceExchange:
        return BinanceExchange(
            self.endpoints.rest,
            self.symbols,
            clock,
            self._credentials(),
            ws_api=self.endpoints.ws_api if self._order_entry == "websocket" else "",
            recv_window_ms=self._recv_window_ms,
            **self._common,
        )

    def _credentials(self) -> Credentials:
        if self.settings.credentials is None:
            raise ConfigError(f"connector {self.name!r} has no key: give it credentials")
        return self.settings.credentials

    def _one_of(self, option: str, values: tuple[str, ...]) -> str:
        value = str(self.settings.options.get(option, values[0]))
        if value not in values:
            raise ConfigError(f"connector {self.name!r}: option {option} is one of {', '.join(values)}, not {value!r}")
        return value

    def _whole(self, option: str, default: int, most: int) -> int:
        value = self.settings.options.get(option, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ConfigError(f"connector {self.name!r}: option {option} must be 1 to {most}, not {value!r}")
        return value
