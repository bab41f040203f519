"""Memory over a million orders placed, acknowledged, cancelled and ended in one account: flat, if nothing is leaked.

In this process, on virtual time at a thousand orders a second: the account's real core, journal, numbers and stream
(with a reader), the journal's log moved and its old rows rotated into the archive as the exchange actor does it. Of
each hundred orders one is refused by the venue, one is never answered and found to be unknown there, and one fills.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from benchmarks.common import Line, Options, line, say
from engine.actors.account_numbers import AccountNumbers
from engine.actors.takings import Takings
from engine.bus import Overload
from engine.bus.memory import MemoryBus, MemoryNetwork
from engine.clock import VirtualClock
from engine.messages import (
    CancelOrder,
    FeeSchema,
    Fill,
    OrderState,
    OrderType,
    PlaceOrder,
    Reason,
    Side,
    TradingRule,
    VenueOrderUpdate,
)
from engine.orders.account import Account, Decision, Failure
from engine.orders.effects import Effect, JournalWrite, Publish
from engine.orders.ids import ClientOrderIds
from engine.orders.journal import Journal
from engine.orders.rotation import Rotation

ORDERS = 1_000_000
SAMPLES = 20
EVERY_NS = 1_000_000
OPEN = 32
KEEP_NS = 20_000_000_000
ROTATE_EVERY = 20_000
PAIR = "BTC-USDT"
RULE = TradingRule(
    pair=PAIR,
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    price_increment=Decimal("0.01"),
    size_increment=Decimal("0.00001"),
    min_size=Decimal("0.00001"),
    min_notional=Decimal(5),
)
SIZE, PRICE = Decimal("0.001"), Decimal("54000.00")


def run(options: Options) -> Iterator[Line]:
    orders = ORDERS // 50 if options.quick else ORDERS
    found = asyncio.run(_measure(orders))
    settled = found[len(found) // 10 :]
    first, last = settled[0], settled[-1]
    per_order = (last[1] - first[1]) / (last[0] - first[0])
    yield line(
        "order_memory",
        per_order,
        "bytes/order",
        case="growth of resident memory",
        orders=orders,
        resident_mb={str(count): round(resident / 1e6, 1) for count, resident, _ in found},
        journal_mb=round(last[2] / 1e6, 1),
    )


async def _measure(orders: int) -> list[tuple[int, int, int]]:
    """(orders so far, resident bytes, bytes of the journal's file)."""
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        desk = Desk(Path(folder) / "a.db")
        await desk.open()
        for number in range(1, orders + 1):
            desk.order(number)
            if number % OPEN == 0:
                await asyncio.sleep(0)
            if number % ROTATE_EVERY == 0:
                desk.rotate()
            if number % (orders // SAMPLES) == 0:
                gc.collect()
                found.append((number, _resident(), desk.journal.path.stat().st_size))
                say(f"order_memory: {number} orders, {found[-1][1] / 1e6:.1f} MB, {desk.core.gauges()}")
        await desk.close()
    return found


class Desk:
    """An account, and a venue's answers to it. ``keep_ns``: how long the journal keeps what has ended."""

    def __init__(self, path: Path, journal: type[Journal] = Journal, keep_ns: int = KEEP_NS) -> None:
        self.clock = VirtualClock(1_700_000_000_000_000_000)
        self.journal = journal(path, "binance", "main", self.clock, run_id="1")
        recovered = self.journal.recover()
        self.core = Account("binance", "main", {PAIR: RULE}, "e-", 5_000_000_000, recovered, self.journal)
        self.core.set_fees({PAIR: FeeSchema()})
        self.numbers = AccountNumbers("binance", self.core, self.journal, "1", recovered)
        self.numbers.learn({}, Takings())
        self.keep_ns = keep_ns
        self.read = 0
        self._ids = ClientOrderIds("e-", "maker", 1, self.clock)
        self._open: deque[VenueOrderUpdate] = deque()
        self._network = MemoryNetwork()
        self._buses = [MemoryBus(self._network, name, 1, self.clock) for name in ("exchange", "strategy")]

    async def open(self) -> None:
        """Begin the stream, and read it."""
        publisher, reader = self._buses
        await publisher.start()
        await reader.start()
        self._stream = publisher.open_stream("orders", overload=Overload.CLOSE, history=self.journal, incarnation=1)
        read = asyncio.Event()
        reader.subscribe("exchange", "orders", self._heard, on_state=lambda state: read.set())
        await read.wait()

    async def close(self) -> None:
        for bus in reversed(self._buses):
            await bus.close()
        self.journal.close()

    def order(self, number: int) -> None:
        """One order's life, but for its end, which comes ``OPEN`` orders later; and that of the one so long ago."""
        self.clock.advance(EVERY_NS)
        id_, now = self._ids.next(), self.clock.time_ns()
        self._answer(self.core.place(_command(id_), now, check_balance=True))
        self._do(self.core.sent(id_, now, now))
        if number % 100 == 1:
            self._do(self.core.place_failed(id_, Failure.REFUSED, Reason.VENUE_REFUSED, "no", now))
        elif number % 100 == 2:
            self._do(self.core.place_failed(id_, Failure.UNKNOWN, Reason.NONE, "no answer", now))
            asked = now + 20_000_000_000
            self._do(self.core.order_not_found(id_, asked, asked))
        else:
            update = self._update(id_, number)
            self._do(self.core.placed(update, (), now, now))
            self._do(self.core.venue_update(update, now, now))
            self._open.append(update)
        if len(self._open) > OPEN:
            self._end(self._open.popleft())
        if self.journal.wants_checkpoint:
            self.journal.checkpoint()

    def rotate(self) -> None:
        """Move what is old into the archive, as the exchange actor does it."""
        rotation = Rotation(self.journal, self.keep_ns)
        while rotation.copy(self.clock.time_ns(), self.journal.last()):
            for _ in rotation.deletions():
                pass

    def _end(self, update: VenueOrderUpdate) -> None:
        now, id_ = self.clock.time_ns(), update.client_order_id
        if int(update.exchange_order_id) % 100 == 3:
            fill = Fill(
                trade_id=update.exchange_order_id,
                price=PRICE,
                size=SIZE,
                fee=Decimal("0.01"),
                fee_asset="USDT",
                is_maker=True,
                time_ns=now,
            )
            self._do(self.core.venue_fill(PAIR, fill, now, id_))
            return
        self._answer(self.core.cancel(CancelOrder(client_order_id=id_), now))
        ended = self._update(id_, int(update.exchange_order_id), OrderState.CANCELLED)
        self._do(self.core.cancel_result(id_, ended, now, now))
        self._do(self.core.venue_update(ended, now, now))

    def _update(self, id_: str, number: int, state: OrderState = OrderState.OPEN) -> VenueOrderUpdate:
        return VenueOrderUpdate(
            client_order_id=id_,
            exchange_order_id=str(number),
            pair=PAIR,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            size=SIZE,
            price=PRICE,
            state=state,
            filled=Decimal(0),
            venue_time_ns=self.clock.time_ns(),
        )

    def _answer(self, decision: Decision) -> None:
        self._do(decision.effects)

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, JournalWrite):
                self.journal.record(effect.writes)
                self.numbers.wrote(effect.writes)
            elif isinstance(effect, Publish):
                self._stream.publish(effect.event, number=effect.event.number)
                self.numbers.add(effect.event)
        self.core.next_due()

    def _heard(self, message: object, number: int) -> None:
        self.read = number


def _command(id_: str) -> PlaceOrder:
    return PlaceOrder(
        client_order_id=id_,
        strategy="maker",
        pair=PAIR,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=SIZE,
        price=PRICE,
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
