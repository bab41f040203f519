"""What a venue's connector consists of. A folder beside ``binance/`` implements these for one venue.

::

    Connector ─── symbols                        pairs and the venue's spelling of them
       ├── market_data()  → MarketDataProtocol   public streams, pure: frames in, typed events out
       ├── user_data()    → UserDataProtocol     the private stream, pure
       ├── books(clock)   → MarketDataClient     REST without a key: rules, snapshots
       ├── public(clock)  → PublicClient         the same, and the venue's time
       └── exchange(clock)→ ExchangeClient       REST with a key: orders, fills, balances

The two protocols never touch a socket: actors own the sockets (:mod:`engine.connectors.websocket`) and pass
frames in and texts out, so that recorded traffic goes through the same code as live traffic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.connectors.hot_path import FrameScanner
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.connectors.symbols import SymbolMap
from engine.errors import ConfigError
from engine.messages import (
    FeeSchema,
    Fill,
    Order,
    Side,
    TradingRule,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)

if TYPE_CHECKING:
    from engine.book.rules import SequenceRule
    from engine.connectors.time_sync import TimeSynchronizer
    from engine.errors import VenueError

__all__ = [
    "Ack",
    "Clock",
    "ConnectionPlan",
    "Connector",
    "ConnectorSettings",
    "Credentials",
    "Dated",
    "Endpoints",
    "ExchangeClient",
    "HttpRequest",
    "MarketDataClient",
    "MarketDataProtocol",
    "MarketEvent",
    "OnSent",
    "PlaceResult",
    "PublicClient",
    "PublicTrade",
    "RecordedReply",
    "Send",
    "SequenceNumber",
    "UserDataProtocol",
    "UserEvent",
    "UserRefused",
    "UserSubscribed",
    "UserTerminated",
    "VenueFill",
    "VenueNotice",
]

_TIMEOUT_S = 5.0
_LONGEST_TIMEOUT_S = 600.0

T = TypeVar("T")
OnSent = Callable[[int], None]
"""Called with the monotonic time (ns) at which a request's bytes are handed to its socket."""


class Clock(Protocol):
    """What connectors need of a clock; :class:`engine.clock.WallClock` is one."""

    def time_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


# ------------------------------------------------------------------------------------------------ market data


class ConnectionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket connection to open: where, what to send once it is open, and the pairs it carries."""

    url: str
    opening: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a pure protocol. ``path`` begins with ``/``; ``query`` is percent-encoded; ``weight`` is
    its cost.
    """

    path: str
    query: str = ""
    method: str = "GET"
    weight: int = 1


class PublicTrade(msgspec.Struct, frozen=True, gc=False):
    """A trade between others. ``side`` is the taker's; prices and sizes as the venue wrote them.

    ``aggregated``: all that one taker's order took at one price, under an id of its own.
    """

    pair: str
    trade_id: str
    price: str
    size: str
    side: Side
    time_ns: int
    aggregated: bool = False


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The venue confirmed a request on a stream (a subscription, say)."""

    request_id: int | str | None


class Send(msgspec.Struct, frozen=True, gc=False):
    """A text to send on the connection that the frame came from (an answer to a ping, the next step of a
    login).
    """

    text: str


class VenueNotice(msgspec.Struct, frozen=True, gc=False):
    """Something the venue says that is no data: an error, an announced shutdown. ``reconnect``: leave, come
    back.

    ``refused``: it is the answer to a subscription of ours, whose books could come to be in sync all the same, with
    snapshots of another source, and then stand still for ever. ``pair``: the one whose subscription that was, if known.
    """

    code: str
    text: str
    reconnect: bool = False
    refused: bool = False
    pair: str = ""


class SequenceNumber(msgspec.Struct, frozen=True, gc=False):
    """The number of a frame among all frames of its connection, where a venue counts these without holes.
    It comes before what else the frame says.
    """

    number: int


MarketEvent = DepthDiff | DepthSnapshot | BestQuote | PublicTrade | Ack | Send | VenueNotice | SequenceNumber


class RecordedReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorded HTTP reply says, where it matters to books: trading rules, or a snapshot of one
    pair.
    """

    rules: dict[str, TradingRule] | None = None
    snapshot: DepthSnapshot | None = None


LEAD: Final = 64
"""How far into a frame its kind is looked for."""


class MarketDataProtocol(ABC):
    """A venue's public streams, without the sockets. One object serves all connections of a connector.

    ``silence_after_s``: a connection without any data frame for so long is dead. ``keepalive``: a text to
    send every so many seconds, where the venue wants one. ``ping_every_s``: where the venue answers pings of the
    WebSocket protocol, one is sent every so many seconds and must be answered before the next: a connection that died
    without a word is found out long before a quiet market could be told from it by its silence.

    ``trade_mark``: what, of all frames, those of trades alone have near their beginning, within :data:`LEAD` bytes,
    where trades may be read behind the books of the same read; empty where they may not, or cannot be told so.

    ``quote_overdue_s``, ``max_mismatches``: where the venue documents that each best quote carries the id of the book
    that it is of. The diffs lead there within so long, or one is lost; and a book that so many of them running differ
    from is wrong. 0: nothing follows from them.

    ``audit_every_s``, ``audit_levels``, ``audit_tolerance_s``: how often each book is compared with
    :meth:`audit_request`, how many levels of it, and how far the times of stream and answer may differ.
    ``audit_any_moment``: the answer has neither number nor time, and may be the book of any moment around it.
    ``audit_batched``: messages hold several changes each, and the answer may be of between two of these.
    """

    trade_mark: ClassVar[bytes] = b""
    silence_after_s: ClassVar[float] = 30.0
    ping_every_s: ClassVar[float] = 0.0
    keepalive: ClassVar[tuple[float, str] | None] = None
    quote_overdue_s: ClassVar[float] = 0.0
    max_mismatches: ClassVar[int] = 0
    audit_every_s: ClassVar[float] = 60.0
    audit_levels: int = 10
    audit_tolerance_s: ClassVar[float] = 0.0
    audit_any_moment: ClassVar[bool] = False
    audit_batched: ClassVar[bool] = False

    @abstractmethod
    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        """The connections that carry depth, best quotes and trades of these pairs."""

    @abstractmethod
    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        """Read one frame. Streams that nobody asked for give nothing; MalformedFrame if it cannot be read."""

    def is_pong(self, data: bytes) -> bool:
        """Whether a frame is nothing but the answer to our :attr:`keepalive`, which says that the venue's end of the
        connection lives and not that it still sends data. Asked of short frames alone, and only with a keep-alive.
        """
        return False

    def hot_path(self) -> tuple[FrameScanner, SymbolMap] | None:
        """What reads this venue's commonest depth frame in compiled code, and whose symbols are in it. It must
        decline what it does not read exactly as :meth:`feed` does. None where there is no such thing.
        """
        return None

    @abstractmethod
    def sequence_rule(self, pair: str = "") -> SequenceRule:
        """The rule by which this venue numbers its depth updates; a new one for each book."""

    @abstractmethod
    def snapshot_request(self, pair: str) -> HttpRequest | None:
        """The request for a pair's full book, or None where the stream itself brings snapshots."""

    def resubscribe(self, pair: str) -> tuple[str, ...]:
        """Texts that make the stream send a pair's snapshot anew, to be sent on the connection that carries
        it. Empty where :meth:`snapshot_request` serves.
        """
        return ()

    @abstractmethod
    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        """Read the answer to :meth:`snapshot_request`; MalformedReply if it is not one."""

    def audit_request(self, pair: str) -> HttpRequest | None:
        """The request for a book to compare with, where the stream cannot show every loss; its answer is read
        by :meth:`parse_snapshot`. None where there is no need, or nothing to ask.
        """
        return None

    @abstractmethod
    def pairs_of(self, url: str) -> tuple[str, ...]:
        """The pairs whose depth a recorded connection's address names; empty if it names none."""

    def best_levels_of(self, url: str, sent: Sequence[str]) -> frozenset[str]:
        """The pairs whose changes are none but the best levels, which say the same of themselves, on a recorded
        connection of this address on which these texts were sent.
        """
        return frozenset()

    @abstractmethod
    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        """Read a recorded HTTP reply; an empty :class:`RecordedReply` if it is of no concern to books."""


# ------------------------------------------------------------------------------------------------ user stream


class UserSubscribed(msgspec.Struct, frozen=True, gc=False):
    """The private subscription is up: from here on nothing is missed. Reconcile now."""


class UserRefused(msgspec.Struct, frozen=True, gc=False):
    """The venue refused the subscription. Not ``retryable``: the key or its permissions are wrong. ``silence_s``: it
    asked for so much silence, whatever is sent.
    """

    reason: str
    retryable: bool
    clock: bool = False
    silence_s: float = 0.0


class UserTerminated(msgspec.Struct, frozen=True, gc=False):
    """The venue ended the subscription: open another."""

    reason: str = ""


UserEvent = (
    VenueOrderUpdate | VenueBalanceUpdate | UserSubscribed | UserRefused | UserTerminated | Send | VenueNotice | Ack
)


class UserDataProtocol(ABC):
    """A venue's private stream, without the socket. One object a connection.

    An order update's ``venue_time_ns`` dates it by the venue's clock; what is of an order that was not
    placed under a client order id carries the venue's own id for it. A pair that is not known keeps the
    venue's spelling.
    """

    silence_after_s: ClassVar[float] = 90.0
    keepalive: ClassVar[tuple[float, str] | None] = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect."""

    @abstractmethod
    def opening(self, now_ms: int) -> list[str]:
        """What to send once the connection is open. ``now_ms``: the venue's time
        (``TimeSynchronizer.now_ms()``).
        """

    @abstractmethod
    def feed(self, data: str | bytes) -> Sequence[UserEvent]:
        """Read one frame; MalformedFrame if it cannot be read."""


# ------------------------------------------------------------------------------------------------------- REST


class Dated(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An answer and the start of its request: it may be older than any event after that instant, never older.

    ``requested_ns`` is local wall time, ``requested_mono_ns`` local monotonic time, ``venue_ns`` the
    earliest instant of the venue's clock at which the request can have started: compare this one with
    events' ``venue_time_ns``.
    """

    value: T
    requested_ns: int
    requested_mono_ns: int
    venue_ns: int


class PlaceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The venue took the order. ``fills``: what it says was executed at once."""

    update: VenueOrderUpdate
    fills: tuple[Fill, ...] = ()
    requested_ns: int
    requested_mono_ns: int
    venue_ns: int


class VenueFill(msgspec.Struct, frozen=True, kw_only=True):
    """A fill as the venue lists it: by its own order id (and by the client's where it says so)."""

    pair: str
    side: Side
    exchange_order_id: str
    fill: Fill
    client_order_id: str = ""


class MarketDataClient(ABC):
    """The requests that books need. Every method raises errors of :mod:`engine.connectors.errors`."""

    @abstractmethod
    async def start(self) -> None:
        """Open a connection. May be called again after an error."""

    @abstractmethod
    async def close(self) -> None:
        """End all connections. Safe at any time, and more than once."""

    @abstractmethod
    async def trading_rules(self, pairs: Iterable[str] | None = None) -> dict[str, TradingRule]:
        """Rules by pair, of all pairs or of these (a pair the venue does not list is absent)."""

    @abstractmethod
    async def fetch(self, request: HttpRequest) -> bytes:
        """Carry out a protocol's request and give the reply's body (of a snapshot, say)."""


class PublicClient(MarketDataClient):
    """Requests that need no key, of a venue that is traded on: :meth:`start` also learns the venue's time."""

    time: TimeSynchronizer

    @abstractmethod
    async def server_time_ms(self) -> int:
        """The venue's time, milliseconds since the epoch."""

    async def admit_stream(self) -> None:
        """Count a connection that is about to be opened, and the subscription on it, where the venue counts them.

        Waits a while for room; RateLimited (``local``) if none comes, as while the venue wants silence.
        """
        return

    def silence(self, seconds: float) -> None:
        """The venue asked for silence, on a stream: no request goes out for so long."""
        return


class ExchangeClient(PublicClient):
    """Requests for one account. Placing is never repeated by the client, whatever happens.

    ``unreadable``: how many orders the venue listed that could not be read (of a type or state that it does not
    document) and were left out: they are not the engine's, and must not hide those that are.
    """

    unreadable: int = 0

    @property
    @abstractmethod
    def acceptance_horizon_ns(self) -> int:
        """How long after signing a request the venue can still accept it, the clock's error included."""

    @abstractmethod
    async def place(self, order: Order, on_sent: OnSent, send_by_mono_ns: int | None = None) -> PlaceResult:
        """Place the order under its client order id. ``on_sent`` is called right before its bytes go out.

        Where the venue's limits leave no room it waits, but never beyond ``send_by_mono_ns`` (of the clock's
        monotonic time), and not at all without it.

        VenueRefused: it does not exist and never will. ``TransportError(sent=False)``: the same. Anything
        else: its fate is to be asked for by :meth:`query`.
        """

    def place_now(self, order: Order, on_sent: OnSent, done: Callable[[PlaceResult | VenueError], None]) -> bool:
        """Place the order in this very call, if nothing has to be waited for; otherwise False, and nothing was done.

        ``done`` is called once, later, with what :meth:`place` would return or raise. It must not raise.
        """
        return False

    @abstractmethod
    async def cancel(self, order: Order) -> Dated[VenueOrderUpdate]:
        """Cancel by client order id; OrderNotFound if it is not open (any more)."""

    def cancel_now(self, order: Order, done: Callable[[Dated[VenueOrderUpdate] | VenueError], None]) -> bool:
        """The same, as :meth:`place_now`. After a ClockError, :meth:`cancel` will find the time anew."""
        return False

    @abstractmethod
    async def cancel_pair(self, pair: str) -> Dated[list[VenueOrderUpdate]]:
        """Cancel all open orders of a pair, those of others included; an empty list if there were none."""

    @abstractmethod
    async def query(self, order: Order) -> Dated[VenueOrderUpdate]:
        """The order's state; OrderNotFound if the venue says that there is none.

        As in :meth:`cancel`, it is asked for by the venue's own id where that is known: a person who amends an order at
        some venues gives it another client order id.
        """

    @abstractmethod
    async def open_orders(self, pairs: Iterable[str] | None = None) -> Dated[list[VenueOrderUpdate]]:
        """All open orders of the account, or those of these pairs."""

    @abstractmethod
    async def fills(
        self,
        pair: str,
        since_ns: int = 0,
        from_trade_id: str | None = None,
        exchange_order_id: str | None = None,
    ) -> Dated[list[VenueFill]]:
        """Fills, oldest first and to the end, since a venue time or from a trade id on, or of one order."""

    @abstractmethod
    async def balances(self) -> Dated[VenueBalanceUpdate]:
        """Every asset that is not zero. An asset that is absent is zero."""

    async def fee_rates(self, pairs: Iterable[str]) -> dict[str, FeeSchema]:
        """What this account pays, by pair; a pair that the venue does not tell of is absent."""
        return {}


# -------------------------------------------------------------------------------------------------- connector


class Connector(ABC):
    """A venue, as one entry of the configuration names it. Makes the parts; holds no socket itself."""

    venue: ClassVar[str]
    domains: ClassVar[dict[str, Endpoints]]
    needs_credentials: ClassVar[bool] = True
    key_names: ClassVar[tuple[str, ...]] = ("API_KEY", "API_SECRET")
    client_order_id_limit: ClassVar[int]
    capabilities: ClassVar[tuple[str, ...]] = ("market data", "trading")
    option_names: ClassVar[tuple[str, ...]] = ("timeout_s", "ca")
    fees: ClassVar[FeeSchema] = FeeSchema()
    """What an account without a discount pays, in every pair."""
    real_time_balances: ClassVar[bool] = True
    """Whether the private stream tells balances as they change; where it does not they are estimated."""

    def __init__(self, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.name = settings.connector
        self.endpoints = settings.endpoints or self.domains[settings.domain]
        self.symbols = SymbolMap(self.spell, settings.pairs)

    def check_options(self) -> None:
        """Raise ConfigError for an option that the venue cannot take, or a connector that can do nothing here."""
        _ = self.timeout_s, self.ca
        self.market_data()

    @property
    def timeout_s(self) -> float:
        """How long an answer by REST is waited for; ConfigError if the option is no time."""
        value = self.settings.options.get("timeout_s", _TIMEOUT_S)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_TIMEOUT_S:
            raise ConfigError(
                f"connector {self.name!r}: option timeout_s must be seconds, above 0 and up to"
                f" {_LONGEST_TIMEOUT_S:g}, not {value!r}"
            )
        return float(value)

    @property
    def ca(self) -> str | None:
        """A file of certificates to trust; ConfigError if there is none such."""
        value = self.settings.options.get("ca")
        if value is not None and not (isinstance(value, str) and Path(value).is_file()):
            raise ConfigError(f"connector {self.name!r}: option ca must be a file of certificates, not {value!r}")
        return value

    @staticmethod
    @abstractmethod
    def spell(base: str, quote: str) -> str:
        """The venue's symbol for a pair, as its habit is."""

    def symbol(self, pair: str) -> str:
        """The venue's spelling of a pair."""
        return self.symbols.symbol(pair)

    def pair(self, symbol: str) -> str | None:
        """The pair of a venue's symbol; None if unknown."""
        return self.symbols.pair(symbol)

    @staticmethod
    def unspell(symbol: str) -> str | None:
        """The pair that a symbol most likely means, as :meth:`spell` would spell it; None if it is no symbol.

        For recorded traffic without the venue's list of instruments.
        """
        return None

    @abstractmethod
    def market_data(self) -> MarketDataProtocol:
        """The public streams' protocol."""

    @abstractmethod
    def user_data(self) -> UserDataProtocol:
        """The private stream's protocol; ConfigError without credentials. Make a new one for each
        connection.
        """

    def books(self, clock: Clock) -> MarketDataClient:
        """A REST client for what books need."""
        return self.public(clock)

    @abstractmethod
    def public(self, clock: Clock) -> PublicClient:
        """A REST client without a key."""

    @abstractmethod
    def exchange(self, clock: Clock) -> ExchangeClient:
        """A REST client for the account; ConfigError without credentials."""
