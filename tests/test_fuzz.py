"""The fuzzer: every decoder agrees with the reference on broken frames, and the fuzzer sees it when one does not."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random
from typing import Any

import pytest

from engine.connectors.errors import MalformedFrame
from engine.connectors.kraken_v1.market_data import KrakenV1MarketData
from engine.fuzzing.mutate import mutated
from engine.fuzzing.reference import REFERENCES
from engine.fuzzing.run import fuzz
from engine.fuzzing.samples import COMPRESSED, seeds
from engine.fuzzing.strict import Refused, parse
from engine.replay import Replay


@pytest.mark.parametrize("venue", sorted(REFERENCES))
def test_samples_are_read_alike(venue: str) -> None:
    session = Replay(venue)
    for frame in seeds(venue):
        session.protocol.feed(frame)
        REFERENCES[venue](frame, session.symbols.pair)
    assert (venue in COMPRESSED) == (venue == "htx")


def test_no_mutation_crashes_a_decoder_or_is_misread() -> None:
    report = fuzz(seed=20, seconds=4.0)
    assert report.failures == []
    assert (report.crashes, report.wrong) == (0, 0)
    assert report.frames > 5_000
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
