"""An account's balances: for each asset the newest that the venue told."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from engine.messages import Balance

_NOTHING = Balance(total=Decimal(0), available=Decimal(0))


class Balances:
    """Each asset's balance with its date, on the venue's clock: an older one never overwrites a newer."""

    def __init__(self) -> None:
        self._held: dict[str, Balance] = {}
        self._dated: dict[str, int] = {}
        self._complete_ns = 0

    def update(self, balances: Mapping[str, Balance], dated_ns: int, complete: bool) -> dict[str, Balance]:
        """Take what is not older than what is known; the assets that changed, with their new values.

        ``complete``: the venue named every asset that it holds, so one that is missing is gone.
        """
        told = dict(balances)
        if complete:
            self._complete_ns = max(self._complete_ns, dated_ns)
            told.update({asset: _NOTHING for asset in self._held if asset not in balances})
        changed = {}
        for asset, balance in told.items():
            if dated_ns < self._dated.get(asset, 0):
                continue
            self._dated[asset] = dated_ns
            if balance != self._held.get(asset, _NOTHING):
                changed[asset] = balance
            if balance == _NOTHING:
                self._held.pop(asset, None)
            else:
                self._held[asset] = balance
        return changed

    def undate(self) -> None:
        """What the dates say is not true any more: any word counts as newer."""
        self._dated.clear()
        self._complete_ns = 0

    def dated(self, asset: str) -> tuple[Balance, int] | None:
        """An asset's balance and its date: zeros for one that the venue left out; None while nothing is known."""
        dated_ns = self._dated.get(asset, self._complete_ns)
        return (self._held.get(asset, _NOTHING), dated_ns) if dated_ns else None

    def snapshot(self) -> dict[str, Balance]:
        """All assets that are held."""
        return dict(self._held)
