"""The strategy actor: one strategy in its own process, at its desk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.account_link import AccountLink
from engine.actors.base import Actor, ActorContext
from engine.book import BookReader, Execution, ReadStatus, TopView, Volume
from engine.book.paths import book_path
from engine.errors import ConfigError, StrategyError
from engine.logs import register_secret
from engine.messages import (
    BEATS,
    Balance,
    BookUpdated,
    Message,
    Order,
    OrderEvent,
    OrderType,
    PlaceOrder,
    Side,
    StopActor,
    StreamPosition,
    Tick,
    Trade,
    TradingRule,
)
from engine.orders.ids import ClientOrderIds
from engine.orders.rules import quantise
from engine.orders.store import StoreLost
from engine.orders.strategy_postgres import AGAIN_S, SharedStrategyStore
from engine.orders.strategy_store import Checkpoint, StrategyStore
from engine.strategies.base import BookView, Strategy
from engine.strategies.loading import load_strategy

NOTHING = Balance(total=Decimal(0), available=Decimal(0))


class MarketLink(msgspec.Struct, frozen=True, kw_only=True):
    """Where a strategy finds one connector: its order-book and exchange actors.

    On another host than the connector's, ``order_book`` is the mirror there and ``at`` the place that it mirrors for.
    """

    order_book: str
    exchange: str = ""
    at: str = ""


class SharedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a strategy that may run on several hosts has its checkpoint: a PostgreSQL ``address``, and its schema."""

    address: str
    schema: str

    def __repr__(self) -> str:
        return f"SharedCheckpoint(schema={self.schema!r})"


class StrategySettings(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy actor's params. ``pairs`` are ``connector/BASE-QUOTE``; ``markets`` is keyed by connector.

    ``checkpoint``: where it is if not in a file of this host.
    """

    name: str
    strategy: str
    pairs: list[str]
    markets: dict[str, MarketLink]
    id_prefix: str
    params: dict[str, Any] = {}
    stale_after_ns: int = 500_000_000
    checkpoint: SharedCheckpoint | None = None


class StrategyActor(Actor):
    """Runs one strategy: reads its books from shared memory, delivers events, sends its orders.

    The strategy's checkpoint, and the account events after it, are delivered before ``on_start``; an exception in any
    handler ends this actor alone, and the supervisor starts it again from the checkpoint.
    """

    kind: ClassVar[str] = "strategy"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.settings = msgspec.convert(context.params["strategy"], StrategySettings)
        self.store = self._open_store()
        self.ids = ClientOrderIds(self.settings.id_prefix, self.settings.name, context.incarnation, context.clock)
        self.strategy = load_strategy(self.settings.strategy)(
            self,
            name=self.settings.name,
            pairs=list(self.settings.pairs),
            params=self.settings.params,
            log=context.log,
        )
        self.accounts: dict[str, AccountLink] = {}
        self.readers: dict[str, BookReader] = {}
        self._positions: dict[str, StreamPosition] = {}
        self._dirty: dict[str, int] = {}
        self._turns = deque(self.settings.pairs)
        self._running = False

    async def start(self) -> dict[str, Any]:
        checkpoint = await self._load()
        positions = self._positions = {} if checkpoint is None else checkpoint.positions
        if checkpoint is not None:
            self.strategy.state = dict(checkpoint.state)
            self.log.info("starting from the checkpoint", positions={k: v.number for k, v in positions.items()})
        _call(self.strategy.on_load)
        for connector, market in self.settings.markets.items():
            pairs = [pair for pair in self.settings.pairs if pair.startswith(f"{connector}/")]
            self._open_books(connector, pairs, market.at)
            if market.exchange:
                link = AccountLink(
                    self.context,
                    connector,
                    market.exchange,
                    self.settings.name,
                    positions.get(market.exchange),
                    self._on_order,
                    self._on_caught_up,
                )
                self.accounts[connector] = link
                link.start()
            keys = {pair.partition("/")[2] for pair in pairs}
            # What a strategy does not listen to is not sent to it: every message costs its reader a wake-up.
            if _overrides(self.strategy, "on_book"):
                self.bus.subscribe(market.order_book, "book", self._on_book, keys={*keys, BEATS})
            if _overrides(self.strategy, "on_trade"):
                self.bus.subscribe(market.order_book, "trade", self._on_trade, keys=keys)
        self._on_caught_up()
        return {}

    def on_tick(self, tick: Tick) -> None:
        if self._running:
            _call(self.strategy.on_tick, tick)

    async def stop(self, order: StopActor) -> None:
        if self._running:
            self._running = False
            _call(self.strategy.on_stop)
        if isinstance(self.store, StrategyStore):
            self.store.close()
        elif not await self.store.close():
            self.log.error("the last checkpoint did not reach its database")

    def abandon(self) -> None:
        if isinstance(self.store, StrategyStore):
            self.store.close()

    def collect(self) -> None:
        self.metrics.gauges["orders_open"] = sum(len(link.orders) for link in self.accounts.values())

    # ------------------------------------------------------------------------------------- what reaches the strategy

    def _on_caught_up(self) -> None:
        if self._running or not all(link.caught_up for link in self.accounts.values()):
            return
        self._running = True
        self.log.info("caught up: the strategy starts")
        self._guard(self.strategy.on_start)

    def _on_order(self, event: OrderEvent) -> None:
        self.metrics.count("events")
        self._guard(self.strategy.on_order, event)

    def _on_trade(self, message: Message, number: int) -> None:
        if isinstance(message, Trade) and self._running:
            self._guard(self.strategy.on_trade, message)

    def _on_book(self, message: Message, number: int) -> None:
        if not isinstance(message, BookUpdated) or not self._running:
            self._rehearse()
            return
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush_books)
        self._dirty[f"{message.connector}/{message.pair}"] = message.received_mono_ns

    def _flush_books(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for pair, received_mono_ns in dirty.items():
            self.metrics.histogram("frame_to_strategy_ns").record(self.clock.monotonic_ns() - received_mono_ns)
            self._guard(self.strategy.on_book, pair)

    def _rehearse(self) -> None:
        """Nothing has changed for a while: a book is read, by turns, so that the next reading finds it warm."""
        self.book(self._turns[0])
        self._turns.rotate(-1)

    def _guard(self, handler: Callable[..., None], *arguments: Any) -> None:
        if self.context.failed.done():
            return
        try:
            _call(handler, *arguments)
        except Exception as error:
            self.context.fail(error)

    # ---------------------------------------------------------------------------------------------------- the desk

    @property
    def now_ns(self) -> int:
        return self.clock.time_ns()

    def place(self, pair: str, side: Side, size: Decimal, price: Decimal | None, order_type: OrderType) -> str:
        link, name = self._account(pair)
        rule = link.rules.get(name)
        if rule is not None:
            size, price = quantise(rule, order_type, size, price)
        client_order_id = self.ids.next()
        link.place(
            PlaceOrder(
                client_order_id=client_order_id,
                strategy=self.settings.name,
                pair=name,
                side=side,
                order_type=order_type,
                size=size,
                price=price,
                created_mono_ns=self.clock.monotonic_ns(),
            )
        )
        self.metrics.count("orders_sent")
        return client_order_id

    def cancel(self, client_order_id: str) -> None:
        for link in self.accounts.values():
            if client_order_id in link.orders:
                link.cancel(client_order_id)
                return

    def book(self, pair: str) -> BookView:
        reader = self._reader(pair)
        best = reader.read_best(self.clock.monotonic_ns())
        return BookView(
            pair=pair,
            status=best.status.name.lower(),
            bid=best.bid,
            bid_size=best.bid_size,
            ask=best.ask,
            ask_size=best.ask_size,
            update_id=best.update_id,
            age_ns=best.age_ns,
        )

    def depth(self, pair: str, levels: int) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        depth = self._reader(pair).depth(levels, self.clock.monotonic_ns())
        if depth.status is not ReadStatus.FRESH:
            return [], []
        return list(depth.bids), list(depth.asks)

    def top(self, pair: str, levels: int | None) -> TopView:
        return self._reader(pair).top(levels, self.clock.monotonic_ns())

    def fill(self, pair: str, side: Side, size: Decimal) -> Execution:
        return self._reader(pair).fill(side, size, self.clock.monotonic_ns())

    def fill_quote(self, pair: str, side: Side, quote: Decimal) -> Execution:
        return self._reader(pair).fill_quote(side, quote, self.clock.monotonic_ns())

    def volume(self, pair: str, side: Side, price: Decimal) -> Volume:
        return self._reader(pair).volume(side, price, self.clock.monotonic_ns())

    def balance(self, pair: str, asset: str) -> Balance:
        return self._account(pair)[0].balance(asset)

    def open_orders(self, pair: str | None) -> list[Order]:
        if pair is None:
            return [order for link in self.accounts.values() for order in link.orders.values()]
        link, name = self._account(pair)
        return [order for order in link.orders.values() if order.pair == name]

    def rule(self, pair: str) -> TradingRule | None:
        link, name = self._account(pair)
        return link.rules.get(name)

    def ready(self, pair: str) -> bool:
        link, _ = self._account(pair)
        return link.reachable and link.caught_up

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        known = {link.exchange: link.position for link in self.accounts.values() if link.position is not None}
        self.store.save(state, self._positions | known, saved_ns=self.clock.time_ns())
        self.metrics.count("checkpoints")

    # ------------------------------------------------------------------------------------------------------- inside

    def _open_store(self) -> StrategyStore | SharedStrategyStore:
        shared = self.settings.checkpoint
        if shared is None:
            return StrategyStore(Path(self.context.spec.state_dir) / "strategies" / f"{self.settings.name}.db")
        register_secret(shared.address)
        return SharedStrategyStore(shared.address, shared.schema, self.context.incarnation)

    async def _load(self) -> Checkpoint | None:
        """The newest checkpoint; where that is in a database out of reach, it is waited for."""
        if isinstance(self.store, StrategyStore):
            return self.store.load()
        told = False
        while True:
            try:
                found = await self.store.begin()
            except StoreLost as error:
                if not told:
                    self.log.error("the checkpoint's database is out of reach: it is waited for", error=str(error))
                told = True
                await asyncio.sleep(AGAIN_S)
            else:
                self.context.run(self.store.keep(), "checkpoint")
                return found

    def _open_books(self, connector: str, pairs: list[str], at: str) -> None:
        for pair in pairs:
            path = book_path(Path(self.context.spec.shm_dir), connector, pair.partition("/")[2], at)
            self.readers[pair] = BookReader(str(path), stale_after_ns=self.settings.stale_after_ns)

    def _reader(self, pair: str) -> BookReader:
        try:
            return self.readers[pair]
        except KeyError:
            raise ConfigError(f"{pair} is not among this strategy's pairs: {', '.join(self.readers)}") from None

    def _account(self, pair: str) -> tuple[AccountLink, str]:
        connector, _, name = pair.partition("/")
        link = self.accounts.get(connector)
        if link is None or pair not in self.readers:
            raise ConfigError(f"{pair} is not among this strategy's trading pairs: {', '.join(self.readers)}")
        return link, name


def _call(handler: Callable[..., None], *arguments: Any) -> None:
    """Call a handler. What would end more than the strategy, as ``sys.exit()`` does, becomes an error of its own."""
    try:
        handler(*arguments)
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        raise StrategyError(f"{handler.__name__} raised {error!r}") from error


def _overrides(strategy: Strategy, handler: str) -> bool:
    """Whether the strategy has a handler of its own."""
    return getattr(type(strategy), handler) is not getattr(Strategy, handler)
