"""How an account comes to agree with its venue, and stays so."""

from __future__ import annotations

import asyncio

from engine.actors.desk import Desk
from engine.bus import Down, SubscriptionState
from engine.connectors.backoff import Backoff
from engine.connectors.base import Dated
from engine.connectors.errors import RateLimited, VenueRefused
from engine.errors import VenueError
from engine.messages import NetworkStatus, Order, UserStreamState, VenueBalanceUpdate

RECONCILE_S = 30.0
POLL_S = 1.0
POLL_PAIR_S = 0.2
"""Without the user stream a pass is made every ``POLL_S`` and so much more for each pair: open orders are asked for by
pair, and venues count."""
RETRY_MOST_S = 2.0
RULES_S = 1800.0
"""How often the venue's rules and the account's fees are asked for again: both change while an engine runs."""
LEARN_AGAIN_S = 60.0


class Reconciler:
    """Reaches the venue, finds out what became of everything, and asks again from then on, one pass at a time."""

    def __init__(self, desk: Desk, beat_s: float = RECONCILE_S) -> None:
        self._desk = desk
        self._core = desk.core
        self._client = desk.client
        self._log = desk.context.log
        self._metrics = desk.context.metrics
        self._beat_s = beat_s
        self._up = asyncio.Event()
        self._wanted = asyncio.Event()
        self._session = 0
        self.stream_up = False
        """Whether the user stream tells what happens."""

    @property
    def up(self) -> bool:
        """Whether the venue was reached and the account is known."""
        return self._up.is_set()

    @property
    def wanted(self) -> bool:
        """Whether a full pass is due at once."""
        return self._wanted.is_set()

    async def until_up(self) -> None:
        """Wait until the account is known."""
        await self._up.wait()

    async def run(self) -> None:
        """Reach the venue, learn its rules, and find out what became of everything; again after each failure."""
        self._metrics.network = NetworkStatus.CONNECTING
        pairs = self._desk.pairs
        backoff = Backoff()
        while True:
            try:
                await self._client.start()
                rules = await self._client.trading_rules(pairs)
                balances = await self._client.balances()
            except VenueError as error:
                self._metrics.network = NetworkStatus.DOWN
                delay = backoff.next()
                self._log.warning("the venue is out of reach", error=str(error), again_in_s=round(delay, 2))
                await asyncio.sleep(delay)
            else:
                break
        missing = [pair for pair in pairs if pair not in rules]
        if missing:
            self._log.error("the venue does not list these pairs", pairs=missing)
        self._core.rules = rules
        self._core.set_horizon(self._client.acceptance_horizon_ns)
        self._metrics.network = NetworkStatus.CONNECTED
        self._take_balances(balances, self._core.open_orders())
        self._up.set()
        self._log.info("ready", open_orders=len(self._core.open_orders()), last_event=self._core.last_number)
        self._desk.do(self._core.recover(self._desk.now()))
        self._desk.context.run(self._keep_learning(), "rules and fees")
        await self._keep_reconciled()

    def at_once(self) -> None:
        """A full pass is wanted."""
        self._wanted.set()

    def soon(self) -> None:
        """A full pass is wanted, a moment from now."""
        asyncio.get_running_loop().call_later(POLL_S / 4, self._wanted.set)

    def on_link(self, state: SubscriptionState) -> None:
        """The link to the user-stream actor changed: what it would have told is to be asked for."""
        if isinstance(state, Down):
            self.stream_up = False
        self._wanted.set()

    def on_stream(self, state: UserStreamState) -> None:
        """The user stream changed, at the venue's end."""
        if (state.connected, state.session) != (self.stream_up, self._session):
            self._wanted.set()
        self.stream_up, self._session = state.connected, state.session

    async def make_pass(self, full: bool = True) -> None:
        """Ask for open orders, fills and balances; a pass that is not full leaves out the fills."""
        desk, pairs = self._desk, self._desk.listed
        open_orders = await self._client.open_orders(pairs)
        desk.do(self._core.open_orders_snapshot(open_orders.value, open_orders.venue_ns, desk.now(), pairs))
        for effect in self._core.fills_wanted(desk.now()) if full else ():
            fills = await self._client.fills(effect.pair, since_ns=effect.since_ns)
            for found in fills.value:
                desk.take_fill(found)
        await self.ask_balances()

    async def ask_balances(self) -> None:
        """Ask the venue for all balances."""
        orders = self._core.open_orders()
        self._take_balances(await self._client.balances(), orders)

    async def _keep_reconciled(self) -> None:
        """One pass at a time: after each change of the user stream, at a slow beat always, and at a fast one without
        the stream. A fast pass leaves out the fills: they are asked for of the orders that turn out to have some. Once
        the venue is back, what was asked in vain meanwhile is asked again at once.
        """
        backoff = Backoff(base_s=POLL_S / 4, max_s=RETRY_MOST_S)
        full_by = 0.0
        back = True
        while True:
            full = await self._until_next_pass(full_by)
            told = self._wanted.is_set()
            self._wanted.clear()
            full, back = full or told, back or told
            try:
                await self.make_pass(full)
            except VenueError as error:
                self._metrics.network = NetworkStatus.DOWN
                self._log.info("reconciliation will be tried again", error=str(error))
                full_by = 0.0 if full else full_by
                back = True
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._core.set_horizon(self._client.acceptance_horizon_ns)
            full_by = asyncio.get_running_loop().time() + self._beat_s if full else full_by
            self._metrics.network = NetworkStatus.CONNECTED
            self._metrics.count("reconciliations")
            if back:
                back = False
                self._desk.do(self._core.ask_again(self._desk.now()))

    async def _until_next_pass(self, full_by: float) -> bool:
        """Wait until it is time; whether the pass is to be a full one."""
        wait_s = full_by - asyncio.get_running_loop().time()
        if not self.stream_up:
            wait_s = min(wait_s, POLL_S + POLL_PAIR_S * len(self._desk.pairs))
        try:
            async with asyncio.timeout(wait_s):
                await self._wanted.wait()
        except TimeoutError:
            return asyncio.get_running_loop().time() >= full_by
        return True

    def _take_balances(self, told: Dated[VenueBalanceUpdate], orders: list[Order]) -> None:
        """The venue's whole answer. ``orders``: those that were open when its request began."""
        desk = self._desk
        desk.do(self._core.balances(told.value.balances, told.venue_ns, desk.now(), complete=True, orders=orders))

    async def _keep_learning(self) -> None:
        """The account's own rates, at once, and then rates and rules again and again. Where the venue does not tell,
        what was known stays: of the rates, those of its list.
        """
        learned = await self._learn_fees()
        while True:
            await asyncio.sleep(RULES_S if learned else LEARN_AGAIN_S)
            learned = await self._learn_rules() and await self._learn_fees()

    async def _learn_fees(self) -> bool:
        try:
            rates = await self._client.fee_rates(self._desk.listed)
        except VenueError as error:
            self._log.info("the account's fees could not be asked for", error=str(error))
            return _is_an_answer(error)
        self._core.set_fees(rates)
        return True

    async def _learn_rules(self) -> bool:
        try:
            rules = await self._client.trading_rules(self._desk.pairs)
        except VenueError as error:
            self._log.info("the venue's rules could not be asked for", error=str(error))
            return _is_an_answer(error)
        changed = sorted(pair for pair, rule in rules.items() if rule != self._core.rules.get(pair))
        if changed:
            self._log.warning("the venue's rules changed", pairs=changed)
            self._core.rules = {**self._core.rules, **rules}
        return True


def _is_an_answer(error: VenueError) -> bool:
    """Whether asking again soon brings nothing else: the venue said no, and not for too many questions."""
    return isinstance(error, VenueRefused) and not isinstance(error, RateLimited)
