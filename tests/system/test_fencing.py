"""Two processes on a real PostgreSQL that may trade one account at a venue in a box: the fence between them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.actors.plan import plan, with_endpoint
from engine.bus import RunDirectory, SocketBus
from engine.clock import WallClock
from engine.config import parse_config
from engine.errors import BusError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    ControlReply,
    GetAccount,
    OrderFate,
    OrderState,
    OrderType,
    PlaceOrder,
    Reason,
    Refused,
    Side,
)
from engine.orders.ids import ClientOrderIds
from engine.runtime.base import ActorSpec
from engine.simulator import BoxConfig, PairConfig, VenueBox

HERE = Path(__file__).parent
NAME = "exchange.binance.main"
LEASE = {"ttl": 6.0, "renew": 0.3, "clock_error": 0.3}
"""Longer than the venue may accept a request (recvWindow and its allowance for clocks that are ahead, 2 s here)."""


class Host:
    """One host: folders, a process, and a bus to talk to it."""

    def __init__(self, name: str, folder: Path, config: Any, info: Any) -> None:
        self.folder = folder / name
        self.trigger = self.folder / "stop"
        for part in ("state", "run", "shm"):
            (self.folder / part).mkdir(parents=True)
        (actor,) = [found for found in plan(config, 1, self.folder / "state") if found.kind == "exchange"]
        actor = with_endpoint(actor, msgspec.to_builtins(info))
        self.spec = ActorSpec(
            name=NAME,
            kind="exchange",
            connector="binance",
            incarnation=WallClock().time_ns(),
            run_dir=str(self.folder / "run"),
            shm_dir=str(self.folder / "shm"),
            state_dir=str(self.folder / "state"),
            engine_id="",
            entry="",
            params=actor.params,
        )
        self.ids = ClientOrderIds("test-", name, 1, WallClock())
        self.buses = [
            SocketBus(bus, 1, RunDirectory(self.folder / "run"), engine_id="") for bus in ("supervisor", "trader")
        ]
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.buses[0].serve(lambda caller, message: ControlReply(ok=True))
        for bus in self.buses:
            await bus.start()
        self._launch()

    def _launch(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fenced_host.py"), str(self.trigger)], stdin=subprocess.PIPE
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.msgpack.encode(self.spec))
        self.process.stdin.close()

    async def close(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for bus in self.buses:
            await bus.close()

    async def ask(self, message: Any, timeout: float = 1.5) -> Any:
        return await self.buses[1].request(NAME, message, timeout=timeout)

    async def account(self) -> AccountSnapshot | None:
        """The account, if this host holds it."""
        try:
            found = await self.ask(GetAccount())
        except BusError:
            return None
        return found if isinstance(found, AccountSnapshot) else None

    def order(self) -> PlaceOrder:
        return PlaceOrder(
            client_order_id=self.ids.next(),
            strategy="trader",
            pair="BTC-USDT",
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            size=Decimal("0.001"),
            price=Decimal(50_000),
        )

    @property
    def is_stopped(self) -> bool:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it is something."""
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.02)


@asynccontextmanager
async def site(address: str, seconds: float = 60) -> AsyncIterator[tuple[VenueBox, Host, Host]]:
    """A venue and two hosts that may trade the account there."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        folder = Path(name)
        box = VenueBox(BoxConfig(state_dir=str(folder / "venue"), pairs=[PairConfig(pair="BTC-USDT", price="60000")]))
        info = await box.start()
        config = parse_config(
            {
                "name": "test",
                "journal": {"lease": LEASE},
                "venue": {"pairs": ["BTC-USDT"]},
                "connectors": {
                    "binance": {
                        "at": "venue",
                        "pairs": ["BTC-USDT"],
                        "journal": address,
                        "options": {"recv_window_ms": 1000},
                    }
                },
            }
        )
        hosts = [Host(each, folder, config, info) for each in ("a", "b")]
        try:
            async with asyncio.timeout(seconds):
                yield box, hosts[0], hosts[1]
        finally:
            for host in hosts:
                await host.close()
            await box.stop()


def at_venue(box: VenueBox) -> list[str]:
    return [order.client_order_id for orders in box.venue.open_orders.values() for order in orders.values()]


@pytest.mark.processes
def test_a_holder_stopped_between_its_look_at_the_lease_and_the_wire_places_nothing_when_it_goes_on(
    database: str,
) -> None:
    async def body() -> None:
        async with site(database) as (box, a, b):
            await a.start()
            await until(a.account)
            await b.start()
            first, held = a.order(), a.order()
            assert isinstance(await a.ask(first), Accepted)
            await until(lambda: first.client_order_id in at_venue(box))
            a.trigger.touch()
            asked = asyncio.create_task(a.ask(held))
            await until(lambda: a.is_stopped)
            await asyncio.gather(asked, return_exceptions=True)

            taken = await until(b.account)
            # The held one is open to doubt there, or was found to have come to nothing already.
            open_there = {order.client_order_id for order in taken.orders}
            assert open_there - {held.client_order_id} == {first.client_order_id}
            second = b.order()
            assert isinstance(await b.ask(second), Accepted)
            await until(lambda: second.client_order_id in at_venue(box))

            assert a.process is not None
            a.process.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(a.process.wait, 30) == 1
            fate = await until(lambda: ended(b, held.client_order_id))
            assert fate.state is OrderState.FAILED
            assert sorted(at_venue(box)) == sorted([first.client_order_id, second.client_order_id])

    asyncio.run(body())


async def ended(host: Host, client_order_id: str) -> Accepted | None:
    fate = await host.ask(OrderFate(client_order_id=client_order_id))
    assert isinstance(fate, Accepted)
    return fate if fate.state.is_final else None


@pytest.mark.processes
def test_the_other_host_refuses_with_a_reason_and_has_everything_when_the_holder_is_killed(database: str) -> None:
    async def body() -> None:
        async with site(database) as (box, a, b):
            await a.start()
            await until(a.account)
            await b.start()
            order = a.order()
            assert isinstance(await a.ask(order), Accepted)
            await until(lambda: order.client_order_id in at_venue(box))
            refused = await until(lambda: refusal(b))
            assert refused.reason is Reason.NO_LEASE
            assert a.process is not None
            a.process.kill()
            taken = await until(b.account)
            assert [found.client_order_id for found in taken.orders] == [order.client_order_id]
            assert await b.ask(order) == Accepted(client_order_id=order.client_order_id, state=OrderState.OPEN)
            assert at_venue(box) == [order.client_order_id]

    asyncio.run(body())


async def refusal(host: Host) -> Refused | None:
    try:
        reply = await host.ask(host.order())
    except BusError:
        return None
    assert isinstance(reply, Refused)
    return reply
