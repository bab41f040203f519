"""Recorded traffic: reading files, the books that come of it, and the command."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import zstandard

from engine import cli
from engine.captures import Record, read_capture
from engine.errors import ConfigError
from engine.replay import Replay, replay
from tests.captures import captured

REST, WS = "https://api.binance.com/api/v3", "wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms"


def depth(first: int, last: int, bids: Iterable[tuple[str, str]] = (), symbol: str = "BTCUSDT") -> dict[str, Any]:
    event = {"e": "depthUpdate", "E": 1, "s": symbol, "U": first, "u": last, "b": list(bids), "a": []}
    data = json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": event})
    return {"t": 1.0, "kind": "ws_in", "conn": 1, "data": data}


def snapshot(update_id: int, symbol: str = "BTCUSDT", **more: Any) -> dict[str, Any]:
    body = {"lastUpdateId": update_id, "bids": [["100.10", "1"]], "asks": [["100.20", "2.5"]]}
    return {
        "t": 1.0,
        "kind": "http",
        "url": f"{REST}/depth?symbol={symbol}&limit=1000",
        "data": json.dumps(body),
        **more,
    }


OPEN = {"t": 0.5, "kind": "ws_open", "conn": 1, "url": WS}
CLOSE = {"t": 2.0, "kind": "ws_close", "conn": 1}
STORY = [OPEN, depth(9, 10), snapshot(10), depth(11, 12, [("100.15", "3")]), depth(13, 13)]


def replayed(records: Iterable[dict[str, Any]], venue: str = "binance") -> dict[str, Any]:
    session = Replay(venue)
    for record in records:
        session.on_record(Record(**record))
    return session.report(25, 1.0)


def write(path: Path, records: Iterable[dict[str, Any]]) -> bytes:
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(content)
    return content


# ------------------------------------------------------------------------------------------------------- the core


def test_a_book_is_rebuilt_and_named_without_the_venue_s_list() -> None:
    report = replayed(STORY)
    assert (report["venue"], report["frames"], report["unparsed"]) == ("binance", 3, 0)
    pair = report["pairs"]["BTC-USDT"]
    assert (pair["symbol"], pair["updates"], pair["sequence"], pair["synced"]) == ("BTCUSDT", 2, 13, True)
    assert [[float(text) for text in level] for level in pair["bids"]] == [[100.15, 3], [100.1, 1]]
    assert pair["asks"][0][0].startswith("100.2")


def test_the_venue_s_list_gives_the_names_and_where_the_numbers_begin() -> None:
    filters = [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]
    market = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTCU", "quoteAsset": "SDT", "filters": filters}
    rules = {"t": 0.1, "kind": "http", "url": f"{REST}/exchangeInfo", "data": json.dumps({"symbols": [market]})}
    (pair,) = replayed([rules, *STORY])["pairs"].items()
    assert pair[0] == "BTCU-SDT"
    assert pair[1]["bids"][0] == ["100.15", "3.000"]


def test_after_a_gap_a_pair_waits_for_a_newer_snapshot() -> None:
    records = [*STORY, depth(16, 17)]
    pair = replayed(records)["pairs"]["BTC-USDT"]
    assert (pair["gaps"], pair["resyncs"], pair["synced"]) == (1, 1, False)
    pair = replayed([*records, snapshot(15), depth(18, 18)])["pairs"]["BTC-USDT"]
    assert (pair["gaps"], pair["synced"], pair["sequence"]) == (1, True, 18)
    assert not replayed([*records, snapshot(14)])["pairs"]["BTC-USDT"]["synced"]


def test_a_snapshot_taken_before_the_stream_serves_if_it_connects() -> None:
    assert replayed([snapshot(10), OPEN, depth(10, 12)])["pairs"]["BTC-USDT"]["synced"]
    pair = replayed([snapshot(10), OPEN, depth(12, 13)])["pairs"]["BTC-USDT"]
    assert (pair["synced"], pair["gaps"]) == (False, 0)


def test_a_connection_that_closes_takes_its_books_along_and_the_next_one_begins_anew() -> None:
    assert not replayed([*STORY, CLOSE])["pairs"]["BTC-USDT"]["synced"]
    again = {**OPEN, "conn": 2}
    late = {**depth(21, 22), "conn": 2}
    pair = replayed([*STORY, CLOSE, again, late, snapshot(20)])["pairs"]["BTC-USDT"]
    assert (pair["synced"], pair["sequence"], pair["gaps"], pair["resyncs"]) == (True, 22, 0, 1)


def test_another_connection_s_end_costs_a_book_nothing() -> None:
    trades = {"t": 0.1, "kind": "ws_open", "conn": 7, "url": "wss://stream.binance.com:9443/ws"}
    assert replayed([trades, *STORY, {**CLOSE, "conn": 7}])["pairs"]["BTC-USDT"]["synced"]


def test_a_recording_may_begin_in_the_middle_of_a_connection_without_an_address() -> None:
    assert replayed([depth(9, 10), snapshot(10), depth(11, 11)])["pairs"]["BTC-USDT"]["synced"]


def test_what_cannot_be_read_is_counted_and_costs_nothing_else() -> None:
    broken = {"t": 1.0, "kind": "ws_in", "conn": 1, "data": "{"}
    failed = snapshot(99, status=429)
    said = {**snapshot(99), "data": '{"code":-1003,"msg":"too many"}'}
    odd = {**snapshot(99), "data": '{"lastUpdateId":99}'}
    report = replayed([*STORY, broken, failed, said, odd, {"t": 3.0, "kind": "note", "data": "hello"}])
    assert (report["unparsed"], report["pairs"]["BTC-USDT"]["synced"]) == (2, True)


def test_pairs_of_trades_alone_are_listed_out_of_sync() -> None:
    trade = {"e": "trade", "E": 1, "s": "ETHBTC", "t": 7, "p": "0.05", "q": "2", "T": 3, "m": True}
    record = {"t": 1.0, "kind": "ws_in", "conn": 1, "data": json.dumps(trade)}
    pair = replayed([OPEN, record, record])["pairs"]["ETH-BTC"]
    assert (pair["trades"], pair["updates"], pair["synced"], pair["bids"]) == (2, 0, False, [])


@pytest.mark.parametrize("symbol", ["-BTCUSDT", "USDT", "", "-", "--", "BTC-USDT-"])
def test_a_symbol_that_can_be_no_pair_is_nobody_s(symbol: str) -> None:
    report = replayed([*STORY, depth(14, 15, symbol=symbol)])
    assert (list(report["pairs"]), report["pairs"]["BTC-USDT"]["sequence"]) == (["BTC-USDT"], 13)


def test_binary_frames_are_base64() -> None:
    text = '{"ch":"market.ethbtc.depth.step0","ts":1,"tick":{"bids":[[5.0E-2,1]],"asks":[],"version":3,"ts":1}}'
    record = {"t": 1.0, "kind": "ws_in", "conn": 1, "data64": _base64(gzip.compress(text.encode()))}
    pair = replayed([record], "htx")["pairs"]["ETH-BTC"]
    assert (pair["sequence"], pair["synced"]) == (3, True)
    with pytest.raises(ValueError, match="data64"):
        Replay("htx").on_record(Record(1.0, "ws_in", data64="!"))


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode()


# ----------------------------------------------------------------------------------------------------------- files


def test_plain_gzip_and_zstd_hold_the_same(tmp_path: Path) -> None:
    content = write(tmp_path / "a.jsonl", STORY)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content[:50]) + gzip.compress(content[50:]))
    compressor = zstandard.ZstdCompressor()
    (tmp_path / "a.jsonl.zst").write_bytes(compressor.compress(content[:50]) + compressor.compress(content[50:]))
    reports = [replay(path, "binance") for path in sorted(tmp_path.iterdir())]
    assert len(reports) == 3
    assert all(report["pairs"] == reports[0]["pairs"] and report["frames"] == 3 for report in reports)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no record of traffic"),
        (b'{"t":1,"kind":"music"}\n', "no record of traffic"),
        (b"hello\n", "line 1"),
        (json.dumps(OPEN).encode() + b'\n{"t":1}\n', "line 2"),
        (b'{"t":1,"kind":"ws_in","data":"\xff"}\n', "line 1"),
        (gzip.compress(json.dumps(OPEN).encode() * 9)[:-9], "damaged"),
        (zstandard.compress(json.dumps(OPEN).encode() * 9)[:-3], "damaged after line 0.*too early"),
        (zstandard.compress(json.dumps(OPEN).encode() + b"\n") + b"junk!", "damaged"),
        (b'{"t":1,"kind":"ws_in","data64":"!"}\n', "record 1"),
    ],
)
def test_a_file_that_is_no_capture_says_where(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refused:
        replay(path, "binance")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(
    tmp_path: Path, pack: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.jsonl"
    lines = write(whole, STORY).splitlines(keepends=True)
    noise = [random.Random(n).randbytes(99).hex() for n in range(9)]
    more = write(tmp_path / "more.jsonl", [{"t": 1, "kind": "ws_out", "data": data} for data in noise])
    path = tmp_path / "cut"
    path.write_bytes(pack(b"".join(lines)) + pack(more)[:-99])
    report = replay(path, "binance")
    assert report["pairs"] == replay(whole, "binance")["pairs"]
    assert len(lines) <= report["cut_off_after_line"] < len(lines) + 9
    assert cli.main(["replay", str(path), "--venue", "binance", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["cut_off_after_line"] == report["cut_off_after_line"]
    assert f"{path} ends in the middle of the record after line" in said.err


def test_a_line_that_is_none_is_no_cut(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(json.dumps(OPEN).encode() + b'\n{"t":1,"ki\n')
    with pytest.raises(ConfigError, match="line 2"):
        replay(path, "binance")
    path.write_bytes(json.dumps(OPEN).encode())
    assert replay(path, "binance")["cut_off_after_line"] is None


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long"
    size = len(write(path, [OPEN] * 3000))
    told: list[int] = []
    assert len(list(read_capture(path, told.append))) == 3000
    assert len(told) == 3
    assert 0 < told[0] <= size


# --------------------------------------------------------------------------------------------------------- command


def test_the_command_prints_json_or_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    write(path, STORY)
    assert cli.main(["replay", str(path), "--venue", "binance", "--json", "--depth", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["venue", "frames", "unparsed", "seconds", "pairs", "cut_off_after_line"]
    assert list(report["pairs"]["BTC-USDT"]) == [
        *("symbol", "updates", "gaps", "resyncs", "rescales", "checksums_ok", "checksums_failed"),
        *("bbo_checked", "bbo_equal", "trades", "sequence", "synced", "bids", "asks"),
    ]
    assert len(report["pairs"]["BTC-USDT"]["bids"]) == 1
    assert cli.main(["replay", str(path), "--venue", "binance"]) == 0
    assert "BTC-USDT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.jsonl", "--venue", "binance"], "there is no file"),
        ([__file__, "--venue", "binance"], "line 1"),
        ([__file__, "--venue", "mtgox"], "mtgox"),
        ([__file__], "--venue"),
        ([__file__, "--venue", "binance", "--depth", "0"], "--depth"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine", "replay", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


# -------------------------------------------------------------------------------------------------- real recordings


def of_capture(name: str, venue: str) -> dict[str, Any]:
    report = replay(captured(name), venue)
    assert report["unparsed"] == 0
    return report


def gapless(report: dict[str, Any]) -> dict[str, Any]:
    pairs: dict[str, Any] = report["pairs"]
    assert all(pair["synced"] and pair["gaps"] == pair["resyncs"] == 0 for pair in pairs.values())
    for pair in pairs.values():
        assert float(pair["bids"][0][0]) < float(pair["asks"][0][0])
    return pairs


@pytest.mark.capture
@pytest.mark.parametrize(
    ("name", "venue", "count"),
    [
        ("binance_spot_ethusdt_2024", "binance", 1),
        ("binance_us_2021", "binance:us", 4),
        ("binance_usdm_2021", "binance_perpetual", 4),
        ("kucoin_2021", "kucoin", 9),
    ],
)
def test_every_quote_of_a_recorded_feed_is_the_book_s(name: str, venue: str, count: int) -> None:
    pairs = gapless(of_capture(name, venue))
    assert len(pairs) == count
    assert all(pair["bbo_checked"] == pair["bbo_equal"] > 0 for pair in pairs.values())


@pytest.mark.capture
@pytest.mark.parametrize(
    ("name", "venue", "count", "sums"), [("kraken_v1_2021", "kraken_v1", 5, 1622), ("okx_2022", "okx", 2, 197)]
)
def test_every_checksum_of_a_recorded_feed_holds(name: str, venue: str, count: int, sums: int) -> None:
    pairs = gapless(of_capture(name, venue))
    assert len(pairs) == count
    assert all(pair["checksums_failed"] == 0 for pair in pairs.values())
    assert sum(pair["checksums_ok"] for pair in pairs.values()) == sums


@pytest.mark.capture
def test_a_recorded_feed_without_numbers_never_crosses() -> None:
    pairs = gapless(of_capture("coinbase_exchange_2021", "coinbase_exchange"))
    assert len(pairs) == 5
    assert sum(pair["updates"] for pair in pairs.values()) == 6471 + 5
    assert sum(pair["trades"] for pair in pairs.values()) == 76


@pytest.mark.capture
def test_recorded_whole_books_are_the_last_ones_sent() -> None:
    pairs = gapless(of_capture("htx_2021", "htx"))
    assert len(pairs) == 10
    last = {}
    for record in read_capture(captured("htx_2021")):
        if record.kind == "ws_in":
            frame = json.loads(gzip.decompress(record.payload), parse_float=Decimal, parse_int=Decimal)
            if "tick" in frame and "depth" in frame["ch"]:
                last[frame["ch"].split(".")[1]] = frame["tick"]
    for pair in pairs.values():
        for side in ("bids", "asks"):
            levels = [[Decimal(text) for text in level] for level in pair[side]]
            assert levels == last[pair["symbol"]][side][:25]


@pytest.mark.capture
@pytest.mark.parametrize(("drop", "venue", "name"), [(900, "kraken_v1", "kraken_v1_2021"), (150, "okx", "okx_2022")])
def test_a_message_left_out_of_a_recording_is_noticed(drop: int, venue: str, name: str) -> None:
    path = captured(name)
    session = Replay(venue)
    for number, record in enumerate(read_capture(path)):
        if number < drop or b"book" not in record.payload:
            session.on_record(record)
        else:
            drop = 10**9 if record.kind == "ws_in" else drop
    pairs = session.report(1, 1.0)["pairs"]
    assert sum(pair["checksums_failed"] for pair in pairs.values()) == 1
    assert sum(not pair["synced"] for pair in pairs.values()) == 1
