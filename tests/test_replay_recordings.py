"""What other recordings of the same venues may hold: several connections, snapshots at odd times, other streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.captures import Record
from engine.errors import ConfigError
from engine.replay import Replay, replay

API, STREAMS = "https://api.binance.com", "wss://stream.binance.com:9443"


def replayed(records: list[dict[str, Any]], venue: str = "binance") -> dict[str, Any]:
    session = Replay(venue)
    for record in records:
        session.on_record(Record(**{"t": 1.0, **record}))
    report = session.report(25, 1.0)
    assert report["unparsed"] == 0
    pairs: dict[str, Any] = report["pairs"]
    return pairs


def opened(conn: int, url: str = f"{STREAMS}/ws") -> dict[str, Any]:
    return {"kind": "ws_open", "conn": conn, "url": url}


def closed(conn: int) -> dict[str, Any]:
    return {"kind": "ws_close", "conn": conn}


def frame(data: Any, conn: int = 1, **more: Any) -> dict[str, Any]:
    return {"kind": "ws_in", "conn": conn, "data": json.dumps(data, ensure_ascii=False), **more}


def depth(first: int, last: int, conn: int = 1, symbol: str = "BTCUSDT", **more: Any) -> dict[str, Any]:
    event = {"e": "depthUpdate", "E": 1, "s": symbol, "U": first, "u": last, "b": [[f"{last}", "1"]], "a": [], **more}
    return frame(event, conn)


def snapshot(update_id: int, symbol: str = "BTCUSDT", path: str = "/api/v3/depth") -> dict[str, Any]:
    body = {"lastUpdateId": update_id, "bids": [["1", "1"]], "asks": [["1000", "2"]]}
    return {"kind": "http", "url": f"{API}{path}?symbol={symbol}&limit=1000", "data": json.dumps(body)}


TRADE = {"s": "BTCUSDT", "t": 11, "p": "1.5", "q": "1", "T": 17, "m": True}
SYNCED = [opened(1), depth(9, 10), snapshot(10), depth(11, 12)]


# ------------------------------------------------------------------------------------------------- connections


def test_a_second_connection_takes_over_before_the_first_one_ends() -> None:
    pair = replayed([*SYNCED, opened(2), depth(11, 12, 2), depth(13, 13, 2), closed(1), depth(14, 14, 2)])["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["gaps"], pair["resyncs"]) == (14, True, 0, 0)


def test_one_that_only_repeats_what_is_known_may_take_over_as_well() -> None:
    pair = replayed([*SYNCED, opened(2), depth(11, 12, 2), closed(1), depth(13, 14, 2)])["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["resyncs"]) == (14, True, 0)
    pair = replayed([*SYNCED, opened(2), depth(11, 12, 2), closed(1), closed(2)])["BTC-USDT"]
    assert (pair["synced"], pair["resyncs"]) == (False, 1)


@pytest.mark.parametrize(
    ("streams", "synced"), [("btcusdt@depth@100ms", True), ("btcusdt@trade/btcusdt@depth5/ethusdt@depth", False)]
)
def test_a_connection_that_is_to_carry_the_pair_takes_over_before_its_first_frame(streams: str, synced: bool) -> None:
    second = opened(2, f"{STREAMS}/stream?streams={streams}")
    pair = replayed([*SYNCED, second, closed(1), depth(13, 14, 2)])["BTC-USDT"]
    assert (pair["synced"], pair["resyncs"], pair["gaps"]) == (synced, not synced, 0)
    if synced:
        pair = replayed([*SYNCED, second, closed(1), depth(14, 15, 2)])["BTC-USDT"]
        assert (pair["synced"], pair["gaps"]) == (False, 1), "it had begun too late"


def test_of_two_speeds_of_one_stream_none_costs_the_other_anything() -> None:
    fast, slow = "btcusdt@depth@100ms", "btcusdt@depth"

    def named(stream: str, first: int, last: int) -> dict[str, Any]:
        return frame({"stream": stream, "data": json.loads(depth(first, last)["data"])})

    records = [named(fast, 13, 13), named(fast, 14, 15), named(slow, 11, 15), named(slow, 16, 18), named(fast, 16, 17)]
    pair = replayed([*SYNCED, *records, named(fast, 18, 19)])["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["gaps"]) == (19, True, 0)


@pytest.mark.parametrize(("stream", "updates"), [("depth20@100ms", 0), ("depth@100ms", 2), ("depth", 2)])
def test_bare_best_levels_of_a_contract_are_no_changes(stream: str, updates: int) -> None:
    """They call themselves changes; the address of their connection tells."""
    url = f"wss://fstream.binance.com/ws/btcusdt@{stream}"
    book = {**snapshot(10), "url": "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"}
    records = [opened(1, url), depth(9, 10, pu=8), book, depth(11, 12, pu=10), depth(13, 13, pu=12)]
    pairs = replayed([*records, frame({"e": "trade"} | TRADE, 2)], "binance_perpetual")
    assert (pairs["BTC-USDT"]["updates"], pairs["BTC-USDT"]["synced"]) == (updates, bool(updates))


@pytest.mark.parametrize(
    ("asked", "updates"),
    [
        (["btcusdt@depth20@100ms"], 0),
        (["ethusdt@depth", "btcusdt@depth5"], 0),
        (["btcusdt@depth5", "btcusdt@depth@100ms"], 2),
        (["btcusdt@aggTrade"], 2),
    ],
)
def test_bare_best_levels_are_also_told_by_what_was_subscribed_to(asked: list[str], updates: int) -> None:
    book = {**snapshot(10), "url": "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"}
    url = "wss://fstream.binance.com/ws"
    texts = [
        {"method": "SUBSCRIBE", "params": ["btcusdt@depth"], "id": 1},
        {"method": "UNSUBSCRIBE", "params": ["btcusdt@depth"]},
    ]
    texts = [*texts, {"method": "SUBSCRIBE", "params": asked, "id": 2}]
    sent = [{"kind": "ws_out", "conn": 1, "data": json.dumps(text)} for text in texts]
    broken = {"kind": "ws_out", "conn": 1, "data": "SUBSCRIBE"}
    records = [opened(1, url), *sent, broken, depth(9, 10, pu=8), book, depth(11, 12, pu=10), depth(13, 13, pu=12)]
    pairs = replayed([*records, frame({"e": "trade"} | TRADE, 2)], "binance_perpetual")
    assert (pairs["BTC-USDT"]["updates"], pairs["BTC-USDT"]["synced"]) == (updates, bool(updates))


def test_without_numbers_a_book_follows_the_connection_that_its_snapshot_came_by() -> None:
    def book(conn: int, bid: str) -> dict[str, Any]:
        levels = {"bids": [[bid, "1"]], "asks": [["100", "1"]]}
        return frame({"type": "snapshot", "product_id": "BTC-USD", **levels}, conn)

    def update(conn: int, bid: str, size: str = "1") -> dict[str, Any]:
        return frame({"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", bid, size]]}, conn)

    records = [opened(1), book(1, "50"), opened(2), book(2, "60"), update(1, "70"), update(2, "61")]
    pair = replayed(records, "coinbase_exchange")["BTC-USD"]
    assert [price for price, _ in pair["bids"]] == ["61", "60"], "the first connection lags behind"
    pair = replayed([*records, closed(1), update(2, "62")], "coinbase_exchange")["BTC-USD"]
    assert (pair["bids"][0][0], pair["synced"], pair["resyncs"]) == ("62", True, 0)
    pair = replayed([*records, closed(2)], "coinbase_exchange")["BTC-USD"]
    assert (pair["synced"], pair["resyncs"]) == (False, 1)
    pair = replayed([*records, closed(2), opened(3), book(3, "65")], "coinbase_exchange")["BTC-USD"]
    assert (pair["bids"][0][0], pair["synced"]) == ("65", True)
    # A connection that brings changes while the book waits for a snapshot does not keep it in sync later on.
    waiting = [*records, closed(2), update(1, "71"), opened(3), book(3, "65"), closed(3), update(1, "72")]
    pair = replayed(waiting, "coinbase_exchange")["BTC-USD"]
    assert (pair["synced"], pair["resyncs"]) == (False, 2)


# --------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_recorded_between_a_loss_and_the_diff_that_shows_it_is_used() -> None:
    pair = replayed([*SYNCED, snapshot(15), depth(15, 16)])["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["gaps"], pair["resyncs"]) == (16, True, 1, 1)


def test_a_snapshot_of_before_its_stream_is_no_loss_in_it() -> None:
    """The old one once more, recorded after the next connection's opening and before its first diff."""
    again = opened(2, f"{STREAMS}/stream?streams=btcusdt@depth@100ms")
    late = [*SYNCED, closed(1), again, snapshot(10), depth(20, 21, 2)]
    pair = replayed(late)["BTC-USDT"]
    assert (pair["synced"], pair["gaps"]) == (False, 0)
    pair = replayed([*late, snapshot(21), depth(22, 22, 2)])["BTC-USDT"]
    assert (pair["synced"], pair["sequence"], pair["gaps"]) == (True, 22, 0)
    pair = replayed([*late, snapshot(21), depth(24, 24, 2)])["BTC-USDT"]
    assert (pair["synced"], pair["gaps"]) == (False, 1), "what is missing behind the first diff is lost"
    pair = replayed([*SYNCED, closed(1), again, snapshot(19), depth(20, 21, 2), depth(23, 23, 2)])["BTC-USDT"]
    assert (pair["synced"], pair["gaps"]) == (False, 1)


def test_a_snapshot_that_nobody_needs_changes_nothing() -> None:
    pair = replayed([*SYNCED, snapshot(11), snapshot(12), depth(13, 13)])["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["updates"], pair["gaps"]) == (13, True, 2, 0)
    assert [price for price, _ in pair["bids"]] == ["13", "12", "1"]


def test_no_snapshot_no_book() -> None:
    pair = replayed([opened(1), depth(9, 10), depth(11, 12)])["BTC-USDT"]
    assert (pair["updates"], pair["gaps"], pair["synced"], pair["bids"]) == (0, 0, False, [])


def test_old_addresses_of_snapshots_and_lists_are_known() -> None:
    filters = [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}, {"filterType": "LOT_SIZE", "stepSize": "0.1"}]
    market = {"symbol": "BTCUSDT", "status": "BREAK", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
    rules = {"kind": "http", "url": f"{API}/api/v1/exchangeInfo", "data": json.dumps({"symbols": [market]})}
    pair = replayed([rules, opened(1), depth(9, 10), snapshot(10, path="/api/v1/depth"), depth(11, 11)])["BTC-USDT"]
    assert (pair["sequence"], pair["bids"][0]) == (11, ["11.00", "1.0"])


def test_changes_of_a_book_that_was_asked_for_on_the_same_connection() -> None:
    """HTX ``mbp``, after a trade of the same pair."""
    trade = {"price": 10.5, "amount": 1, "direction": "buy", "ts": 1, "tradeId": 3}

    def change(number: int, previous: int, bid: float) -> dict[str, Any]:
        tick = {"seqNum": number, "prevSeqNum": previous, "bids": [[bid, 1]], "asks": []}
        return frame({"ch": "market.btcusdt.mbp.150", "ts": 1, "tick": tick})

    def whole(number: int) -> dict[str, Any]:
        data = {"seqNum": number, "bids": [[10, 1]], "asks": [[20, 1]]}
        return frame({"id": "a", "rep": "market.btcusdt.mbp.150", "status": "ok", "data": data})

    first = frame({"ch": "market.btcusdt.trade.detail", "ts": 1, "tick": {"data": [trade]}})
    records = [opened(1), first, change(3, 2, 11), change(5, 3, 12), whole(3), change(6, 5, 13)]
    pair = replayed(records, "htx")["BTC-USDT"]
    assert (pair["sequence"], pair["synced"], pair["gaps"], pair["updates"]) == (6, True, 0, 2)
    assert [float(price) for price, _ in pair["bids"]] == [13, 12, 10]
    pair = replayed([*records, change(9, 8, 14)], "htx")["BTC-USDT"]
    assert (pair["gaps"], pair["synced"]) == (1, False)
    pair = replayed([*records, change(9, 8, 14), whole(8)], "htx")["BTC-USDT"]
    assert (pair["gaps"], pair["synced"], pair["sequence"]) == (1, True, 9)


def test_best_quotes_show_levels_that_are_wrong_under_right_ids() -> None:
    def quoted(update_id: int, bid: str) -> dict[str, Any]:
        return frame({"u": update_id, "s": "BTCUSDT", "b": bid, "B": "1", "a": "1000", "A": "2"})

    right = [quoted(12, "12"), depth(13, 13), quoted(13, "13")]
    pair = replayed([*SYNCED, *right])["BTC-USDT"]
    assert (pair["bbo_checked"], pair["bbo_equal"], pair["synced"]) == (2, 2, True)
    wrong = [*SYNCED, quoted(12, "11"), depth(13, 13), quoted(13, "14")]
    pair = replayed(wrong)["BTC-USDT"]
    assert (pair["bbo_checked"], pair["bbo_equal"], pair["synced"], pair["resyncs"]) == (2, 0, False, 1)


# ----------------------------------------------------------------------------------------------------- symbols


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("ETHUSD", "ETH-USD"),
        ("1000SATSUSDT", "1000SATS-USDT"),
        ("币安人生USDT", "币安人生-USDT"),
        ("ADAEUR", "ADA-EUR"),
    ],
)
def test_symbols_that_are_spelled_oddly(symbol: str, pair: str) -> None:
    url = f"{STREAMS}/stream?streams={symbol.lower()}@depth@100ms"
    event = json.loads(depth(11, 12, symbol=symbol)["data"])
    combined = frame({"stream": f"{symbol.lower()}@depth@100ms", "data": event})
    found = replayed([opened(1, url), depth(9, 10, symbol=symbol), snapshot(10, symbol), combined])
    assert (list(found), found[pair]["symbol"], found[pair]["synced"]) == ([pair], symbol, True)


def test_increments_that_no_book_can_begin_with_are_none() -> None:
    market = {"symbol": "BTC-USDT", "baseCurrency": "BTC", "quoteCurrency": "USDT"}
    market |= {"priceIncrement": "1e-35", "baseIncrement": "0.1"}
    rules = {
        "kind": "http",
        "url": "https://x/api/v1/symbols",
        "data": json.dumps({"code": "200000", "data": [market]}),
    }
    update = {"symbol": "BTC-USDT", "sequenceStart": 11, "sequenceEnd": 11}
    update |= {"changes": {"asks": [["0.00000001234", "5E+2", "11"]], "bids": []}}
    topic = {"type": "message", "topic": "/market/level2:BTC-USDT", "subject": "trade.l2update", "data": update}
    body = {"code": "200000", "data": {"sequence": "10", "bids": [], "asks": [["2e-8", "3"]]}}
    book = {
        "kind": "http",
        "url": "https://x/api/v1/market/orderbook/level2_20?symbol=BTC-USDT",
        "data": json.dumps(body),
    }
    pair = replayed([rules, frame(topic), book], "kucoin")["BTC-USDT"]
    assert (pair["synced"], pair["bids"]) == (True, [])
    assert [level[0] for level in pair["asks"]] == ["0.00000001234", "0.00000002000"]


# ------------------------------------------------------------------------------------------------------ trades


def test_trades_are_counted_once_where_two_streams_tell_of_them() -> None:
    aggregate = {"e": "aggTrade", "s": "BTCUSDT", "a": 3, "p": "1.5", "q": "2", "f": 11, "l": 12, "T": 17, "m": True}
    single = {"e": "trade", "s": "BTCUSDT", "t": 11, "p": "1.5", "q": "1", "T": 17, "m": True}
    for venue in ("binance", "binance_perpetual"):
        assert replayed([frame(aggregate)] * 2, venue)["BTC-USDT"]["trades"] == 2
        assert replayed([frame(single), frame(aggregate), frame(single)], venue)["BTC-USDT"]["trades"] == 2


@pytest.mark.parametrize("t", [-1.0, 1.7e18])
def test_a_time_that_is_none_is_no_capture(t: float, tmp_path: Any) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps({**depth(1, 2), "t": t}))
    with pytest.raises(ConfigError, match=r"record 1: t .* is no time"):
        replay(path, "binance")


@pytest.mark.parametrize(
    ("venue", "path", "body"),
    [
        ("binance", "/api/v3/depth?symbol=BTCUSDT", '{"code":-1121,"msg":"Invalid symbol."}'),
        ("binance_perpetual", "/fapi/v1/depth?symbol=BTCUSDT", '{"code":-1003,"msg":"Too many requests"}'),
        ("kraken_v1", "/0/public/AssetPairs", '{"error":["EGeneral:Too many requests"]}'),
        ("coinbase_exchange", "/products", '{"message":"Public rate limit exceeded"}'),
        (
            "kucoin",
            "/api/v1/market/orderbook/level2_100?symbol=BTC-USDT",
            '{"code":"429000","msg":"Too Many Requests"}',
        ),
        (
            "htx",
            "/v1/common/symbols",
            '{"status":"error","err-code":"gateway-internal-error","err-msg":"x","data":null}',
        ),
    ],
)
def test_a_reply_that_says_no_without_a_status_is_read(venue: str, path: str, body: str) -> None:
    assert replayed([{"kind": "http", "url": f"https://venue.example{path}", "data": body}], venue) == {}


def test_fields_that_are_null_are_not_there(tmp_path: Any) -> None:
    bare = dict.fromkeys(("conn", "url", "data", "data64", "status", "method", "sent"))
    path = tmp_path / "nulls.jsonl"
    path.write_text("".join(json.dumps({**bare, "t": 1, **record}) + "\n" for record in SYNCED))
    pair = replay(path, "binance")["pairs"]["BTC-USDT"]
    assert (pair["sequence"], pair["synced"]) == (12, True)
    path.write_text(json.dumps({**bare, "t": None, "kind": "ws_open"}))
    with pytest.raises(ConfigError, match="line 1"):
        replay(path, "binance")
