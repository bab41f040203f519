"""Signatures and timestamps: the published vectors, and what is accepted when."""

from __future__ import annotations

import pytest

from engine.simulator.binance import auth
from engine.simulator.binance.errors import ApiError

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ORDER = "side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("symbol", "signature"),
    [
        ("LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        (
            "%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96",
            "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
        ),
    ],
)
def test_rest_vectors_hold_in_query_body_and_both(symbol: str, signature: str) -> None:
    text = f"symbol={symbol}&{ORDER}"
    signed = f"{text}&signature={signature}"
    head, tail = f"symbol={symbol}&side=BUY&type=LIMIT", ORDER.removeprefix("side=BUY&type=LIMIT")
    for query, body in ((signed, ""), ("", signed), (head, f"{tail}&signature={signature}")):
        auth.check_signature(SECRET, auth.rest_payload(query, body), signature)
    with pytest.raises(ApiError) as caught:
        auth.check_signature(SECRET, auth.rest_payload(text.replace("0.1", "0.2"), ""), signature)
    assert caught.value.code == -1022


def test_the_websocket_vector_holds() -> None:
    params = {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.01000000",
        "price": "52000.00",
        "recvWindow": "100",
        "timestamp": "1645423376532",
        "apiKey": "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
        "signature": "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
    }
    auth.check_signature(SECRET, auth.websocket_payload(params), params["signature"])


@pytest.mark.parametrize(
    ("timestamp", "window", "accepted"),
    [
        (NOW, None, True),
        (NOW + 999, None, True),
        (NOW + 1000, None, False),
        (NOW - 5000, None, True),
        (NOW - 5001, None, False),
        (NOW - 60_000, "60000", True),
        (NOW * 1000 + 999_999, None, True),
        (NOW * 1000 + 1_000_000, None, False),
        (NOW * 1000 - 1_500, "1.5", True),
        (NOW * 1000 - 1_501, "1.5", False),
    ],
)
def test_a_timestamp_is_accepted_within_its_window(timestamp: int, window: str | None, accepted: bool) -> None:
    params = {"timestamp": str(timestamp)} | ({"recvWindow": window} if window else {})
    if accepted:
        auth.check_time(params, NOW * 1_000_000)
        return
    with pytest.raises(ApiError) as caught:
        auth.check_time(params, NOW * 1_000_000)
    assert caught.value.code == -1021


@pytest.mark.parametrize(("window", "code"), [("60001", -1131), ("1.2345", -1100), ("x", -1100)])
def test_a_bad_window_is_named(window: str, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        auth.check_time({"timestamp": str(NOW), "recvWindow": window}, NOW * 1_000_000)
    assert caught.value.code == code
