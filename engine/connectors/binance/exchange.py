"""Binance's interface for one account: orders by the WebSocket API or by REST, fills and balances by REST.

Source: "Trading endpoints" and "Account endpoints" of the Spot API documentation (2026), "Trading requests" of the
WebSocket API's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from engine.connectors.base import (
    Clock,
    Dated,
    ExchangeClient,
    OnSent,
    PlaceResult,
    VenueFill,
)
from engine.connectors.binance import commission, constants, reports
from engine.connectors.binance.auth import signed_query
from engine.connectors.binance.order_entry import NotOpenError, OrderEntry, Write
from engine.connectors.binance.order_requests import (
    ORDER_TYPES,
    OrderRequests,
    check_client_order_id,
    named,
    price_text,
)
from engine.connectors.binance.public import BinancePublic, decoded
from engine.connectors.decoding import UNREADABLE
from engine.connectors.errors import (
    ClockError,
    MalformedReply,
    OrderNotFound,
    TransportError,
    VenueRefused,
)
from engine.connectors.rest import RestReply
from engine.connectors.settings import Credentials
from engine.connectors.symbols import SymbolMap
from engine.connectors.throttler import Priority
from engine.errors import VenueError
from engine.messages import FeeSchema, Order, OrderType, Reason, Side, VenueBalanceUpdate, VenueOrderUpdate

log = structlog.get_logger()

T = TypeVar("T")
Params = list[tuple[str, str]]

_DAY_MS = 86_400_000
_PAGE = 1000
_MOST_WINDOWS = 30
_MOST_SINGLE_QUERIES = 13
"""Open orders of one pair weigh 6, those of all pairs 80."""
_URGENT_WAIT_S = 5.0
_PLACE_COSTS = {constants.WEIGHT: 1, constants.ORDERS_10S: 1, constants.ORDERS_1D: 1}
_CANCEL_COSTS = {constants.WEIGHT: 1}
_PLACE_COSTS_NOW = tuple(_PLACE_COSTS.items())
_CANCEL_COSTS_NOW = tuple(_CANCEL_COSTS.items())
_FREE = (constants.WEIGHT,)
"""What successful placing and cancelling has not cost since 2026-04-02; a failure still does."""

_decode_order = msgspec.json.Decoder(reports.OrderReport)
_decode_commission = msgspec.json.Decoder(commission.Commission)
_decode_orders = msgspec.json.Decoder(list[reports.OrderReport])
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_decode_list = msgspec.json.Decoder(reports.OrderListReport)
_decode_trades = msgspec.json.Decoder(list[reports.TradeReport])
_decode_account = msgspec.json.Decoder(reports.AccountReport)


class BinanceExchange(BinancePublic, ExchangeClient):
    """Requests of one account, each signed with the venue's time.

    Orders are placed and cancelled on the connection of :attr:`order_entry` whenever that is open, otherwise by
    REST; a request takes one of the two ways, never both. A request that the venue refuses for its timestamp was
    not carried out: reading and cancelling are then done once more with a new offset; placing is left to the
    caller, who has been told.

    ``ws_api``: where the WebSocket API is; "" for orders by REST alone.
    """

    def __init__(
        self,
        rest: str,
        symbols: SymbolMap,
        clock: Clock,
        credentials: Credentials,
        *,
        ws_api: str = "",
        recv_window_ms: int = constants.RECV_WINDOW_MS,
        timeout_s: float = 5.0,
        ca: str | None = None,
        shared_limits: str | None = None,
    ) -> None:
        super().__init__(
            rest,
            symbols,
            clock,
            timeout_s=timeout_s,
            ca=ca,
            headers={"X-MBX-APIKEY": credentials.api_key},
            shared_limits=shared_limits,
            account=credentials.api_key,
        )
        self._secret = credentials.api_secret
        self._recv_window_ms = recv_window_ms
        self._unlisted: set[str] = set()
        self._requests = OrderRequests(symbols, credentials, recv_window_ms)
        self.order_entry: OrderEntry | None = None
        if ws_api:
            self.order_entry = OrderEntry(
                ws_api,
                clock=clock,
                throttler=self.throttler,
                venue_now_ms=self.time.now_ms,
                timeout_s=timeout_s,
                ca=ca,
            )

    async def start(self) -> None:
        await super().start()
        if self.order_entry is not None:
            await self.order_entry.start()

    async def close(self) -> None:
        if self.order_entry is not None:
            await self.order_entry.close()
        await super().close()

    @property
    def acceptance_horizon_ns(self) -> int:
        span_ms = self._recv_window_ms + constants.TIMESTAMP_LEAD_MS
        return span_ms * reports.MS + self.time.error_ns

    # -------------------------------------------------------------------------------------------- orders

    async def place(self, order: Order, on_sent: OnSent, send_by_mono_ns: int | None = None) -> PlaceResult:
        if not self.time.is_synced:
            try:
                await self.time.ensure()
            except VenueError as error:
                raise TransportError(f"the venue's time is not known: {error}", sent=False) from error
        try:
            reply = await self._place(order, on_sent, send_by_mono_ns)
        except ClockError as refused:
            await self._resync(refused)
            raise
        return self._placed(order, reply)

    def place_now(self, order: Order, on_sent: OnSent, done: Callable[[PlaceResult | VenueError], None]) -> bool:
        if self.order_entry is None or not self.time.is_synced:
            return False

        def write(number: int) -> str:
            return self._requests.place(order, number, self.time.now_ms())

        def answered(outcome: RestReply | VenueError) -> None:
            if isinstance(outcome, ClockError):
                self.time.distrust()
            done(_read(outcome, partial(self._placed, order)))

        try:
            return self.order_entry.begin(
                write, _PLACE_COSTS_NOW, Priority.PLACE, answered, on_sent=on_sent, free=_FREE
            )
        except VenueError as error:
            asyncio.get_running_loop().call_soon(done, error)
            return True

    async def cancel(self, order: Order) -> Dated[VenueOrderUpdate]:
        return self._cancelled(order, await self._with_clock(lambda: self._cancel(order)))

    def cancel_now(self, order: Order, done: Callable[[Dated[VenueOrderUpdate] | VenueError], None]) -> bool:
        if self.order_entry is None or not self.time.is_synced:
            return False

        def write(number: int) -> str:
            return self._requests.cancel(order, number, self.time.now_ms())

        def answered(outcome: RestReply | VenueError) -> None:
            done(_read(outcome, partial(self._cancelled, order)))

        try:
            return self.order_entry.begin(write, _CANCEL_COSTS_NOW, Priority.CANCEL, answered, free=_FREE)
        except VenueError as error:
            asyncio.get_running_loop().call_soon(done, error)
            return True

    async def cancel_pair(self, pair: str) -> Dated[list[VenueOrderUpdate]]:
        start = self._start()
        try:
            reply = await self._with_clock(
                lambda: self._delete(constants.PATH_OPEN_ORDERS, [("symbol", self._symbols.symbol(pair))])
            )
        except OrderNotFound:
            return start.date([])
        updates: list[VenueOrderUpdate] = []
        for entry in decoded(_decode_raw_list, reply):
            updates += [reports.order_update(report, self._symbols) for report in _cancelled(entry)]
        return self._dated(reply, updates)

    async def query(self, order: Order) -> Dated[VenueOrderUpdate]:
        params = [("symbol", self._symbols.symbol(order.pair)), named(order)]
        reply = await self._get(constants.PATH_ORDER, params, weight=4, priority=Priority.QUERY)
        report = decoded(_decode_order, reply)
        return self._dated(reply, reports.order_update(report, self._symbols, client_order_id=order.client_order_id))

    async def open_orders(self, pairs: Iterable[str] | None = None) -> Dated[list[VenueOrderUpdate]]:
        wanted = None if pairs is None else list(dict.fromkeys(pairs))
        if wanted is not None and len(wanted) <= _MOST_SINGLE_QUERIES:
            return await self._open_orders_of(wanted)
        reply = await self._get(constants.PATH_OPEN_ORDERS, [], weight=80)
        reports_of: list[reports.OrderReport] = decoded(_decode_orders, reply)
        found = self._readable(reports_of)
        return self._dated(reply, [update for update in found if wanted is None or update.pair in wanted])

    async def fills(
        self,
        pair: str,
        since_ns: int = 0,
        from_trade_id: str | None = None,
        exchange_order_id: str | None = None,
    ) -> Dated[list[VenueFill]]:
        start = self._start()
        symbol: Params = [("symbol", self._symbols.symbol(pair))]
        if exchange_order_id is not None:
            trades = await self._fill_pages([*symbol, ("orderId", exchange_order_id)], None, weight=5)
        elif from_trade_id is not None:
            trades = await self._fill_pages(symbol, int(from_trade_id), weight=20)
        else:
            trades = await self._fills_since(symbol, since_ns // reports.MS)
        return start.date([reports.venue_fill(trade, pair) for trade in trades])

    async def balances(self) -> Dated[VenueBalanceUpdate]:
        reply = await self._get(constants.PATH_ACCOUNT, [("omitZeroBalances", "true")], weight=20)
        account = decoded(_decode_account, reply)
        found = reports.balances((entry.asset, entry.free, entry.locked) for entry in account.balances)
        at_ns = self._start_of(reply).venue_ns
        return self._dated(reply, VenueBalanceUpdate(balances=found, venue_time_ns=at_ns))

    async def fee_rates(self, pairs: Iterable[str]) -> dict[str, FeeSchema]:
        found = {}
        for pair in pairs:
            reply = await self._get_of(pair, constants.PATH_COMMISSION, weight=commission.WEIGHT)
            if reply is not None:
                found[pair] = commission.fee_schema(decoded(_decode_commission, reply))
        return found

    # ------------------------------------------------------------------------------------------- in parts

    def _placed(self, order: Order, reply: RestReply) -> PlaceResult:
        report = decoded(_decode_order, reply)
        start = self._start_of(reply)
        return PlaceResult(
            update=reports.order_update(report, self._symbols, client_order_id=order.client_order_id),
            fills=reports.immediate_fills(report, order.pair),
            requested_ns=start.requested_ns,
            requested_mono_ns=start.requested_mono_ns,
            venue_ns=start.venue_ns,
        )

    def _cancelled(self, order: Order, reply: RestReply) -> Dated[VenueOrderUpdate]:
        report = decoded(_decode_order, reply)
        return self._dated(reply, reports.order_update(report, self._symbols, client_order_id=order.client_order_id))

    async def _open_orders_of(self, pairs: list[str]) -> Dated[list[VenueOrderUpdate]]:
        """Of each pair by itself, dated by the first request's start. One that the venue no longer knows has none."""
        start = self._start()
        replies = await _all(self._get_of(pair, constants.PATH_OPEN_ORDERS, weight=6) for pair in pairs)
        known = [reply for reply in replies if reply is not None]
        return start.date(self._readable(report for reply in known for report in decoded(_decode_orders, reply)))

    async def _get_of(self, pair: str, path: str, *, weight: int) -> RestReply | None:
        """What the venue has of a pair; None of one that it does not know, which is not to hide the others."""
        try:
            return await self._get(path, [("symbol", self._symbols.symbol(pair))], weight=weight)
        except VenueRefused as error:
            if error.reason is not Reason.UNKNOWN_PAIR:
                raise
            if pair not in self._unlisted:
                log.warning("the venue does not know this pair any more: it is left out", pair=pair, path=path)
            self._unlisted.add(pair)
            return None

    def _readable(self, listed: Iterable[reports.OrderReport]) -> list[VenueOrderUpdate]:
        found = []
        for report in listed:
            try:
                found.append(reports.order_update(report, self._symbols))
            except MalformedReply as error:
                self.unreadable += 1
                log.warning("an open order cannot be read: left out", order=report.order_id, error=str(error))
        return found

    async def _fills_since(self, symbol: Params, since_ms: int) -> list[reports.TradeReport]:
        """A day at a time to the first fills (the venue answers for no longer span), then on by their ids. The first
        day is asked for even if by this clock it has yet to begin: the venue's may be a little ahead.
        """
        now_ms = self.time.now_ms()
        if since_ms <= 0 or now_ms - since_ms > _MOST_WINDOWS * _DAY_MS:
            trades = await self._fill_pages(symbol, 0, weight=20)
            return [trade for trade in trades if trade.time >= since_ms]
        while True:
            end_ms = since_ms + _DAY_MS - 1
            window = [*symbol, ("startTime", str(since_ms)), ("endTime", str(end_ms))]
            trades = await self._fill_page(window, weight=20)
            if trades and (len(trades) == _PAGE or end_ms < now_ms):
                trades += await self._fill_pages(symbol, trades[-1].id + 1, weight=20)
            if trades:
                return trades
            since_ms = end_ms + 1
            if since_ms > now_ms:
                return []

    async def _fill_pages(self, params: Params, from_id: int | None, weight: int) -> list[reports.TradeReport]:
        trades: list[reports.TradeReport] = []
        while True:
            page = await self._fill_page(params if from_id is None else [*params, ("fromId", str(from_id))], weight)
            trades += page
            if len(page) < _PAGE:
                return trades
            from_id = page[-1].id + 1

    async def _fill_page(self, params: Params, weight: int) -> list[reports.TradeReport]:
        reply = await self._get(constants.PATH_FILLS, [*params, ("limit", str(_PAGE))], weight)
        page = decoded(_decode_trades, reply)
        page.sort(key=lambda trade: trade.id)
        return page

    # -------------------------------------------------------------------------------------------- sending

    async def _place(self, order: Order, on_sent: OnSent, send_by_mono_ns: int | None) -> RestReply:
        def write(number: int) -> str:
            return self._requests.place(order, number, self.time.now_ms())

        reply = await self._by_websocket(
            write, _PLACE_COSTS, Priority.PLACE, until_mono_ns=send_by_mono_ns, on_sent=on_sent
        )
        if reply is not None:
            return reply
        params = self._order_params(order)
        return await self._rest.send(
            "POST",
            constants.PATH_ORDER,
            lambda: self._sign(params),
            costs=_PLACE_COSTS,
            priority=Priority.PLACE,
            until_mono_ns=send_by_mono_ns,
            on_sent=on_sent,
        )

    async def _cancel(self, order: Order) -> RestReply:
        def write(number: int) -> str:
            return self._requests.cancel(order, number, self.time.now_ms())

        until_mono_ns = self._patience(_URGENT_WAIT_S)
        reply = await self._by_websocket(write, _CANCEL_COSTS, Priority.CANCEL, until_mono_ns=until_mono_ns)
        if reply is not None:
            return reply
        params = [("symbol", self._symbols.symbol(order.pair)), named(order)]
        return await self._delete(constants.PATH_ORDER, params)

    async def _by_websocket(
        self,
        write: Write,
        costs: dict[str, int],
        priority: Priority,
        *,
        until_mono_ns: int | None,
        on_sent: OnSent | None = None,
    ) -> RestReply | None:
        """The reply by the order connection; None if that is not open, and then nothing was done."""
        if self.order_entry is None:
            return None
        try:
            return await self.order_entry.request(
                write, costs, priority, until_mono_ns=until_mono_ns, on_sent=on_sent, free=_FREE
            )
        except NotOpenError:
            return None

    async def _get(self, path: str, params: Params, weight: int, priority: Priority = Priority.POLL) -> RestReply:
        until_mono_ns = self._patience() if priority is Priority.POLL else self._patience(_URGENT_WAIT_S)
        return await self._with_clock(
            lambda: self._rest.read(
                path,
                lambda: self._sign(params),
                costs={constants.WEIGHT: weight},
                priority=priority,
                until_mono_ns=until_mono_ns,
            )
        )

    async def _delete(self, path: str, params: Params) -> RestReply:
        return await self._rest.send(
            "DELETE",
            path,
            lambda: self._sign(params),
            costs=_CANCEL_COSTS,
            priority=Priority.CANCEL,
            until_mono_ns=self._patience(_URGENT_WAIT_S),
        )

    async def _with_clock(self, request: Callable[[], Coroutine[Any, Any, RestReply]]) -> RestReply:
        """Carry out a request, and once more with a new offset if its timestamp was refused."""
        await self.time.ensure()
        try:
            return await request()
        except ClockError as refused:
            await self._resync(refused)
            return await request()

    async def _resync(self, refused: ClockError) -> None:
        """Find the venue's time anew; if that fails, the refusal is what the caller is to hear."""
        try:
            await self.time.resync()
        except VenueError:
            raise refused from None

    def _sign(self, params: Params) -> str:
        stamped = [
            *params,
            ("recvWindow", str(self._recv_window_ms)),
            ("timestamp", str(self.time.now_ms())),
        ]
        return signed_query(stamped, self._secret)

    def _order_params(self, order: Order) -> Params:
        check_client_order_id(order.client_order_id)
        params = [
            ("symbol", self._symbols.symbol(order.pair)),
            ("side", "BUY" if order.side is Side.BUY else "SELL"),
            ("type", ORDER_TYPES[order.order_type]),
            ("quantity", f"{order.size:f}"),
            ("newClientOrderId", order.client_order_id),
            ("newOrderRespType", "FULL"),
        ]
        if order.order_type is OrderType.LIMIT:
            params.append(("timeInForce", "GTC"))
        if order.order_type is not OrderType.MARKET:
            params.append(("price", price_text(order)))
        return params

    # --------------------------------------------------------------------------------------------- dating

    def _start(self) -> _Start:
        mono_ns = self.time.clock.monotonic_ns()
        return _Start(self.time.clock.time_ns(), mono_ns, self._earliest(mono_ns))

    def _start_of(self, reply: RestReply) -> _Start:
        mono_ns = reply.requested_mono_ns
        return _Start(reply.requested_ns, mono_ns, self._earliest(mono_ns))

    def _dated(self, reply: RestReply, value: T) -> Dated[T]:
        return self._start_of(reply).date(value)

    def _earliest(self, mono_ns: int) -> int:
        """The earliest the venue's clock can have read, in its own whole milliseconds."""
        return (self.time.at(mono_ns) - self.time.error_ns) // reports.MS * reports.MS


class _Start(msgspec.Struct, frozen=True):
    """When a request began."""

    requested_ns: int
    requested_mono_ns: int
    venue_ns: int

    def date(self, value: T) -> Dated[T]:
        return Dated(
            value=value,
            requested_ns=self.requested_ns,
            requested_mono_ns=self.requested_mono_ns,
            venue_ns=self.venue_ns,
        )


def _read(outcome: RestReply | VenueError, read: Callable[[RestReply], T]) -> T | VenueError:
    """What a reply says; the error where there is none, or it cannot be read."""
    if isinstance(outcome, VenueError):
        return outcome
    try:
        return read(outcome)
    except VenueError as error:
        return error


def _cancelled(raw: msgspec.Raw) -> list[reports.OrderReport]:
    """An order that was cancelled, or the orders of a list that was."""
    try:
        order_list = _decode_list.decode(raw)
        return order_list.order_reports or [_decode_order.decode(raw)]
    except UNREADABLE as error:
        raise MalformedReply(f"a reply that cannot be read: {error}") from error


async def _all(requests: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Carry out requests at once; the first error ends them all."""
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
