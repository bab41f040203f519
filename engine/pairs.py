"""Symbols without a separator, and the pairs that they most likely mean.

For recorded traffic that lacks the venue's own list.
"""

from __future__ import annotations

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
        *("QNT", "TWT", "GMT", "HFT", "NOT", "MNT", "LIT", "ACT", "GHST", "STPT", "BTRST", "ACH", "FORTH", "HIGH"),
        *("FLUX", "CVX", "IDEX", "PUNDIX", "BNX"),
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
