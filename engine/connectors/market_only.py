"""What connectors share that bring market data and no trading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, NoReturn
from urllib.parse import urlsplit

from engine.connectors.base import Clock, Connector, HttpRequest, MarketDataClient, MarketDataProtocol
from engine.connectors.decoding import retry_after_s
from engine.connectors.errors import MalformedReply, RateLimited, UnknownOutcome, VenueRefused
from engine.connectors.rest import RestClient
from engine.connectors.throttler import Throttler
from engine.errors import ConfigError, VenueError
from engine.messages import TradingRule

_TOO_MANY = (418, 429)
_RETRY_AFTER_S = 5.0
_EXCERPT = 200


class MarketDataConnector(Connector):
    """A venue whose streams are read and where nothing is traded.

    Its private stream and its clients of an account raise ConfigError. ``rules_requests``: what to ask for the list of
    its instruments; the protocol's ``parse_recorded`` reads the answers.
    """

    needs_credentials: ClassVar[bool] = False
    key_names: ClassVar[tuple[str, ...]] = ()
    capabilities: ClassVar[tuple[str, ...]] = ("market data",)
    rules_requests: ClassVar[tuple[HttpRequest, ...]] = ()

    def check_options(self) -> None:
        super().check_options()
        if not self.rules_requests:
            raise self._recordings_alone()

    def books(self, clock: Clock) -> MarketDataClient:
        if not self.rules_requests:
            raise self._recordings_alone()
        return MarketOnlyClient(
            self.endpoints.rest,
            self.market_data(),
            self.rules_requests,
            clock,
            timeout_s=self.timeout_s,
            ca=self.ca,
        )

    def user_data(self) -> NoReturn:
        raise self._no_trading()

    def public(self, clock: Clock) -> NoReturn:
        raise self._no_trading()

    def exchange(self, clock: Clock) -> NoReturn:
        raise self._no_trading()

    def _recordings_alone(self) -> ConfigError:
        return ConfigError(
            f"connector {self.name!r}: venue {self.venue} is read from recordings alone so far, by engine replay"
        )

    def _no_trading(self) -> ConfigError:
        return ConfigError(f"connector {self.name!r}: venue {self.venue} has no trading yet in this version")

    def _choice(self, option: str, default: int, allowed: tuple[int, ...]) -> int:
        """A whole number of the connector's options; ConfigError if it is none of the allowed."""
        value = self.settings.options.get(option, default)
        if isinstance(value, bool) or value not in allowed:
            names = ", ".join(str(one) for one in allowed)
            raise ConfigError(f"connector {self.name!r}: option {option} must be one of {names}, not {value!r}")
        return int(value)


class MarketOnlyClient(MarketDataClient):
    """Lists of instruments and books by REST, without a key.

    ``protocol`` shares its symbols with the connector, so that what the venue lists is learned by both.
    """

    def __init__(
        self,
        rest: str,
        protocol: MarketDataProtocol,
        rules_requests: tuple[HttpRequest, ...],
        clock: Clock,
        *,
        timeout_s: float = 5.0,
        ca: str | None = None,
    ) -> None:
        self._base_url = rest.rstrip("/")
        self._protocol = protocol
        self._rules_requests = rules_requests
        self._throttler = Throttler({}, clock=clock, venue_now_ns=clock.time_ns, address=urlsplit(rest).netloc)
        self._rest = RestClient(
            rest,
            clock=clock,
            classify=classify,
            throttler=self._throttler,
            read_usage=lambda headers: {},
            timeout_s=timeout_s,
            ca=ca,
        )

    async def start(self) -> None:
        await self._rest.start()

    async def close(self) -> None:
        self._throttler.close()
        await self._rest.close()

    async def trading_rules(self, pairs: Iterable[str] | None = None) -> dict[str, TradingRule]:
        rules: dict[str, TradingRule] = {}
        for request in self._rules_requests:
            found = self._protocol.parse_recorded(self._base_url + request.path, await self.fetch(request)).rules
            if found is None:
                raise MalformedReply(f"{request.path}: the reply lists no instruments")
            rules |= found
        return rules if pairs is None else {pair: rules[pair] for pair in pairs if pair in rules}

    async def fetch(self, request: HttpRequest) -> bytes:
        if request.method == "GET":
            return (await self._rest.read(request.path, request.query)).body
        return (await self._rest.send(request.method, request.path, request.query)).body


def classify(status: int, headers: Mapping[str, str], body: bytes) -> VenueError:
    """The error of a reply that is none of success, of a request that changes nothing at the venue."""
    text = body[:_EXCERPT].decode("utf-8", "replace")
    if status in _TOO_MANY:
        after_s = retry_after_s(headers)
        return RateLimited(status, text, _RETRY_AFTER_S if after_s is None else after_s)
    if status >= 500:
        return UnknownOutcome(f"HTTP {status}: {text}" if text else f"HTTP {status}", code=status)
    return VenueRefused(status, text)
