"""What connectors share that bring market data and no trading."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from engine.connectors.base import Clock, Connector
from engine.errors import ConfigError


class MarketDataConnector(Connector):
    """A venue whose streams are read and where nothing is traded.

    Its REST clients and its private stream raise ConfigError.
    """

    needs_credentials: ClassVar[bool] = False
    key_names: ClassVar[tuple[str, ...]] = ()
    capabilities: ClassVar[tuple[str, ...]] = ("market data",)

    def user_data(self) -> NoReturn:
        raise self._no_trading()

    def public(self, clock: Clock) -> NoReturn:
        raise self._no_trading()

    def exchange(self, clock: Clock) -> NoReturn:
        raise self._no_trading()

    def _no_trading(self) -> ConfigError:
        return ConfigError(f"connector {self.name!r}: venue {self.venue} has no trading yet in this version")

    def _choice(self, option: str, default: int, allowed: tuple[int, ...]) -> int:
        """A whole number of the connector's options; ConfigError if it is none of the allowed."""
        value = self.settings.options.get(option, default)
        if isinstance(value, bool) or value not in allowed:
            names = ", ".join(str(one) for one in allowed)
            raise ConfigError(f"connector {self.name!r}: option {option} must be one of {names}, not {value!r}")
        return int(value)
