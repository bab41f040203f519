"""The requests that Binance's REST and WebSocket APIs share, as functions on a venue.

An :class:`Operation` names its handler, its weight and who may ask. The front ends find one by path or by method name,
authenticate, charge the weight, and call :meth:`Api.perform`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.simulator.binance.errors import ApiError, bad_symbol
from engine.simulator.binance.limits import Limits
from engine.simulator.binance.rules import symbol_of
from engine.simulator.faults import Picture
from engine.simulator.venue import Market, Venue

Params = Mapping[str, str]
Weight = int | Callable[[Params], int]


@dataclass(slots=True, frozen=True)
class Call:
    """One request: its parameters, when it arrived, and whose it is ("" for public ones)."""

    params: Params
    now_ns: int
    account: str = ""


class Api:
    """A venue seen as Binance: symbols instead of pairs, API keys instead of accounts.

    ``picture``: the old book that stands in for a symbol's book in the next answer, None where there is none.
    """

    def __init__(
        self, venue: Venue, limits: Limits, picture: Callable[[str], Picture | None] = lambda symbol: None
    ) -> None:
        self.venue = venue
        self.picture = picture
        self.limits = limits
        self.markets = {symbol_of(name): market for name, market in venue.markets.items()}
        self.secrets = {account.api_key: account.api_secret for account in venue.accounts.values()}
        self.account_of_key = {account.api_key: name for name, account in venue.accounts.items()}

    def market(self, symbol: str) -> Market:
        """-1121 for a symbol that is not traded here."""
        try:
            return self.markets[symbol]
        except KeyError:
            raise bad_symbol() from None

    def average_price(self, market: Market) -> int:
        return market.history.average_price() or market.flow.mid

    def perform(self, operation: Operation, call: Call, caller: str) -> object:
        """Charge the request's weight, then carry it out; raises ApiError."""
        weight = operation.weight_of(call.params)
        self.limits.charge(caller, 0 if operation.free_when_done else weight, call.now_ns)
        try:
            return operation.handler(self, call)
        except ApiError:
            if operation.free_when_done:
                self.limits.charge(caller, weight, call.now_ns)
            raise


@dataclass(slots=True, frozen=True)
class Operation:
    """``signed``: needs a key, a signature and a timestamp; ``keyed``: a key only."""

    handler: Callable[[Api, Call], object]
    weight: Weight = 1
    signed: bool = False
    keyed: bool = False
    free_when_done: bool = False
    places: bool = False

    def weight_of(self, params: Params) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight(params)
