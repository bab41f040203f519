"""A venue of a simulated run: a venue in a box as a process of its own, that crashes and comes back by itself."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.runtime.inline import Place
from engine.runtime.virtual_loop import VirtualProcess
from engine.simulation.plan import CONNECTORS, PAIRS, VENUES, Plan
from engine.simulator.box import VenueBox
from engine.simulator.config import AccountConfig, BoxConfig, PairConfig
from engine.simulator.faults import Fault
from engine.simulator.ledger import Ledger
from engine.simulator.venue import Saved

FIRST_PORT: Final = 40_100
BALANCES: Final = {"USDT": "1000000", "BTC": "20", "ETH": "300"}
PRICES: Final = {"BTC-USDT": "60000", "ETH-USDT": "3000"}
_ALPHABET: Final = string.ascii_letters + string.digits


class SimulatedVenue:
    """One venue. Its clock is the place's, ``skew_ns`` ahead, and never goes back."""

    def __init__(self, name: str, place: Place, folder: Path, plan: Plan) -> None:
        self.name = name
        self.place = place
        self.connector = CONNECTORS[name]
        self.pairs = PAIRS[self.connector]
        self.port = FIRST_PORT + VENUES.index(name)
        self.folder = folder / f"venue-{name}"
        self._step_s = plan.step_s
        self.skew_ns = int(plan.skew_s[name] * 1e9)
        self.box: VenueBox | None = None
        self.process: VirtualProcess | None = None
        self._told_ns = 0
        rng = random.Random(f"venue/{plan.seed}/{name}")
        key, secret = ("".join(rng.choice(_ALPHABET) for _ in range(64)) for _ in range(2))
        self._config = BoxConfig(
            name=name,
            port=self.port,
            seed=rng.randrange(2**31),
            state_dir=str(self.folder),
            pairs=[PairConfig(pair=pair, price=PRICES[pair], levels=40) for pair in self.pairs],
            accounts=[AccountConfig(api_key=key, api_secret=secret, balances=BALANCES)],
            activity=plan.activity,
        )
        self.info: dict[str, Any] = {
            "rest": f"http://127.0.0.1:{self.port}",
            "ws": f"ws://127.0.0.1:{self.port}",
            "ws_api": f"ws://127.0.0.1:{self.port}/ws-api/v3",
            "api_key": key,
            "api_secret": secret,
        }

    def now_ns(self) -> int:
        """The venue's own clock."""
        self._told_ns = max(self._told_ns, self.place.clock.time_ns() + self.skew_ns)
        return self._told_ns

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Come up on the ledger of the last life; ``failed`` is told when it cannot."""
        process = self.process = self.place.process(f"venue.{self.name}")
        box = self.box = VenueBox(self._config, self.now_ns)
        box.step_s = self._step_s
        process.on_death.append(box.abandon)

        async def live() -> None:
            try:
                await box.start()
                failed(await box.failed())
            except Exception as error:
                failed(error)

        self.place.start(process, live())

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self.process is not None:
            self.process.kill()
        self.box = None

    def freeze_market(self) -> None:
        """The other traders leave: the books stand still from here on."""
        if self.box is not None:
            for market in self.box.venue.markets.values():
                market.flow.activity = 0.0

    def sweep_unheard(self, levels: int) -> bool:
        """Drop the accounts' streams, and have the other traders take the best ``levels`` of every book. False while
        it is down.
        """
        box = self.box
        if box is None or not hasattr(box, "desk"):
            return False
        box.inflict([Fault(kind="disconnect_user")])
        for pair in self.pairs:
            box.venue.sweep(pair, levels, self.now_ns())
        box.flush()
        return True

    def fills(self) -> set[tuple[str, str]]:
        """The pair and id of every trade of the account so far; none while it is down."""
        fills = self.box.venue.pair_fills.values() if self.box is not None else ()
        return {(fill.pair, str(fill.trade_id)) for of_pair in fills for fill in of_pair}

    def has_open_orders(self) -> bool:
        """Whether any order of the account is open; of a venue that is down, nothing is known."""
        return self.box is None or any(self.box.venue.open_orders.values())

    def ledger(self) -> tuple[Saved, dict[str, dict[str, int]]]:
        """See :func:`read_ledger`. Only while it is down: a ledger has one holder."""
        return read_ledger(self.folder)

    def described(self) -> dict[str, Any]:
        """The venue as the engine's configuration has it."""
        return {"pairs": [{"pair": pair, "price": PRICES[pair]} for pair in self.pairs]}


def plain(value: Any) -> Any:
    """As plain data, for a digest."""
    return msgspec.to_builtins(value)


def read_ledger(folder: Path) -> tuple[Saved, dict[str, dict[str, int]]]:
    """All orders and fills that a venue has saved in its folder, and what is free and locked of each asset.

    Raises :class:`~engine.errors.ConfigError` while a venue serves it.
    """
    ledger = Ledger(folder)
    try:
        accounts = ledger.accounts(0, 0)
        balances = {
            asset: {"free": balance.free, "locked": balance.locked}
            for account in accounts
            for asset, balance in account.balances.items()
        }
        return ledger.load(), balances
    finally:
        ledger.close()
