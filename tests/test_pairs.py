from __future__ import annotations

import pytest

from engine.pairs import split_symbol


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("ETHUSDT", "ETH-USDT"),
        ("ethusd", "ETH-USD"),
        ("BCHUSD", "BCH-USD"),
        ("BNBUSD", "BNB-USD"),
        ("BNBBUSD", "BNB-BUSD"),
        ("DOTUSD", "DOT-USD"),
        ("USDTUSD", "USDT-USD"),
        ("SHIBUSD", "SHIB-USD"),
        ("OMGBUSD", "OMG-BUSD"),
        ("yfihusd", "YFI-HUSD"),
        ("ethhusd", "ETH-HUSD"),
        ("ADAEUR", "ADA-EUR"),
        ("GALAEUR", "GALA-EUR"),
        ("BTCAEUR", "BTC-AEUR"),
        ("BTCFDUSD", "BTC-FDUSD"),
        ("USDTIDR", "USDT-IDR"),
        ("BTCU", "BTC-U"),
        ("fil3susdt", "FIL3S-USDT"),
        ("QNTUSD", "QNT-USD"),
        ("ACHUSD", "ACH-USD"),
        ("FLUXUSD", "FLUX-USD"),
        ("NEWCOINTUSD", "NEWCOIN-TUSD"),
        ("币安人生USDT", "币安人生-USDT"),
        ("USDT", None),
        ("", None),
        ("NOTHING", None),
    ],
)
def test_a_symbol_is_split_where_its_base_most_likely_ends(symbol: str, pair: str | None) -> None:
    assert split_symbol(symbol) == pair
