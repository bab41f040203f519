"""A venue's own spelling of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.connectors.hot_path import Revision
from engine.errors import ConfigError
from engine.messages import TradingRule

QUOTES = (
    *("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USDP", "USDD", "USDS", "USDE", "PYUSD", "HUSD", "RLUSD", "DAI", "PAX"),
    *("BTC", "ETH", "BNB", "TRX", "XRP", "DOT", "DOGE", "HT", "KCS", "SOL", "VAI", "UST", "U"),
    *("USD", "EUR", "GBP", "AUD", "BRL", "TRY", "RUB", "UAH", "NGN", "ZAR", "IDRT", "BIDR", "BKRW", "BVND", "IDR"),
    *("JPY", "PLN", "RON", "ARS", "MXN", "COP", "CZK", "KRW", "AEUR", "EURI", "XUSD", "USD1", "BFUSD"),
)
"""What pairs are quoted in, for telling where a symbol's base ends."""
_LONGEST_FIRST = sorted(QUOTES, key=len, reverse=True)
_WELL_KNOWN = frozenset(
    (
        *("BTC", "ETH", "BNB", "XRP", "SOL", "ADA", "DOGE", "TRX", "TON", "DOT", "LINK", "AVAX", "MATIC", "POL"),
        *("LTC", "BCH", "XLM", "ETC", "XMR", "FIL", "ATOM", "NEAR", "APT", "ARB", "OP", "SUI", "SEI", "INJ", "ICP"),
        *("HBAR", "VET", "GRT", "LPT", "ANT", "BAT", "SNT", "FTT", "BTT", "HT", "OKT", "CHR", "ENS", "EOS", "XTZ"),
        *("ALGO", "AAVE", "MKR", "UNI", "CRV", "SNX", "COMP", "YFI", "SUSHI", "ZRX", "OMG", "KNC", "LRC", "BAL"),
        *("REN", "STORJ", "SHIB", "PEPE", "FLOKI", "BONK", "WIF", "SAND", "MANA", "AXS", "GALA", "ENJ", "CHZ"),
        *("APE", "IMX", "MASK", "DASH", "ZEC", "ZEN", "DCR", "QTUM", "NEO", "ONT", "IOTA", "WAVES", "ZIL", "RVN"),
        *("DGB", "XVG", "SC", "ICX", "LUNA", "LUNC", "UST", "KAVA", "RUNE", "THETA", "TFUEL", "EGLD", "FTM", "ONE"),
        *("CELO", "ROSE", "KSM", "FLOW", "USDT", "USDC", "BUSD", "TUSD", "FDUSD", "DAI", "PAXG", "WBTC", "WETH"),
        *("STETH", "EUR", "GBP", "AUD", "JASMY", "RNDR", "RENDER", "FET", "AGIX", "OCEAN", "LDO", "RPL", "DYDX"),
        *("GMX", "JTO", "JUP", "PYTH", "TIA", "STX", "TAO", "BAND", "SKL", "NMR", "NU", "OXT", "REP", "HNT"),
        *("CTSI", "LSK", "NANO", "AUDIO", "ANKR", "BNT", "COTI", "ROOK"),
    )
)
"""Bases that settle where to split: ``ETHUSD`` is ETH in USD, though there was a HUSD, and ``ADAEUR`` no AD in AEUR."""


def split_symbol(symbol: str) -> str | None:
    """The pair of a symbol without a separator (``ETHUSDT``): by the longest quote asset that leaves a well-known base,
    or else by the longest one.
    """
    upper = symbol.upper()
    found = [quote for quote in _LONGEST_FIRST if upper.endswith(quote) and len(upper) > len(quote)]
    if not found:
        return None
    bases = [upper.removesuffix(quote) for quote in found]
    at = next((number for number, base in enumerate(bases) if base in _WELL_KNOWN), 0)
    return f"{bases[at]}-{found[at]}"


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
