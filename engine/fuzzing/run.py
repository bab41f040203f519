"""Feeds mutated frames to every venue's decoder and feed, and compares with the reference.

A frame counts as ``accepted`` where the decoder took it, ``unparsed`` where it raised MalformedFrame. ``crashes``:
anything else was raised, by the decoder or by the books behind it. ``wrong``: decoder and reference disagree on
whether a frame can be read, or on what it says; an event holds what cannot be kept (a number beyond 64 bits, a
price that is none); a frame that could not be read was not counted, or changed a book; the scanner of a hot path
reads a frame otherwise than the reference, or the hot path does with it what the general way does not.
"""

from __future__ import annotations

import gzip
import sys
import time
import traceback
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engine.book import BestQuote, DepthDiff, DepthSnapshot, SyncState
from engine.captures import Record
from engine.connectors.base import MarketEvent, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.fuzzing.hot import HotTwins
from engine.fuzzing.mutate import mutated, reworded
from engine.fuzzing.reference import REFERENCES, Memory
from engine.fuzzing.samples import COMPRESSED, SNAPSHOTS, seeds
from engine.fuzzing.strict import INT64, Refused, has_repeated_keys, parse
from engine.replay import Replay

_SHOWN = 10
_MOST_SHOWN = 4_000
_FRAMES_A_BOOK = 2_000


class FuzzReport(msgspec.Struct):
    """Counts; ``hot``: frames that a compiled hot path took. ``failures`` are the first few, for people."""

    seed: int
    seconds: float = 0.0
    frames: int = 0
    accepted: int = 0
    unparsed: int = 0
    crashes: int = 0
    wrong: int = 0
    hot: int = 0
    failures: list[str] = []

    @property
    def passed(self) -> bool:
        return not self.crashes and not self.wrong


def fuzz(
    *,
    seed: int = 1,
    seconds: float | None = None,
    frames: int | None = None,
    captures: Path | None = None,
    venues: Sequence[str] = tuple(sorted(REFERENCES)),
) -> FuzzReport:
    """Until the time is up or so many frames are done, the venues taking turns. The same seed mutates alike."""
    report = FuzzReport(seed, failures=[])
    began = time.monotonic()
    benches = [_Bench(venue, seed, captures) for venue in venues]
    for number, bench in enumerate(_turns(benches)):
        if frames is not None and number >= frames:
            break
        if seconds is not None and number % 64 == 0 and time.monotonic() - began >= seconds:
            break
        bench.once(report)
    report.seconds = round(time.monotonic() - began, 2)
    report.hot = sum(bench.hot for bench in benches)
    return report


def fuzz_each(
    each: int,
    *,
    seed: int = 1,
    captures: Path | None = None,
    jobs: int = 1,
    venues: Sequence[str] = tuple(sorted(REFERENCES)),
) -> Iterator[tuple[str, FuzzReport]]:
    """So many frames of every venue, venue by venue, in ``jobs`` processes; a venue and its report as it is done."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        begun = {
            pool.submit(fuzz, seed=seed, frames=each, captures=captures, venues=(venue,)): venue
            for venue in sorted(venues, key=lambda venue: venue not in COMPRESSED)  # the slow one first
        }
        for done in as_completed(begun):
            yield begun[done], done.result()


def _turns(benches: list[_Bench]) -> Iterator[_Bench]:
    while True:
        yield from benches


class _Bench:
    """One venue: its seeds, its decoder with books behind it, the reference, and the twins of its hot path."""

    def __init__(self, venue: str, seed: int, captures: Path | None) -> None:
        self.venue = venue
        self._random = Random(f"{seed} {venue}")
        self._seeds = seeds(venue, captures)
        self._reference = REFERENCES[venue]
        self._compressed = venue in COMPRESSED
        self._memory: Memory = {}
        self._session = self._begun()
        self._twins = HotTwins(self._random) if self._session.protocol.hot_path() is not None else None
        self._fed = 0

    @property
    def hot(self) -> int:
        return self._twins.hot if self._twins is not None else 0

    def once(self, report: FuzzReport) -> None:
        """Mutate one frame, decode it, compare, and put it on the books."""
        self._fed += 1
        if self._fed % _FRAMES_A_BOOK == 0:
            self._session = self._begun()
        content = self._content()
        frame = self._packed(content)
        report.frames += 1
        try:
            found = self._decoded(frame)
            wrong = self._to_books(frame, found)
            if self._twins is not None:
                wrong = wrong or self._twins.compare(frame)
        except Exception:  # what the fuzzer looks for
            report.crashes += 1
            self._tell(report, "crash", content, traceback.format_exc(limit=-3))
            return
        report.accepted += found is not None
        report.unparsed += found is None
        wrong = wrong or self._compared(content, frame, found)
        if wrong:
            report.wrong += 1
            self._tell(report, "wrong", content, wrong)

    def _content(self) -> bytes:
        random = self._random
        other = random.choice(self._seeds)
        if self._twins is None or random.random() < 0.5:
            return mutated(random, min(random.choice(self._seeds), random.choice(self._seeds), key=len), other)
        mutate = mutated if random.random() < 0.5 else reworded
        return mutate(random, self._twins.frame(), other)

    def _packed(self, content: bytes) -> bytes:
        if not self._compressed:
            return content
        frame = _packed(content)
        return mutated(self._random, frame, frame) if self._random.random() < 0.1 else frame

    def _decoded(self, frame: bytes) -> Sequence[MarketEvent] | None:
        try:
            return self._session.protocol.feed(frame)
        except MalformedFrame:
            return None

    def _begun(self) -> Replay:
        self._memory.clear()
        session = Replay(self.venue)
        if self.venue in SNAPSHOTS:
            url, body = SNAPSHOTS[self.venue]
            session.on_record(Record(0.0, "http", url=url, data=body))
        return session

    def _to_books(self, frame: bytes, found: Sequence[MarketEvent] | None) -> str:
        """Through the live feed; afterwards every book must be able to say what it is worth."""
        session = self._session
        standing, unparsed = self._standing(), session.feed.counters.unparsed
        session.on_record(Record(0.0, "ws_in", data64=b64encode(frame).decode()))
        if session.feed.counters.unparsed != unparsed + (found is None):
            return "the feed does not count it as the decoder reads it"
        if found is None and self._standing() != standing:
            return "a frame that cannot be read changed a book"
        for book in session.feed.books.values():
            if book.state is SyncState.SYNCED:
                book.book.depth_strings(5)
            if not (-1 <= book.update_id <= INT64 and 0 <= book.time_ns <= INT64):
                raise ValueError(f"{book.update_id} at {book.time_ns} is beyond 64 bits")
        return ""

    def _standing(self) -> list[tuple[object, ...]]:
        """What a frame that cannot be read must leave as it is."""
        return [
            (pair, sync.state, sync.update_id, sync.buffered, sync.counters.updates, sync.counters.snapshots)
            for pair, sync in self._session.feed.books.items()
        ]

    def _compared(self, content: bytes, frame: bytes, found: Sequence[MarketEvent] | None) -> str:
        """What is wrong; "" if nothing, or if the frame is one of which JSON does not say what it means."""
        if self._compressed and frame != _packed(content):
            unpacked = _unpacked(frame)
            if found is None or unpacked is None:
                return "" if found is None else "broken compression was taken"
            content = unpacked
        known = dict(self._memory)
        try:
            expected: Sequence[MarketEvent] | None = self._reference(content, self._session.symbols.pair, self._memory)
        except Refused as refused:
            expected, why = None, str(refused)
        else:
            why = ""
        misread = self._twins.scanned(frame, expected) if self._twins is not None else ""
        if misread:
            return misread
        differ = (expected is None) != (found is None) or not _same(found or (), expected or ())
        if (differ or self._memory != known) and _is_ambiguous(content):
            self._session = self._begun()  # neither the one's memory nor the other's is wrong
            return ""
        if differ and (expected is None or found is None):
            return f"refused by the reference alone: {why}" if expected is None else "refused by the decoder alone"
        if expected is None or found is None:
            return ""
        if differ:
            return f"decoder {list(found)!r}\nreference {list(expected)!r}"
        return _unkeepable(found)

    def _tell(self, report: FuzzReport, what: str, content: bytes, why: str) -> None:
        if len(report.failures) < _SHOWN:
            report.failures.append(f"{what} at {self.venue}: {content!r}\n{why}")
            print(report.failures[-1][:_MOST_SHOWN], file=sys.stderr)


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def _unpacked(frame: bytes) -> bytes | None:
    """What a frame holds that was broken after compression; None if nothing. It may have lost its compression."""
    if not frame.startswith(b"\x1f\x8b"):
        return frame
    try:
        return gzip.decompress(frame)
    except (OSError, EOFError, zlib.error):
        return None


def _is_ambiguous(content: bytes) -> bool:
    try:
        return has_repeated_keys(parse(content))
    except Refused:
        return False


def _same(found: Sequence[MarketEvent], expected: Sequence[MarketEvent]) -> bool:
    return len(found) == len(expected) and all(
        _plain(one) == _plain(other) for one, other in zip(found, expected, strict=True)
    )


def _plain(event: MarketEvent) -> Any:
    """An event's type and values; levels as lists. The words of a notice are for people and not compared."""
    if isinstance(event, VenueNotice):
        return VenueNotice, event.code, event.reconnect
    if isinstance(event, DepthDiff | DepthSnapshot):
        levels = [[tuple(level) for level in side] for side in (event.bids, event.asks)]
        return type(event), msgspec.structs.replace(event, bids=(), asks=()), levels
    return event


def _unkeepable(events: Sequence[MarketEvent]) -> str:
    """What of an event could not be published, journaled or counted."""
    for event in events:
        if isinstance(event, DepthDiff | DepthSnapshot | BestQuote | PublicTrade):
            numbers = [value for value in msgspec.structs.astuple(event) if isinstance(value, int)]
            if any(not -INT64 <= number <= INT64 for number in numbers):
                return f"beyond 64 bits: {event!r}"
        if isinstance(event, PublicTrade) and not (Decimal(event.price).is_finite() and Decimal(event.size) >= 0):
            return f"no price, or no size: {event!r}"
    return ""
