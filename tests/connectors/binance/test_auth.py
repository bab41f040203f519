"""The venue's published examples."""

from __future__ import annotations

from engine.connectors.binance.auth import encode, sign, signed_params, signed_query

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
REST = [
    ("symbol", "LTCBTC"),
    ("side", "BUY"),
    ("type", "LIMIT"),
    ("timeInForce", "GTC"),
    ("quantity", "1"),
    ("price", "0.1"),
    ("recvWindow", "5000"),
    ("timestamp", "1499827319559"),
]


def test_a_rest_request_is_signed_over_its_query() -> None:
    expected = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    query = encode(REST)
    assert query.startswith("symbol=LTCBTC&side=BUY&")
    assert sign(SECRET, query) == expected
    assert signed_query(REST, SECRET) == f"{query}&signature={expected}"


def test_values_are_percent_encoded_before_signing() -> None:
    params = [("symbol", "\uff11\uff12\uff13\uff14\uff15\uff16"), *REST[1:]]
    expected = "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"
    query = signed_query(params, SECRET)
    assert query.startswith("symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96&side=BUY")
    assert query.endswith(f"&signature={expected}")
    assert encode([("a", 'x y/["&]')]) == "a=x%20y%2F%5B%22%26%5D"


def test_a_websocket_request_is_signed_over_its_sorted_parameters() -> None:
    params: dict[str, str | int] = {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.01000000",
        "price": "52000.00",
        "recvWindow": 100,
        "timestamp": 1645423376532,
        "apiKey": KEY,
    }
    signed = signed_params(params, SECRET)
    assert signed["signature"] == "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"
    assert {name: signed[name] for name in params} == params
