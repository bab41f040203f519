"""Requests of the WebSocket API, as they are written and signed."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.connectors.binance.auth import sign, signed_params
from engine.connectors.binance.order_requests import Hmac, OrderRequests
from engine.connectors.errors import FilterFailure
from engine.connectors.settings import Credentials
from engine.connectors.symbols import SymbolMap
from engine.messages import Order, OrderState, OrderType, Side

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
NOW_MS = 1645423376532


def requests(secret: str = SECRET, key: str = KEY) -> OrderRequests:
    symbols = SymbolMap(lambda base, quote: base + quote, ("BTC-USDT", 'A"B-USDT', "１２-USDT"))
    return OrderRequests(symbols, Credentials(api_key=key, api_secret=secret), 5000)


def order(**fields: Any) -> Order:
    known: dict[str, Any] = {
        "client_order_id": "e-1_A",
        "strategy": "s",
        "pair": "BTC-USDT",
        "side": Side.SELL,
        "order_type": OrderType.LIMIT,
        "size": Decimal("1E+2"),
        "price": Decimal("1E-7"),
        "state": OrderState.PENDING_CREATE,
    }
    return Order(**{**known, **fields})


def signed_rightly(text: str) -> dict[str, Any]:
    """The parameters of a request, whose signature is that of all others sorted by name."""
    params = dict(json.loads(text)["params"])
    signature = params.pop("signature")
    assert signed_params(params, SECRET)["signature"] == signature
    return params


def test_the_documented_payload_has_the_documented_signature() -> None:
    payload = (
        f"apiKey={KEY}&price=52000.00&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT&timeInForce=GTC"
        f"&timestamp={NOW_MS}&type=LIMIT"
    )
    assert Hmac(SECRET).sign(payload) == "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"


@given(st.text(min_size=1, max_size=150), st.text(max_size=300))
def test_a_signature_is_the_standard_librarys(secret: str, payload: str) -> None:
    assert Hmac(secret).sign(payload) == sign(secret, payload)


def test_orders_of_all_kinds() -> None:
    of = requests()
    text = of.place(order(), 7, NOW_MS)
    assert {key: json.loads(text)[key] for key in ("id", "method")} == {"id": 7, "method": "order.place"}
    limit = {
        "symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "price": "0.0000001",
        "quantity": "100", "newClientOrderId": "e-1_A", "newOrderRespType": "FULL", "apiKey": KEY, "recvWindow": 5000,
        "timestamp": NOW_MS,
    }  # fmt: skip
    assert signed_rightly(text) == limit
    post_only = {key: value for key, value in limit.items() if key != "timeInForce"} | {"type": "LIMIT_MAKER"}
    assert signed_rightly(of.place(order(order_type=OrderType.LIMIT_MAKER), 8, NOW_MS)) == post_only
    market = {key: value for key, value in post_only.items() if key != "price"} | {"type": "MARKET", "side": "BUY"}
    text = of.place(order(order_type=OrderType.MARKET, price=None, side=Side.BUY), 8, NOW_MS)
    assert signed_rightly(text) == market


def test_a_cancel_names_the_order_by_the_clients_id() -> None:
    text = requests().cancel(order(), 9, NOW_MS)
    assert json.loads(text)["method"] == "order.cancel"
    assert signed_rightly(text) == {
        "symbol": "BTCUSDT",
        "origClientOrderId": "e-1_A",
        "apiKey": KEY,
        "recvWindow": 5000,
        "timestamp": NOW_MS,
    }


def test_a_cancel_names_the_order_by_the_venues_id_where_that_is_known() -> None:
    """An order that a person amended has another client order id."""
    assert signed_rightly(requests().cancel(order(exchange_order_id="28"), 9, NOW_MS)) == {
        "symbol": "BTCUSDT",
        "orderId": 28,
        "apiKey": KEY,
        "recvWindow": 5000,
        "timestamp": NOW_MS,
    }


@pytest.mark.parametrize("strange", ["28&symbol=X", "２８", "-1", "28 "])
def test_what_can_be_no_id_of_the_venues_names_nothing(strange: str) -> None:
    named = signed_rightly(requests().cancel(order(exchange_order_id=strange), 9, NOW_MS))
    assert (named["origClientOrderId"], named.get("orderId")) == ("e-1_A", None)


def test_a_symbol_is_signed_as_it_is_and_never_breaks_out_of_its_place() -> None:
    of = requests()
    assert signed_rightly(of.cancel(order(pair="１２-USDT"), 1, NOW_MS))["symbol"] == "１２USDT"
    with pytest.raises(FilterFailure):
        of.place(order(pair='A"B-USDT'), 1, NOW_MS)


@pytest.mark.parametrize(
    "wrong", [{"client_order_id": 'x"'}, {"client_order_id": ""}, {"client_order_id": "x" * 37}, {"price": None}]
)
def test_what_cannot_be_asked_for_is_not_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(FilterFailure):
        requests().place(order(**wrong), 1, NOW_MS)
