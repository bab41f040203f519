from __future__ import annotations

from decimal import Decimal

import pytest

from engine.connectors.symbols import SymbolMap
from engine.errors import ConfigError
from engine.messages import TradingRule


def rule(pair: str, symbol: str) -> TradingRule:
    base, _, quote = pair.partition("-")
    return TradingRule(
        pair=pair, symbol=symbol, base=base, quote=quote, price_increment=Decimal(1), size_increment=Decimal(1)
    )


def test_pairs_are_spelled_by_habit_until_the_venue_says_otherwise() -> None:
    symbols = SymbolMap(lambda base, quote: f"{base}{quote}", ["BTC-USDT"])
    assert symbols.symbol("BTC-USDT") == "BTCUSDT"
    assert symbols.symbol("ETH-EUR") == "ETHEUR"
    symbols.learn([rule("BTC-USDT", "XBTUSDT"), rule("LTC-BTC", "LTCBTC")])
    assert symbols.symbol("BTC-USDT") == "XBTUSDT"
    assert symbols.pair("XBTUSDT") == "BTC-USDT"
    assert symbols.pair("LTCBTC") == "LTC-BTC"
    assert symbols.pair("nosuch") is None
    assert len(symbols) == 3


@pytest.mark.parametrize("wrong", ["", "BTCUSDT", "-USDT", "BTC-"])
def test_what_is_no_pair_says_so(wrong: str) -> None:
    with pytest.raises(ConfigError, match="BASE-QUOTE"):
        SymbolMap(lambda base, quote: base + quote, [wrong])
