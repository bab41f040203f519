"""The venue in a box: a venue, its ledger and its front end on one port."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sqlite3
import ssl
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import ConfigError
from engine.simulator import admin
from engine.simulator.accounts import Account
from engine.simulator.amounts import parse_amount
from engine.simulator.binance.api import Api
from engine.simulator.binance.desk import Desk
from engine.simulator.binance.limits import Limits
from engine.simulator.binance.rest import Rest
from engine.simulator.binance.sockets import Sockets
from engine.simulator.binance.streams import Feed, Hub
from engine.simulator.binance.users import Users
from engine.simulator.capture import read_capture
from engine.simulator.config import BoxConfig, BoxInfo, Pair, fee_rate
from engine.simulator.events import BalanceEvent, OrderEvent
from engine.simulator.faults import Fault, Faults
from engine.simulator.ledger import Ledger
from engine.simulator.replay import Replay, pairs_of
from engine.simulator.serving import Server, application
from engine.simulator.tls import server_context
from engine.simulator.venue import Venue

__all__ = ["BoxConfig", "BoxInfo", "VenueBox"]

STEP_SECONDS = 0.02
MOST_LEVELS = 5000
_PORT_TRIES = 5
_PORT_WAIT_SECONDS = 0.1
_SAVE_PRICES_NS = 1_000_000_000
_ALPHABET = string.ascii_letters + string.digits


class VenueBox:
    """A venue that any client of its protocol can trade on. ``clock`` gives nanoseconds since the Unix epoch."""

    def __init__(self, config: BoxConfig, clock: Callable[[], int] = time.time_ns) -> None:
        if config.venue != "binance":
            raise ConfigError(f"the box does not speak {config.venue!r}; it speaks: binance")
        self.config = config
        self._clock = clock
        self._capture = read_capture(config.capture) if config.capture is not None else None
        pairs = config.pairs if self._capture is None else pairs_of(self._capture)
        self._pairs = [Pair.of(pair) for pair in pairs]
        self._replay: Replay | None = None
        self._cleanup = contextlib.AsyncExitStack()
        self._saved_ns = 0
        self._step_task: asyncio.Task[None] | None = None
        self.step_s = STEP_SECONDS
        self._ledger_open: Ledger | None = None
        self.faults = Faults()

    async def start(self) -> BoxInfo:
        """Open the ledger, restore what it holds, and listen; :class:`ConfigError` says what stands in the way."""
        try:
            return await self._start()
        except BaseException:
            await self._cleanup.aclose()
            raise

    async def _start(self) -> BoxInfo:
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        folder = self._folder()
        self.ledger = self._ledger_open = Ledger(folder)
        self._cleanup.callback(self.ledger.close)
        self.venue = self._open_venue()
        limits = Limits(
            self.config.weight_limit,
            self.config.order_limit_10s,
            self.config.order_limit_1d,
            self.config.enforce_limits,
        )
        self.api = Api(self.venue, limits, self.faults.strike_snapshot)
        self.hub, self.users = Hub(), Users()
        self.feed = Feed(self.api, self.hub, self.faults.strike_depth)
        self.desk = Desk(self.api, self.hub, self.users, self.faults, self._clock, self.flush)
        if self._capture is not None:
            self._replay = Replay(self._capture, self.hub, self.config.speed)
            self.desk.closed = "Market is closed: this venue serves a recording."
        self.flush()
        app = application()
        admin.Admin(lambda: admin.ledger(self.venue), self.stats, self.inflict, self.faults.clear).add_to(app)
        self._sockets = Sockets(self.desk, self.config.enforce_limits)
        app.router.add_get("/ws", self._sockets.market)
        app.router.add_get("/ws/{names:.*}", self._sockets.market)
        app.router.add_get("/stream", self._sockets.market)
        app.router.add_get("/ws-api/v3", self._sockets.api)
        app.router.add_route("*", "/{path:.*}", Rest(self.desk, self._replay.body if self._replay else None).handle)
        context, ca = server_context(folder / "tls") if self.config.tls else (None, None)
        server = Server(app, self.config.host)
        self._cleanup.push_async_callback(server.stop)
        port = await self._listen(server, context)
        self.ledger.put("port", str(port))
        self._cleanup.push_async_callback(self._close_sockets)
        self._step_task = asyncio.create_task(
            self._replay.run() if self._replay else self._run(), name=f"venue {self.config.name}"
        )
        self._step_task.add_done_callback(self._step_ended)
        self._cleanup.push_async_callback(self._end_steps)
        return self._info(port, folder, ca)

    async def stop(self) -> None:
        """Close every connection, keep the ledger, and remove what was temporary."""
        await self._cleanup.aclose()

    def abandon(self) -> None:
        """Close the ledger's files as the kernel does when the process is killed."""
        if self._ledger_open is not None:
            self._ledger_open.close()

    async def failed(self) -> BaseException:
        """Wait until the box can no longer serve, and say why: its ledger cannot be written, or its market broke."""
        return await asyncio.shield(self._failure)

    def step(self) -> None:
        """Let the market go on until now, and tell."""
        now_ns = self._clock()
        self.venue.advance(now_ns)
        if now_ns - self._saved_ns >= _SAVE_PRICES_NS:
            self._saved_ns = now_ns
            self.venue.save_prices()
        self.flush()
        self.feed.tick(now_ns)

    def flush(self) -> None:
        """Commit what has changed, then tell what has happened."""
        changes = self.venue.take_changes()
        if changes:
            try:
                self.ledger.commit(changes)
            except sqlite3.Error as error:
                self._fail(error)
                raise
        outbox, self.venue.outbox = self.venue.outbox, []
        for event in outbox:
            if isinstance(event, OrderEvent | BalanceEvent):
                self._tell_user(event)
            else:
                self.feed.tell(event)

    def stats(self) -> dict[str, object]:
        """Counts since the start, for ``GET /admin/stats``."""
        return {
            "venue": self.config.venue,
            "requests": self.desk.requests,
            "stream_connections": len(self.hub.listeners),
            "user_connections": len(self.users.sockets),
            "stream_frames": self.hub.frames_sent,
            "user_frames": self.users.frames_sent,
            "orders": len(self.venue.orders),
            "open_orders": sum(len(orders) for orders in self.venue.open_orders.values()),
            "fills": sum(len(fills) for fills in self.venue.pair_fills.values()),
            **({"capture": self._replay.stats()} if self._replay is not None else {}),
            "limits": self.api.limits.stats(),
            "faults": {"armed": len(self.faults.armed), "struck": self.faults.struck},
            "pairs": {
                name: {
                    "update_id": market.book.update_id,
                    "bids": len(market.book.bids),
                    "asks": len(market.book.asks),
                }
                for name, market in self.venue.markets.items()
            },
        }

    def inflict(self, faults: list[Fault]) -> dict[str, object]:
        """Arm faults; the disconnects strike at once."""
        dropped = 0
        for fault in faults:
            if fault.kind == "disconnect_streams":
                dropped += self.hub.drop_all()
                self.faults.count(fault.kind)
            elif fault.kind == "disconnect_user":
                dropped += self.users.drop_all()
                self.faults.count(fault.kind)
            elif fault.kind == "mute_streams":
                dropped += self.hub.mute_all()
                self.faults.count(fault.kind)
            elif fault.kind == "old_snapshot":
                self._take_pictures()
        self.faults.arm(faults)
        self.faults.spread(self.api.markets)
        return {"armed": len(self.faults.armed), "dropped": dropped}

    # -- inside

    def _take_pictures(self) -> None:
        for symbol, market in self.api.markets.items():
            book = market.book
            picture = (book.update_id, book.levels(True, MOST_LEVELS), book.levels(False, MOST_LEVELS))
            self.faults.pictures[symbol] = picture

    def _tell_user(self, event: OrderEvent | BalanceEvent) -> None:
        fault = self.faults.strike_user()
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind == "late_user":
            asyncio.get_running_loop().call_later(fault.ms / 1000, self.users.tell, event)
        elif kind != "skip_user":
            self.users.tell(event)
        if kind == "duplicate_user":
            self.users.tell(event)

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    def _step_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    async def _run(self) -> None:
        while True:
            self.step()
            await asyncio.sleep(self.step_s)

    async def _listen(self, server: Server, context: ssl.SSLContext | None) -> int:
        """On the port asked for; where none is, on the last life's, and on any free one if that stays taken."""
        if self.config.port:
            return await server.start(self.config.port, context)
        last = int(self.ledger.get("port", "0"))
        for _ in range(_PORT_TRIES if last else 0):
            try:
                return await server.start(last, context)
            except ConfigError:
                await asyncio.sleep(_PORT_WAIT_SECONDS)
        return await server.start(0, context)

    async def _end_steps(self) -> None:
        if self._step_task is not None:
            self._step_task.cancel()
            await asyncio.gather(self._step_task, return_exceptions=True)

    async def _close_sockets(self) -> None:
        await asyncio.gather(*(socket.close(1001, b"going away") for socket in list(self._sockets.open)))

    def _folder(self) -> Path:
        if self.config.state_dir is not None:
            return Path(self.config.state_dir)
        folder = Path(tempfile.mkdtemp(prefix="venue-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _open_venue(self) -> Venue:
        maker, taker = fee_rate(self.config.maker_fee), fee_rate(self.config.taker_fee)
        known = {account.name for account in self.ledger.accounts(maker, taker)}
        for wanted in self.config.all_accounts():
            if wanted.name not in known:
                balances = [(asset, parse_amount(text)) for asset, text in wanted.balances.items()]
                key, secret = wanted.api_key or _random_text(), wanted.api_secret or _random_text()
                self.ledger.open_account(wanted.name, key, secret, balances)
        return Venue(
            self._pairs,
            self.ledger.accounts(maker, taker),
            seed=self.config.seed,
            activity=self.config.activity if self._capture is None else 0.0,
            depth_interval_ns=self.config.depth_interval_ms * 1_000_000,
            start_ns=self._clock(),
            saved=self.ledger.load(),
        )

    def _info(self, port: int, folder: Path, ca: Path | None) -> BoxInfo:
        secure = "s" if ca is not None else ""
        first: Account = next(iter(self.venue.accounts.values()))
        host = f"{self.config.host}:{port}"
        return BoxInfo(
            venue=self.config.venue,
            rest=f"http{secure}://{host}",
            ws=f"ws{secure}://{host}",
            ws_api=f"ws{secure}://{host}/ws-api/v3",
            admin=f"http{secure}://{host}/admin",
            api_key=first.api_key,
            api_secret=first.api_secret,
            port=port,
            state=str(folder),
            ca=str(ca.resolve()) if ca is not None else "",
        )


def _random_text() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(64))
