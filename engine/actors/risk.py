"""The risk actor: the sum over all accounts, and the kill switch over all venues."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.actors.mids import Mids
from engine.actors.takings import Takings
from engine.bus import Caller, SubscriptionState, Up
from engine.errors import BusError, JournalError
from engine.messages import (
    AccountSnapshot,
    ControlReply,
    Fills,
    GetAccount,
    GetFills,
    Message,
    OrderEvent,
    OrderFill,
    SetTrading,
    StreamPosition,
    TradingSet,
)
from engine.orders.halt import Trading, read_trading, write_trading
from engine.orders.risk import TradingState

T = TypeVar("T", bound=Message)
DAY_NS = 86_400_000_000_000
ACKNOWLEDGE_S = 3.0
RETRY_S = 0.2
JUDGE_S = 1.0
PAGE = 5000
"""So many fills are asked for at once: about a megabyte, and some milliseconds of the exchange actor's time."""


class WatchedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One account under watch: its exchange actor, its connector and the pairs that it trades.

    ``at``: by what its books are named here if they are a mirror's.
    """

    exchange: str
    connector: str
    pairs: list[str]
    at: str = ""


class RiskSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The risk actor's params. ``max_loss``: by quote asset, over all accounts, since midnight UTC."""

    accounts: list[WatchedAccount]
    max_loss: dict[str, Decimal] = {}
    stale_after_ns: int = 500_000_000


class RiskActor(Actor):
    """Adds up what all accounts gained today and halts every one of them when the loss limit is reached.

    The trading state is on disk before any exchange actor hears of it, so that it holds over every restart. A request
    :class:`SetTrading` is answered when all exchange actors have acknowledged it, or names those that have not; these
    are told again until they have, and read the state from disk if they start anew. A disk that takes nothing stops no
    halt: it is told all the same, the answer says so, and writing is tried again. It does stop the end of one.
    """

    kind: ClassVar[str] = "risk"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.settings = msgspec.convert(context.params["risk"], RiskSettings)
        self.state_dir = Path(context.spec.state_dir)
        self.trading = read_trading(self.state_dir)
        self.takings = {account.exchange: Takings() for account in self.settings.accounts}
        self.acknowledged: dict[str, TradingState] = {}
        self.mids = Mids(
            Path(context.spec.shm_dir),
            {account.connector: account.pairs for account in self.settings.accounts},
            self.settings.stale_after_ns,
            {account.connector: account.at for account in self.settings.accounts},
        )
        self._last_mids: dict[str, dict[str, Decimal]] = {account.connector: {} for account in self.settings.accounts}
        self._day = context.clock.time_ns() // DAY_NS
        self._seen: dict[str, set[tuple[str, str]]] = {account.exchange: set() for account in self.settings.accounts}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._told = asyncio.Event()
        self._not_saved = ""

    async def start(self) -> dict[str, Any]:
        for account in self.settings.accounts:
            self.context.run(self._follow(account), f"follow {account.exchange}")
        self.context.run(self._keep_judging(), "judge")
        if self.trading.state is not TradingState.ACTIVE:
            self.log.warning("trading is not active", state=self.trading.state.value, reason=self.trading.reason)
        return {}

    def on_message(self, caller: Caller, message: Message) -> Any:
        if isinstance(message, SetTrading):
            return self._set(TradingState(message.state), message.reason)
        return super().on_message(caller, message)

    def collect(self) -> None:
        self.metrics.gauges["trading"] = self.trading.state.value
        self.metrics.gauges["trading_reason"] = self.trading.reason
        self.metrics.gauges["gains_today"] = {quote: f"{gain:.4f}" for quote, gain in self._gains().items()}

    # -------------------------------------------------------------------------------------------- adding up

    async def _follow(self, account: WatchedAccount) -> None:
        """Take today's fills so far, then every later one; a fill is counted once however it comes."""
        exchange = account.exchange
        snapshot = await self._ask(exchange, GetAccount(), AccountSnapshot)
        position = StreamPosition(incarnation=snapshot.incarnation, number=snapshot.number)
        self.bus.subscribe(
            exchange,
            "orders",
            partial(self._on_event, exchange),
            position=position,
            on_state=partial(self._on_state, exchange),
        )
        await self._count_today(exchange)

    async def _count_today(self, exchange: str) -> None:
        """Take the day's fills from the account's journal, some at a time, the newest first. What is filled meanwhile
        moves the rest on: something may come twice, which counts once, and nothing is left out.
        """
        offset = 0
        while True:
            query = GetFills(since_ns=self._day * DAY_NS, limit=PAGE, offset=offset)
            fills = (await self._ask(exchange, query, Fills)).fills
            for fill in fills:
                self._count(exchange, fill)
            if len(fills) < PAGE:
                return
            offset += PAGE

    async def _keep_judging(self) -> None:
        """By a timer: the kill switch works without the clock actor, and while its ticks wait for a wall clock that
        stepped back.
        """
        while True:
            self._begin_day()
            self._judge()
            if self._not_saved:
                self._save(self.trading)
            await asyncio.sleep(JUDGE_S)

    def _begin_day(self) -> None:
        """Begin to count anew when the day is another, whichever way the wall clock went."""
        day = self.clock.time_ns() // DAY_NS
        if day == self._day:
            return
        self._day = day
        for exchange in self.takings:
            self.takings[exchange] = Takings()
            self._seen[exchange].clear()
            self.context.run(self._count_today(exchange), f"today of {exchange}")

    async def _ask(self, exchange: str, query: Message, kind: type[T]) -> T:
        while True:
            try:
                reply = await self.bus.request(exchange, query, timeout=ACKNOWLEDGE_S)
            except BusError:
                await asyncio.sleep(RETRY_S)
                continue
            if isinstance(reply, kind):
                return reply
            await asyncio.sleep(RETRY_S)

    def _on_event(self, exchange: str, message: Message, number: int) -> None:
        if isinstance(message, OrderEvent) and message.fill is not None:
            order = message.order
            self._count(
                exchange,
                OrderFill(
                    client_order_id=order.client_order_id,
                    strategy=order.strategy,
                    pair=order.pair,
                    side=order.side,
                    fill=message.fill,
                ),
            )

    def _count(self, exchange: str, fill: OrderFill) -> None:
        key = (fill.client_order_id, fill.fill.trade_id)
        # A venue's day may begin before this host's.
        if key in self._seen[exchange] or fill.fill.time_ns // DAY_NS < self._day:
            return
        self._seen[exchange].add(key)
        self.takings[exchange].add(fill.strategy, fill.pair, fill.side, fill.fill)

    def _gains(self) -> dict[str, Decimal]:
        """Today's gains by quote asset; a pair without a fresh mid counts with the last one known, or with its newest
        fill's price if none is.
        """
        now_ns = self.clock.monotonic_ns()
        gains: dict[str, Decimal] = {}
        for account in self.settings.accounts:
            for pair in account.pairs:
                mid = self.mids.mid(account.connector, pair, now_ns)
                if mid is not None:
                    self._last_mids[account.connector][pair] = mid
            takings = self.takings[account.exchange]
            marks = {**takings.prices(), **self._last_mids[account.connector]}
            for quote, gain in takings.gains(marks).items():
                gains[quote] = gains.get(quote, Decimal(0)) + gain
        return gains

    def _judge(self) -> None:
        if self.trading.state is TradingState.HALTED or not self.settings.max_loss:
            return
        gains = self._gains()
        for quote, limit in self.settings.max_loss.items():
            loss = -gains.get(quote, Decimal(0))
            if loss >= limit:
                reason = f"today's loss over all accounts is {loss:.2f} {quote}; the limit is {limit:f}"
                self.log.error("loss limit reached: halting", reason=reason)
                self.context.run(self._halt(reason), "halt")
                return

    async def _halt(self, reason: str) -> None:
        await self._set(TradingState.HALTED, reason)

    # ------------------------------------------------------------------------------------------- the kill switch

    async def _set(self, state: TradingState, reason: str) -> ControlReply:
        """On disk first, then to every exchange actor; answers once all have it, or time is up."""
        trading = Trading(state=state, reason=reason, since_ns=self.clock.time_ns())
        if not self._save(trading) and state is TradingState.ACTIVE:
            raise JournalError(self._not_saved)
        self.trading = trading
        self.acknowledged.clear()
        self.log.warning("trading state", state=state.value, reason=reason)
        for account in self.settings.accounts:
            self._tell(account.exchange)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                while self._missing():
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            self.log.error("not every account acknowledged", state=state.value, missing=self._missing())
        return ControlReply(
            ok=True,
            data={
                "state": state.value,
                "acknowledged": sorted(self.acknowledged),
                "missing": self._missing(),
                "not_saved": self._not_saved,
            },
        )

    def _save(self, trading: Trading) -> bool:
        known, self._not_saved = self._not_saved, ""
        try:
            write_trading(self.state_dir, trading)
        except JournalError as error:
            self._not_saved = str(error)
            if not known:
                self.log.error("the trading state could not be saved", error=str(error), state=trading.state.value)
        return not self._not_saved

    def _missing(self) -> list[str]:
        wanted = self.trading.state
        names = [account.exchange for account in self.settings.accounts]
        return [name for name in names if self.acknowledged.get(name) is not wanted]

    def _tell(self, exchange: str) -> None:
        task = self._telling.get(exchange)
        if task is None or task.done():
            self._telling[exchange] = self.context.run(self._tell_until_acknowledged(exchange), f"tell {exchange}")

    async def _tell_until_acknowledged(self, exchange: str) -> None:
        while self.acknowledged.get(exchange) is not self.trading.state:
            trading = self.trading
            try:
                reply = await self.bus.request(
                    exchange, SetTrading(state=trading.state.value, reason=trading.reason), timeout=ACKNOWLEDGE_S
                )
            except BusError:
                await asyncio.sleep(RETRY_S)
                continue
            if isinstance(reply, TradingSet):
                self.acknowledged[exchange] = TradingState(reply.state)
                self._told.set()

    def _on_state(self, exchange: str, state: SubscriptionState) -> None:
        if isinstance(state, Up):
            self.acknowledged.pop(exchange, None)
            self._tell(exchange)
            if state.missed is not None:
                self.context.fail(BusError(f"events of {exchange} were lost ({state.missed}): starting over"))
