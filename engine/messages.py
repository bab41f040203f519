"""Every message that passes between actors: the whole vocabulary, in one place.

All are MessagePack maps with a ``type`` key naming the message, so that a program in any language can join. Readers
ignore fields that they do not know; a field is never removed or given a new meaning within one major version
(:data:`PROTOCOL_MAJOR`). Prices, sizes, fees, balances and notionals travel as exact decimal strings (``Decimal``
here). Times named ``*_ns`` are nanoseconds: ``time_ns`` since the Unix epoch, ``mono_ns`` on the monotonic clock of
the sending host, comparable only on that host.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import msgspec

PROTOCOL_MAJOR = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of all messages. The tag is the class name."""


# --------------------------------------------------------------------------------------------------------- terms


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderType(StrEnum):
    LIMIT = "limit"
    LIMIT_MAKER = "limit_maker"
    MARKET = "market"


class OrderState(StrEnum):
    """Where an order stands, as the account's exchange actor knows it."""

    PENDING_CREATE = "pending_create"
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    PENDING_CANCEL = "pending_cancel"
    UNKNOWN = "unknown"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.FAILED})


class OrderEventKind(StrEnum):
    """What happened to an order; each final kind is told once."""

    CREATED = "created"
    FILL = "fill"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a command was refused or an order ended."""

    NONE = ""
    EXPIRED = "command_expired"
    OTHER_INCARNATION = "other_incarnation"
    NOT_READY = "not_ready"
    STOPPING = "stopping"
    HALTED = "halted"
    REDUCING = "reducing_only"
    ORDER_NOTIONAL = "order_notional_limit"
    TOTAL_NOTIONAL = "open_notional_limit"
    POSITION_LIMIT = "position_limit"
    PRICE_COLLAR = "price_collar"
    ORDER_RATE = "order_rate_limit"
    OPEN_ORDERS = "open_orders_limit"
    DUPLICATE_ORDER = "duplicate_order"
    DAILY_LOSS = "daily_loss_limit"
    OVERLOADED = "overloaded"
    DUPLICATE_ID = "duplicate_client_order_id"
    UNKNOWN_ORDER = "unknown_order"
    UNKNOWN_PAIR = "unknown_pair"
    UNSUPPORTED = "unsupported"
    NOT_TRADING = "not_trading"
    INVALID_PRICE = "invalid_price"
    OFF_INCREMENT = "off_increment"
    BELOW_MIN_SIZE = "below_min_size"
    ABOVE_MAX_SIZE = "above_max_size"
    BELOW_MIN_NOTIONAL = "below_min_notional"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    WOULD_CROSS = "would_cross"
    RATE_LIMITED = "rate_limited"
    VENUE_REFUSED = "venue_refused"
    NOT_FOUND = "not_found_at_venue"
    NOT_SENT = "not_sent"
    NO_LEASE = "no_lease"


class NetworkStatus(StrEnum):
    """What an actor knows of its own connection to the outside."""

    NONE = "none"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DOWN = "down"


# ------------------------------------------------------------------------------------------------------ liveness


class Tick(Message, tag=True, frozen=True):
    """From the clock. ``n`` is wall time divided by the interval, so a restarted clock needs no state."""

    n: int
    time_ns: int
    interval_ns: int
    sent_mono_ns: int


class StreamPosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last number of a stream, so that a listener sees a lost tail within a tick."""

    incarnation: int
    number: int


class TickDone(Message, tag=True, frozen=True):
    """An actor's answer to a tick, sent to the supervisor."""

    actor: str
    incarnation: int
    n: int
    lateness_ns: int
    duration_ns: int
    skipped: int = 0
    streams: dict[str, StreamPosition] = {}


class ActorStarted(Message, tag=True, frozen=True):
    """Sent by an actor to the supervisor when it is ready to serve. ``info``: what its dependants need of it.

    ``unix`` and ``tcp`` (as HOST:PORT): where it listens, for its own host and for others.
    """

    actor: str
    incarnation: int
    pid: int
    info: dict[str, Any] = {}
    unix: str = ""
    tcp: str = ""


class ActorStopping(Message, tag=True, frozen=True):
    """Sent by an actor to the supervisor as its last word when it leaves politely."""

    actor: str
    incarnation: int
    error: str = ""


class ActorStats(Message, tag=True, frozen=True):
    """Sent by an actor to the supervisor about twice a second, at its end, and when asked.

    ``counters`` only grow within an incarnation; ``gauges`` hold present values; ``histograms`` are
    :class:`engine.metrics.Histogram` bucket counts. Keys are ``name`` or ``name/label``. ``number`` grows by one each
    time within an incarnation: what was told may arrive after what was answered.
    """

    actor: str
    incarnation: int
    number: int = 0
    network: NetworkStatus = NetworkStatus.NONE
    counters: dict[str, int] = {}
    gauges: dict[str, Any] = {}
    histograms: dict[str, dict[int, int]] = {}


class LogLine(Message, tag=True, frozen=True):
    """A warning or an error of an actor, for the engine's terminal and its list of recent events."""

    actor: str
    level: str
    event: str
    time_ns: int
    fields: dict[str, Any] = {}


class StopActor(Message, tag=True, frozen=True):
    """From the supervisor: finish politely within ``grace_ns``, then exit."""

    grace_ns: int
    reason: str = ""
    keep_orders: bool = False


class AskStats(Message, tag=True, frozen=True):
    """From the supervisor to any actor: how do you stand right now? Answered with :class:`ActorStats`."""


class AskTime(Message, tag=True, frozen=True):
    """From the supervisor to any actor: what is your host's wall clock? Answered with :class:`TimeIs`."""


class TimeIs(Message, tag=True, frozen=True):
    """The answer: this host's wall clock when the question came, and when the answer left."""

    received_ns: int
    answered_ns: int


class ActorChanged(Message, tag=True, frozen=True):
    """On the supervisor's ``actors`` stream: an actor's state, its incarnation and where it listens."""

    actor: str
    kind: str
    connector: str
    state: str
    incarnation: int
    endpoint: str = ""
    detail: str = ""


# --------------------------------------------------------------------------------------------------- market data


class BookUpdated(Message, tag=True, frozen=True):
    """A wake-up on an order-book actor's ``book`` stream; the prices are in shared memory. Merged per pair."""

    connector: str
    pair: str
    update_id: int
    received_mono_ns: int
    state: str = "synced"


class BookChanged(Message, tag=True, frozen=True):
    """On an order-book actor's ``depth`` stream: every change of a book, for those who need them all.

    ``sequence`` counts one by one by pair within the stream's incarnation: a jump is a loss, and :class:`GetBook` mends
    it. Levels are (price, size), best first; a size of zero removes the level. ``whole``: they are the whole book,
    which replaces all that was known. While ``state`` is not ``synced`` there are none.
    """

    connector: str
    pair: str
    sequence: int
    update_id: int
    time_ns: int
    received_mono_ns: int
    state: str = "synced"
    whole: bool = False
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []


class GetBook(Message, tag=True, frozen=True):
    """Query to an order-book actor: the pair's whole book, as of a number of its changes."""

    pair: str


class BookSnapshot(Message, tag=True, frozen=True):
    """The whole book as of ``sequence`` of the pair's :class:`BookChanged`; without levels unless it is ``synced``."""

    connector: str
    pair: str
    sequence: int
    update_id: int
    time_ns: int
    state: str = "synced"
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []


class BookLevels(Message, tag=True, frozen=True):
    """The best levels of a book as they are, best first, on an order-book actor's ``levels`` stream: for mirrors.

    Sent after each change and once a second, merged per pair; without levels unless ``state`` is ``synced``.
    ``mono_ns``: when it was sent, like ``received_mono_ns`` by the sender's monotonic clock. ``bid_cells`` and
    ``ask_cells``: of each level price and size as mantissas, two little-endian ``int64``. Of a book whose sizes do not
    fit, ``bids`` and ``asks`` have them as decimal strings instead.
    """

    connector: str
    pair: str
    update_id: int
    time_ns: int
    received_mono_ns: int
    mono_ns: int
    state: str
    price_exponent: int
    size_exponent: int
    bid_cells: bytes = b""
    ask_cells: bytes = b""
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []


BEATS: Final = ""
"""The key of a stream's :class:`BooksBeat`, for readers that ask for it beside their pairs."""


class BooksBeat(Message, tag=True, frozen=True):
    """A sign of life of all books of a connector, on their streams; ``mono_ns`` is the sender's monotonic clock."""

    mono_ns: int


class Trade(Message, tag=True, frozen=True):
    """A public trade on an order-book actor's ``trade`` stream. ``side`` is the taker's."""

    connector: str
    pair: str
    trade_id: str
    price: Decimal
    size: Decimal
    side: Side
    time_ns: int
    received_mono_ns: int


# -------------------------------------------------------------------------------------------------------- orders


class PlaceOrder(Message, tag=True, frozen=True):
    """Command: place this order. ``client_order_id`` is made by the sender and reaches the venue at most once."""

    client_order_id: str
    strategy: str
    pair: str
    side: Side
    order_type: OrderType
    size: Decimal
    price: Decimal | None = None
    created_mono_ns: int = 0


class CancelOrder(Message, tag=True, frozen=True):
    """Command: cancel this order."""

    client_order_id: str


class CancelAll(Message, tag=True, frozen=True):
    """Command: cancel every open order of the account, or only those of one strategy or pair.

    ``made_by_ns``: only orders whose ids were made by that wall time; 0 for all. A cancel on behalf of an actor that
    died must not meet the orders of its next life, however late it comes. ``within_ns``: how long ends are waited for;
    0 for ten seconds. What has not ended by then is cancelled all the same, and told on the ``orders`` stream.
    """

    strategy: str | None = None
    pair: str | None = None
    made_by_ns: int = 0
    within_ns: int = 0


class OrderFate(Message, tag=True, frozen=True):
    """Query: what became of this client order id."""

    client_order_id: str


class Accepted(Message, tag=True, frozen=True):
    """The exchange actor has the command in its journal; what comes of it arrives on the ``orders`` stream."""

    client_order_id: str
    state: OrderState


class Refused(Message, tag=True, frozen=True):
    """The command was not carried out and never will be."""

    client_order_id: str
    reason: Reason
    detail: str = ""


class CancelAllResult(Message, tag=True, frozen=True):
    """What became of the orders that a :class:`CancelAll` named, by client order id; each is in one of the three.

    ``failed``: those that have not ended, and how they stand. ``ended``: those that ended in another way, and how.
    """

    cancelled: list[str]
    failed: dict[str, str] = {}
    ended: dict[str, str] = {}


class Fill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution. ``fee`` is in ``fee_asset``, positive when paid.

    ``fee_estimated``: the venue did not say; it is reckoned from the account's rates.
    """

    trade_id: str
    price: Decimal
    size: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    time_ns: int
    fee_estimated: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as its account knows it. ``filled`` is the sum of its fills' sizes, ``cost`` of price × size."""

    client_order_id: str
    strategy: str
    pair: str
    side: Side
    order_type: OrderType
    size: Decimal
    price: Decimal | None
    state: OrderState
    filled: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    exchange_order_id: str = ""
    reason: Reason = Reason.NONE
    detail: str = ""
    created_ns: int = 0
    updated_ns: int = 0


class OrderEvent(Message, tag=True, frozen=True):
    """On an exchange actor's ``orders`` stream, numbered per account and replayable from its journal."""

    number: int
    connector: str
    account: str
    kind: OrderEventKind
    order: Order
    fill: Fill | None = None
    time_ns: int = 0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """``available`` is what new orders may use; ``total`` includes what open orders hold."""

    total: Decimal
    available: Decimal


class BalanceEvent(Message, tag=True, frozen=True):
    """On an exchange actor's ``balances`` stream: the assets that changed, with their new values."""

    connector: str
    account: str
    balances: dict[str, Balance]
    time_ns: int


class SetTrading(Message, tag=True, frozen=True):
    """Command from the risk actor: take orders, only reducing ones, or none (``active``, ``reducing``, ``halted``)."""

    state: str
    reason: str = ""


class TradingSet(Message, tag=True, frozen=True):
    """The exchange actor is in this state; after ``halted`` nothing of it is placed any more."""

    state: str


class GetAccount(Message, tag=True, frozen=True):
    """Query: the account as of an event number."""


class AccountSnapshot(Message, tag=True, frozen=True):
    """Open orders and balances as of event ``number`` of stream incarnation ``incarnation``."""

    connector: str
    account: str
    incarnation: int
    number: int
    orders: list[Order]
    balances: dict[str, Balance]
    rules: dict[str, TradingRule] = {}


class GetOrders(Message, tag=True, frozen=True):
    """Query: orders of the account, newest first, since a time (0: all). ``open_only`` leaves out ended ones;
    ``offset`` so many of the newest.
    """

    since_ns: int = 0
    open_only: bool = False
    limit: int = 1000
    offset: int = 0


class Orders(Message, tag=True, frozen=True):
    orders: list[Order]


class GetFills(Message, tag=True, frozen=True):
    """Query: fills of the account, newest first, since a time (0: all). ``offset`` leaves out so many of the newest."""

    since_ns: int = 0
    limit: int = 1000
    offset: int = 0


class OrderFill(msgspec.Struct, frozen=True, kw_only=True):
    """A fill with the order it belongs to, as listed by the commands."""

    client_order_id: str
    strategy: str
    pair: str
    side: Side
    fill: Fill


class Fills(Message, tag=True, frozen=True):
    fills: list[OrderFill]


class TradingRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a venue accepts for a pair. ``None``: the venue sets no such limit.

    ``min_notional``: of price × size in the quote asset; of a market order too if ``market_min_notional``.
    ``min_order_value``: the same for every order, whatever its kind. ``price_digits``, ``size_digits``: how many
    significant digits a price or size may have.
    """

    pair: str
    symbol: str
    base: str
    quote: str
    price_increment: Decimal
    size_increment: Decimal
    min_size: Decimal = Decimal(0)
    max_size: Decimal | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    min_notional: Decimal = Decimal(0)
    market_min_notional: bool = True
    order_types: list[OrderType] = []
    is_trading: bool = True
    min_order_value: Decimal = Decimal(0)
    price_digits: int | None = None
    size_digits: int | None = None


class FixedFee(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that every order costs."""

    asset: str
    amount: Decimal


class FeeSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an account pays for its executions in a pair; rates are fractions (0.001 is 0.1 %), negative for a rebate.

    ``fee_asset``: the asset that rates are paid in where it is neither side of the trade (a venue's own token); empty:
    the quote asset, or for a buy with ``buy_from_returns`` the base asset, taken off what is bought.
    """

    maker: Decimal = Decimal(0)
    taker: Decimal = Decimal(0)
    fee_asset: str = ""
    buy_from_returns: bool = False
    maker_fixed: tuple[FixedFee, ...] = ()
    taker_fixed: tuple[FixedFee, ...] = ()


# --------------------------------------------------------------------------------------------------- user stream


class VenueOrderUpdate(Message, tag=True, frozen=True):
    """What a venue says of one order, by its private stream or by REST.

    ``filled`` is the venue's cumulative size. ``venue_time_ns`` dates a stream event by the venue's clock (0 if it
    does not say). A fill that the venue reports along with the update is in ``fill``.
    """

    client_order_id: str
    exchange_order_id: str
    pair: str
    side: Side
    order_type: OrderType
    size: Decimal
    price: Decimal | None
    state: OrderState
    filled: Decimal
    venue_time_ns: int
    fill: Fill | None = None
    reason: Reason = Reason.NONE
    detail: str = ""


class VenueBalanceUpdate(Message, tag=True, frozen=True):
    """Balances told by a venue, dated by its clock. Assets that are not named are unchanged."""

    balances: dict[str, Balance]
    venue_time_ns: int


class UserStreamState(Message, tag=True, frozen=True):
    """From the user-stream actor: the private subscription came up (``session`` grows each time) or went down."""

    connected: bool
    session: int
    detail: str = ""


# ------------------------------------------------------------------------------------------------------- control


class ControlRequest(Message, tag=True, frozen=True):
    """From a command to the supervisor. ``verb`` is the command's name, ``args`` its arguments."""

    verb: str
    args: dict[str, Any] = {}


class ControlReply(Message, tag=True, frozen=True):
    """``ok`` false: ``error`` says in one line what was wrong and what to do."""

    ok: bool
    error: str = ""
    data: Any = None


AnyMessage = (
    Tick
    | TickDone
    | ActorStarted
    | ActorStopping
    | ActorStats
    | LogLine
    | StopActor
    | AskStats
    | AskTime
    | TimeIs
    | ActorChanged
    | BookUpdated
    | BookLevels
    | BooksBeat
    | BookChanged
    | GetBook
    | BookSnapshot
    | Trade
    | PlaceOrder
    | CancelOrder
    | CancelAll
    | OrderFate
    | Accepted
    | Refused
    | CancelAllResult
    | OrderEvent
    | BalanceEvent
    | SetTrading
    | TradingSet
    | GetAccount
    | AccountSnapshot
    | GetOrders
    | Orders
    | GetFills
    | Fills
    | VenueOrderUpdate
    | VenueBalanceUpdate
    | UserStreamState
    | ControlRequest
    | ControlReply
)
