"""The fuzzer: every decoder agrees with the reference on broken frames, and the fuzzer sees it when one does not."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random
from typing import Any

import msgspec
import pytest

from engine.book import BestQuote, DepthDiff
from engine.connectors.errors import MalformedFrame
from engine.connectors.feed import FeedResult, MarketDataFeed
from engine.connectors.kraken_v1.market_data import KrakenV1MarketData
from engine.fuzzing.hot import HotTwins
from engine.fuzzing.mutate import MUTATIONS, Mutation, mutated
from engine.fuzzing.reference import REFERENCES
from engine.fuzzing.run import fuzz, fuzz_each
from engine.fuzzing.samples import COMPRESSED, seeds
from engine.fuzzing.strict import Refused, parse
from engine.replay import Replay


@pytest.mark.parametrize("venue", sorted(REFERENCES))
def test_samples_are_read_alike(venue: str) -> None:
    session = Replay(venue)
    for frame in seeds(venue):
        session.protocol.feed(frame)
        REFERENCES[venue](frame, session.symbols.pair, {})
    assert (venue in COMPRESSED) == (venue == "htx")


def test_no_mutation_crashes_a_decoder_or_is_misread() -> None:
    report = fuzz(seed=20, frames=10_500)
    assert report.failures == []
    assert (report.crashes, report.wrong) == (0, 0)
    assert report.frames == 10_500
    assert report.accepted + report.unparsed == report.frames
    assert report.accepted > report.frames / 10
    assert report.unparsed > report.frames / 10


def test_the_same_seed_does_the_same() -> None:
    first, second, other = (fuzz(seed=seed, frames=2_000) for seed in (5, 5, 6))
    assert (first.accepted, first.unparsed) == (second.accepted, second.unparsed) != (other.accepted, other.unparsed)


def test_a_decoder_that_misreads_crashes_or_takes_anything_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = KrakenV1MarketData.feed

    def misread(self: Any, data: bytes) -> Any:
        return real(self, data.replace(b"5541", b"5542"))

    def crash(self: Any, data: bytes) -> Any:
        return real(self, data) if data.endswith(b"}") else 1 / 0

    def lax(self: Any, data: bytes) -> Any:
        try:
            return real(self, data)
        except MalformedFrame:
            return ()

    for broken, crashes in ((misread, False), (crash, True), (lax, False)):
        monkeypatch.setattr(KrakenV1MarketData, "feed", broken)
        report = fuzz(seed=1, frames=1_500)
        assert not report.passed
        assert (report.crashes > 0, report.wrong > 0) == (crashes, not crashes)


def test_the_hot_path_takes_many_mutated_frames_and_none_otherwise_than_the_general_way() -> None:
    report = fuzz(seed=4, frames=8_000, venues=("binance",))
    assert report.failures == []
    assert report.hot > 800


def test_a_hot_path_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MarketDataFeed._ready  # what the hot path answers with, and the general way through _result

    def forgetful(self: Any, pair: str) -> Any:
        return real(self, pair) if self.protocol.hot_path() is None else FeedResult()

    monkeypatch.setattr(MarketDataFeed, "_ready", forgetful)
    report = fuzz(seed=1, frames=300, venues=("binance",))
    assert report.wrong > 0
    assert "hot" in report.failures[0]


def test_a_scanner_that_misreads_is_found() -> None:
    twins = HotTwins(Random(1))
    protocol = Replay("binance").protocol
    frames = [twins.frame() for _ in range(50)]
    by_type = {type(event): (frame, event) for frame in frames for event in protocol.feed(frame)}
    frame, event = by_type[DepthDiff]

    def found(meant: list[Any] | None) -> bool:
        """Whether it shows at any of the exponents that are tried by turns; at some the scanner declines."""
        return any("scanned as" in twins.scanned(frame, meant) for _ in range(40))

    assert not found([event])
    assert not found([])
    assert found(None)
    assert found([msgspec.structs.replace(event, last_id=event.last_id + 1)])
    assert found([msgspec.structs.replace(event, bids=[*event.bids, ("1", "1")])])
    frame, event = by_type[BestQuote]
    assert not found([event])
    assert not found([])
    assert found(None)
    assert found([msgspec.structs.replace(event, ask_size="3")])


def test_an_unread_frame_that_moves_a_book_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MarketDataFeed._on_frame

    def losing(self: MarketDataFeed, conn: Any, data: Any) -> FeedResult:
        result = real(self, conn, data)
        if any(problem.kind == "unparsed" for problem in result.problems):
            for book in self.books.values():
                book.on_loss("a frame that could not be read")
        return result

    monkeypatch.setattr(MarketDataFeed, "_on_frame", losing)
    report = fuzz(seed=1, frames=2_000, venues=("kraken_v1",))
    assert report.wrong > 0
    assert "changed a book" in report.failures[0]


def test_so_many_of_every_venue_are_done_in_processes() -> None:
    reports = dict(fuzz_each(150, seed=2, jobs=2))
    assert reports.keys() == REFERENCES.keys()
    assert all((report.frames, report.passed) == (150, True) for report in reports.values())
    assert reports["okx"].accepted == fuzz(seed=2, frames=150, venues=("okx",)).accepted


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"01", b"1.", b".5", b"+1", b"NaN", b"Infinity", b"-Infinity", b"nul", b"[1,]", b'{"a":1,}', b"'a'"),
        *(b'"\x01"', b'"\xff"', b'"\\ud800"', b'"\\x"', b"\xef\xbb\xbf1", b"1 1", b'{"a" 1}', b'"\xed\xa0\x80"'),
    ],
)
def test_the_reference_takes_json_to_the_letter(text: bytes) -> None:
    with pytest.raises(Refused):
        parse(text)


def test_mutations_change_most_frames_and_leave_some() -> None:
    random, frame = Random(1), b'{"a":[1,"two",null]}'
    found = [mutated(random, frame, b'{"b":3}') for _ in range(500)]
    assert 20 < sum(one == frame for one in found) < 200
    assert len(set(found)) > 200


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_every_mutation_changes_some_frame_and_takes_any(mutate: Mutation) -> None:
    random, frame = Random(1), b'{"a":[1,"two",null],"b":"3.50","c":4,"d":5}'
    assert any(mutate(random, frame, b'{"b":3}') != frame for _ in range(50))
    for odd in (b"", b"{", b"\xff\x00", b'""', b"[]"):
        for _ in range(20):
            assert isinstance(mutate(random, odd, odd), bytes)


def test_the_command_prints_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.fuzzing", "--frames", "200", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    report = json.loads(done.stdout.splitlines()[-1])
    assert {"frames", "accepted", "unparsed", "crashes", "wrong"} <= report.keys()
    assert (report["frames"], report["crashes"], report["wrong"]) == (200, 0, 0)


def test_a_venue_that_there_is_not_is_refused_by_name() -> None:
    command = [sys.executable, "-m", "engine.fuzzing", "--each", "10", "--venues", "okx,mtgox"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such venue: mtgox" in done.stderr


def test_a_frame_that_names_its_channel_twice_costs_neither_reading_its_memory() -> None:
    report = fuzz(seed=6, frames=12_000, venues=("okx",))  # without it, three are told apart
    assert (report.wrong, report.crashes) == (0, 0)
