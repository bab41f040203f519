"""How an account is left: its open orders cancelled and seen to end, its fills compared with the venue's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from engine.actors.desk import Desk
from engine.actors.reconciler import Reconciler
from engine.errors import VenueError
from engine.messages import CancelAll, CancelAllResult, OrderFill, OrderState
from engine.orders.audit import audit
from engine.orders.journal_past import JournalPast
from engine.runtime.offload import offload

T = TypeVar("T")

CANCEL_ALL_TIMEOUT_S = 10.0
AUDIT_TIMEOUT_S = 4.0


class Departure:
    """Cancels many orders and waits for their ends."""

    def __init__(self, desk: Desk, reconciler: Reconciler) -> None:
        self._desk = desk
        self._core = desk.core
        self._reconciler = reconciler
        self._clock = desk.context.clock
        self._log = desk.context.log
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something happened to orders: who waits for an end looks again."""
        self._changed.set()

    async def cancel_all(self, command: CancelAll) -> CancelAllResult:
        """Cancel what the command names; how each of it ended in time, and how the rest stands."""
        ids, effects = self._core.cancel_all(command, self._desk.now())
        self._desk.do(effects)
        await self._until_ended(ids, command.within_ns / 1e9 or CANCEL_ALL_TIMEOUT_S)
        states = {id_: order.state for id_ in ids if (order := self._core.order(id_)) is not None}
        return CancelAllResult(
            cancelled=[id_ for id_, state in states.items() if state is OrderState.CANCELLED],
            failed={id_: state.value for id_, state in states.items() if not state.is_final},
            ended={
                id_: state.value
                for id_, state in states.items()
                if state.is_final and state is not OrderState.CANCELLED
            },
        )

    async def leave(self, within_s: float, keep: bool) -> None:
        """Cancel what is open, unless it is to be kept. An account that has not reached its venue yet goes on trying,
        for as long as it may if there are orders to cancel.
        """
        deadline = self._clock.monotonic_ns() + round(within_s * 1e9)
        cancel = not keep and bool(self._core.open_orders())
        if not self._reconciler.up:
            self._log.info("stopping before the venue was reached", open_orders=len(self._core.open_orders()))
            try:
                async with asyncio.timeout(within_s if cancel else min(within_s, AUDIT_TIMEOUT_S / 2)):
                    await self._reconciler.until_up()
            except TimeoutError:
                level = self._log.error if cancel else self._log.warning
                level("the venue was not reached", left_open=[o.client_order_id for o in self._core.open_orders()])
                return
        if not keep:
            await self._cancel_everything(deadline)

    async def audit(self, run_id: str) -> None:
        """Ask the venue for the trades of this run's orders, compare them with the journal, and learn what is left."""
        desk = self._desk
        since_ns = int(run_id) + desk.client.time.lead_ns - 60_000_000_000
        try:
            async with asyncio.timeout(AUDIT_TIMEOUT_S):
                if self._core.open_orders():
                    await self._reconciler.make_pass()
                orders = await offload(_read, desk.journal.past(), JournalPast.run_orders, run_id)
                pairs = sorted({order.pair for order in orders})
                found = [fill for pair in pairs for fill in (await desk.client.fills(pair, since_ns=since_ns)).value]
                await self._reconciler.ask_balances()
                journaled = await offload(_read, desk.journal.past(), JournalPast.run_fills, run_id)
        except (VenueError, TimeoutError) as error:
            self._log.warning("the venue could not be asked for this run's trades", error=str(error))
            return
        ours = {(order.pair, order.exchange_order_id): order for order in orders if order.exchange_order_id}
        told = [
            OrderFill(
                client_order_id=order.client_order_id,
                strategy=order.strategy,
                pair=fill.pair,
                side=fill.side,
                fill=fill.fill,
            )
            for fill in found
            if (order := ours.get((fill.pair, fill.exchange_order_id))) is not None and fill.fill.size > 0
        ]
        missed, duplicated = audit(journaled, told)
        gauges = desk.context.metrics.gauges
        gauges["fills_missed"] = len(missed)
        gauges["fills_duplicated"] = len(duplicated)
        if missed or duplicated:
            self._log.error(
                "the journal and the venue disagree on fills",
                missed=[fill.fill.trade_id for fill in missed],
                duplicated=[fill.fill.trade_id for fill in duplicated],
            )

    async def _cancel_everything(self, deadline: int) -> None:
        while self._core.open_orders() and self._clock.monotonic_ns() < deadline:
            ids, effects = self._core.cancel_all(CancelAll(), self._desk.now())
            self._desk.do(effects)
            await self._until_ended(ids, min(1.0, (deadline - self._clock.monotonic_ns()) / 1e9))
        left = [order.client_order_id for order in self._core.open_orders()]
        if left:
            self._log.error("orders may still be open at the venue", orders=left)

    async def _until_ended(self, ids: list[str], timeout_s: float) -> None:
        wanted = set(ids)
        try:
            async with asyncio.timeout(timeout_s):
                while wanted & {order.client_order_id for order in self._core.open_orders()}:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return


def _read(past: JournalPast, question: Callable[[JournalPast, str], T], run_id: str) -> T:
    """For a thread: a long run has many orders."""
    with past:
        return question(past, run_id)
