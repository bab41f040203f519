"""An account's own rates."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from engine.connectors.binance.commission import Commission, fee_schema

REPLY = b"""{
    "symbol": "BTCUSDT",
    "standardCommission": {"maker": "0.00000010", "taker": "0.00000020", "buyer": "0.00000030", "seller": "0.00000040"},
    "taxCommission": {"maker": "0.00000112", "taker": "0.00000114", "buyer": "0.00000118", "seller": "0.00000116"},
    "discount": {"enabledForAccount": %s, "enabledForSymbol": true, "discountAsset": "BNB", "discount": "0.75000000"}
}"""


@pytest.mark.parametrize(
    ("enabled", "maker", "taker", "asset"),
    [(b"false", "0.0000028", "0.00000292", ""), (b"true", "0.000002675", "0.00000277", "BNB")],
)
def test_all_commissions_count_and_the_discount_is_on_the_standard_one(
    enabled: bytes, maker: str, taker: str, asset: str
) -> None:
    schema = fee_schema(msgspec.json.decode(REPLY % enabled, type=Commission))
    assert (schema.maker, schema.taker) == (Decimal(maker), Decimal(taker))
    assert (schema.fee_asset, schema.buy_from_returns) == (asset, True)
