"""A venue's own spelling of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.connectors.hot_path import Revision
from engine.errors import ConfigError
from engine.messages import TradingRule


class SymbolMap:
    """Pairs (``BASE-QUOTE``) and a venue's symbols, both ways.

    It begins with the pairs of the configuration, spelled by the venue's habit, so that streams can be
    opened before the venue's list has been read; :meth:`learn` then corrects and completes it.
    The number of ``revision`` changes whenever a symbol may have come to mean another pair.
    """

    __slots__ = ("_pair_of", "_spell", "_symbol_of", "revision")

    def __init__(self, spell: Callable[[str, str], str], pairs: Iterable[str] = ()) -> None:
        self._spell = spell
        self._symbol_of: dict[str, str] = {}
        self._pair_of: dict[str, str] = {}
        self.revision = Revision()
        for pair in pairs:
            self.symbol(pair)

    def symbol(self, pair: str) -> str:
        """The venue's spelling. ConfigError if ``pair`` is not ``BASE-QUOTE``."""
        symbol = self._symbol_of.get(pair)
        if symbol is None:
            base, _, quote = pair.partition("-")
            if not base or not quote:
                raise ConfigError(f"{pair!r} is not a pair: write BASE-QUOTE, as in BTC-USDT")
            symbol = self._spell(base, quote)
            self._symbol_of[pair] = symbol
            self._pair_of[symbol] = pair
            self.revision.number += 1
        return symbol

    def pair(self, symbol: str) -> str | None:
        """The pair of a venue's symbol, or None if it is not known (yet)."""
        return self._pair_of.get(symbol)

    def learn(self, rules: Iterable[TradingRule]) -> None:
        """Take over the venue's own list."""
        for rule in rules:
            self._symbol_of[rule.pair] = rule.symbol
            self._pair_of[rule.symbol] = rule.pair
        self.revision.number += 1

    def __len__(self) -> int:
        return len(self._symbol_of)
