from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.connectors.base import Ack, UserDataProtocol, UserRefused, UserSubscribed, UserTerminated, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings, Credentials
from engine.messages import (
    Balance,
    OrderState,
    OrderType,
    Reason,
    Side,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)

MS = 1_000_000


@pytest.fixture
def protocol() -> UserDataProtocol:
    key = Credentials(api_key="key", api_secret="secret")
    settings = ConnectorSettings(connector="b", venue="binance", pairs=("ETH-BTC",), credentials=key)
    return create(settings).user_data()


def report(**fields: Any) -> bytes:
    """A report of the documentation's shape."""
    event = {
        "e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": "mUvoqJxFIILMdfAW5iGSOW", "S": "BUY",
        "o": "LIMIT", "f": "GTC", "q": "1.00000000", "p": "0.10264410", "P": "0.00000000", "F": "0.00000000",
        "g": -1, "C": "", "x": "NEW", "X": "NEW", "r": "NONE", "i": 4293153, "l": "0.00000000", "z": "0.00000000",
        "L": "0.00000000", "n": "0", "N": None, "T": 1499405658657, "t": -1, "v": 3, "I": 8641984, "w": True,
        "m": False, "M": False, "O": 1499405658657, "Z": "0.00000000", "Y": "0.00000000", "Q": "0.00000000",
        "W": 1499405658657, "V": "NONE", **fields,
    }  # fmt: skip
    return json.dumps({"subscriptionId": 0, "event": event}).encode()


def update(protocol: UserDataProtocol, **fields: Any) -> VenueOrderUpdate:
    (event,) = protocol.feed(report(**fields))
    assert isinstance(event, VenueOrderUpdate)
    return event


def test_the_subscription_is_signed_with_the_venues_time(protocol: UserDataProtocol) -> None:
    assert protocol.url == "wss://ws-api.binance.com:443/ws-api/v3"
    (text,) = protocol.opening(1747385641636)
    request = json.loads(text)
    assert request["method"] == "userDataStream.subscribe.signature"
    assert request["params"]["timestamp"] == 1747385641636
    assert request["params"]["apiKey"] == "key"
    assert len(request["params"]["signature"]) == 64
    assert "secret" not in text


def test_a_new_order(protocol: UserDataProtocol) -> None:
    assert update(protocol) == VenueOrderUpdate(
        client_order_id="mUvoqJxFIILMdfAW5iGSOW",
        exchange_order_id="4293153",
        pair="ETH-BTC",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal("1.00000000"),
        price=Decimal("0.10264410"),
        state=OrderState.OPEN,
        filled=Decimal(0),
        venue_time_ns=1499405658657 * MS,
    )


def test_a_cancelled_order_is_known_by_its_own_id_not_the_cancels(protocol: UserDataProtocol) -> None:
    found = update(protocol, x="CANCELED", X="CANCELED", c="of-the-cancel", C="mine")
    assert (found.client_order_id, found.state, found.fill) == ("mine", OrderState.CANCELLED, None)


def test_a_trade_carries_its_fill(protocol: UserDataProtocol) -> None:
    found = update(
        protocol, x="TRADE", X="PARTIALLY_FILLED", l="0.4", z="0.6", L="0.1026", n="0.0004", N="BNB", t=77, m=True
    )
    assert (found.state, found.filled) == (OrderState.PARTIALLY_FILLED, Decimal("0.6"))
    fill = found.fill
    assert fill is not None
    assert (fill.trade_id, fill.size, fill.price, fill.is_maker) == ("77", Decimal("0.4"), Decimal("0.1026"), True)
    assert (fill.fee, fill.fee_asset, fill.time_ns) == (Decimal("0.0004"), "BNB", 1499405658657 * MS)


@pytest.mark.parametrize(
    ("told", "asset"),
    [
        ({"n": "0", "N": None}, "BTC"),
        ({"n": "0.00000000", "N": "BNB"}, "BNB"),
        ({"n": None, "N": None}, ""),
        ({"n": "0.1", "N": None}, ""),
    ],
)
def test_a_commission_of_nothing_is_told_though_its_asset_is_not(
    protocol: UserDataProtocol, told: dict[str, str | None], asset: str
) -> None:
    """On a pair without fees; of a fill whose fee is not told at all the account reckons one (asset "")."""
    fill = update(protocol, x="TRADE", X="FILLED", l="1", z="1", L="0.1", t=1, **told).fill
    assert fill is not None
    assert (fill.fee, fill.fee_asset) == (Decimal(told["n"] or 0), asset)


@pytest.mark.parametrize(
    ("execution", "status", "state"),
    [
        ("NEW", "PENDING_NEW", OrderState.OPEN),
        ("REPLACED", "NEW", OrderState.OPEN),
        ("EXPIRED", "EXPIRED", OrderState.EXPIRED),
        ("TRADE_PREVENTION", "EXPIRED_IN_MATCH", OrderState.EXPIRED),
        ("REJECTED", "REJECTED", OrderState.FAILED),
    ],
)
def test_states(protocol: UserDataProtocol, execution: str, status: str, state: OrderState) -> None:
    found = update(protocol, x=execution, X=status, l="0.5", L="1")
    assert found.state is state
    assert found.fill is None


def test_a_rejection_has_its_reason(protocol: UserDataProtocol) -> None:
    found = update(protocol, x="REJECTED", X="REJECTED", r="WOULD_MATCH_IMMEDIATELY")
    assert (found.reason, found.detail) == (Reason.WOULD_CROSS, "WOULD_MATCH_IMMEDIATELY")


def test_orders_of_others(protocol: UserDataProtocol) -> None:
    found = update(protocol, o="STOP_LOSS_LIMIT", s="XRPUSDT")
    assert (found.order_type, found.pair, found.detail) == (OrderType.LIMIT, "XRPUSDT", "STOP_LOSS_LIMIT")
    market = update(protocol, o="MARKET", p="0.00000000", T=0)
    assert market.price is None
    assert market.venue_time_ns == 1499405658658 * MS


def test_balances(protocol: UserDataProtocol) -> None:
    event = {
        "e": "outboundAccountPosition",
        "E": 1564034571105,
        "u": 1564034571073,
        "B": [{"a": "ETH", "f": "10000.0", "l": "1.5"}],
    }
    assert list(protocol.feed(json.dumps({"subscriptionId": 0, "event": event}))) == [
        VenueBalanceUpdate(
            balances={"ETH": Balance(total=Decimal("10001.5"), available=Decimal("10000.0"))},
            venue_time_ns=1564034571073 * MS,
        )
    ]


def test_events_without_the_subscriptions_wrapper(protocol: UserDataProtocol) -> None:
    bare = json.dumps(json.loads(report())["event"])
    assert list(protocol.feed(bare)) == [update(protocol)]


def test_answers(protocol: UserDataProtocol) -> None:
    done = b'{"id":"subscribe","status":200,"result":{"subscriptionId":0},"rateLimits":[]}'
    assert list(protocol.feed(done)) == [UserSubscribed()]
    assert list(protocol.feed(b'{"id":"ping","status":200,"result":{}}')) == [Ack("ping")]
    (notice,) = protocol.feed(b'{"id":"ping","status":400,"error":{"code":-1100,"msg":"no"}}')
    assert notice == VenueNotice("-1100", "no")


@pytest.mark.parametrize(
    ("code", "retryable", "clock"),
    [(-2015, False, False), (-1022, False, False), (-1021, True, True), (-1003, True, False), (-1000, True, False)],
)
def test_refused_subscriptions(protocol: UserDataProtocol, code: int, retryable: bool, clock: bool) -> None:
    frame = {"id": "subscribe", "status": 400, "error": {"code": code, "msg": "because"}}
    (refused,) = protocol.feed(json.dumps(frame))
    silence_s = 10.0 if code == -1003 else 0.0
    assert refused == UserRefused(f"because (code {code})", retryable=retryable, clock=clock, silence_s=silence_s)


@pytest.mark.parametrize(
    ("status", "data", "silence_s"),
    [
        (418, {"serverTime": 1_700_000_000_000, "retryAfter": 1_700_000_300_000}, 300.0),
        (429, {"serverTime": 1_700_000_000_000, "retryAfter": 1_700_000_007_500}, 7.5),
        (418, {"retryAfter": 1_700_000_300_000}, 120.0),
        (418, None, 120.0),
        (429, None, 10.0),
    ],
)
def test_a_refused_subscription_says_how_long_the_venue_wants_silence(
    protocol: UserDataProtocol, status: int, data: dict[str, int] | None, silence_s: float
) -> None:
    error = {"code": -1003, "msg": "Way too many requests; IP banned."} | ({"data": data} if data else {})
    (refused,) = protocol.feed(json.dumps({"id": "subscribe", "status": status, "error": error}))
    assert isinstance(refused, UserRefused)
    assert (refused.silence_s, refused.retryable) == (silence_s, True)


def test_a_refusal_that_names_no_request_is_the_subscriptions(protocol: UserDataProtocol) -> None:
    (refused,) = protocol.feed(b'{"id":null,"status":429,"error":{"code":-1003,"msg":"slow down"}}')
    assert isinstance(refused, UserRefused)


def test_ends_and_notices(protocol: UserDataProtocol) -> None:
    (ended,) = protocol.feed(b'{"subscriptionId":0,"event":{"e":"eventStreamTerminated","E":1}}')
    assert isinstance(ended, UserTerminated)
    (notice,) = protocol.feed(b'{"event":{"e":"serverShutdown","E":1}}')
    assert isinstance(notice, VenueNotice)
    assert notice.reconnect
    (notice,) = protocol.feed(b'{"subscriptionId":0,"event":{"e":"fromTheFuture"}}')
    assert isinstance(notice, VenueNotice)
    assert not notice.reconnect
    for kind in ("balanceUpdate", "listStatus"):
        assert list(protocol.feed(json.dumps({"subscriptionId": 0, "event": {"e": kind, "d": "1"}}))) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        report(X="FANTASY"),
        report(S="HOLD"),
        report(o="DREAM"),
        report(q="x"),
        report(i="1"),
    ],
)
def test_what_cannot_be_read_says_so(protocol: UserDataProtocol, frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(frame)


def test_a_balance_of_many_digits_is_exact(protocol: UserDataProtocol) -> None:
    told = {"a": "TOKEN", "f": "123456789012345678901234567890.00000001", "l": "1.00000001"}
    frame = {"event": {"e": "outboundAccountPosition", "E": 2, "u": 1, "B": [told]}}
    (update,) = protocol.feed(json.dumps(frame))
    assert isinstance(update, VenueBalanceUpdate)
    assert update.balances["TOKEN"].total == Decimal("123456789012345678901234567891.00000002")


@pytest.mark.parametrize("time", [-1, 1_700_000_000_000_000_000, 2**63, 10**30])
def test_a_time_that_nothing_can_have_is_a_malformed_frame(protocol: UserDataProtocol, time: int) -> None:
    told = {"e": "outboundAccountPosition", "E": 2, "u": time, "B": []}
    with pytest.raises(MalformedFrame):
        protocol.feed(json.dumps({"event": told}))
