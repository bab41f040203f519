"""Client accounts: what is free, what open orders hold, and the fees that executions cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.simulator.amounts import ONE


class InsufficientBalance(Exception):
    """The account has less free than the order would need."""


@dataclass(slots=True)
class Balance:
    """Units of 10^-8 of one asset."""

    free: int = 0
    locked: int = 0


@dataclass(slots=True)
class Account:
    """One client's account. Fee rates in units of 10^-8 of the received amount."""

    name: str
    api_key: str
    api_secret: str
    maker_fee: int
    taker_fee: int
    balances: dict[str, Balance] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)

    def balance(self, asset: str) -> Balance:
        balance = self.balances.get(asset)
        if balance is None:
            balance = self.balances[asset] = Balance()
        return balance

    def lock(self, asset: str, amount: int) -> None:
        """Set aside for an order; :class:`InsufficientBalance` and no change when there is not enough."""
        balance = self.balance(asset)
        if balance.free < amount:
            raise InsufficientBalance(f"{self.name} has less {asset} free than the order needs")
        balance.free -= amount
        balance.locked += amount
        self.dirty.add(asset)

    def release(self, asset: str, amount: int) -> None:
        """Give back what an order held."""
        balance = self.balance(asset)
        balance.locked -= amount
        balance.free += amount
        self.dirty.add(asset)

    def pay(self, asset: str, amount: int) -> None:
        """Take from what an order held."""
        self.balance(asset).locked -= amount
        self.dirty.add(asset)

    def receive(self, asset: str, amount: int, is_maker: bool) -> int:
        """Credit what an execution brought, less the fee; returns the fee (rounded down, in the same asset)."""
        fee = amount * (self.maker_fee if is_maker else self.taker_fee) // ONE
        self.balance(asset).free += amount - fee
        self.dirty.add(asset)
        return fee
