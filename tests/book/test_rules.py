"""Each sequence rule by itself, and then on books whose messages are lost, repeated and out of order."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import (
    BookSync,
    ChecksumRule,
    ConnectionNumbers,
    ContiguousRule,
    DepthDiff,
    DepthSnapshot,
    KrakenChecksum,
    OkxChecksum,
    OrderBook,
    PreviousIdRule,
    RangeRule,
    ReplacingRule,
    SequenceRule,
    SyncReason,
    SyncState,
    UnnumberedRule,
    Verdict,
)

PAIR = "ETH-USDT"
APPLY, DROP, GAP = Verdict.APPLY, Verdict.DROP, Verdict.GAP


def diff(first: int, last: int, previous: int | None = None) -> DepthDiff:
    return DepthDiff(PAIR, first, last, previous)


# ------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("message", "on_snapshot", "following"),
    [
        (diff(90, 99, 89), DROP, DROP),
        (diff(90, 100, 89), DROP, DROP),
        (diff(95, 105, 94), APPLY, GAP),
        (diff(103, 105, 100), APPLY, APPLY),
        (diff(103, 105, 101), GAP, GAP),
        (diff(103, 105), GAP, GAP),
    ],
)
def test_previous_id_rule_at_100(message: DepthDiff, on_snapshot: Verdict, following: Verdict) -> None:
    assert PreviousIdRule().first(100, message) is on_snapshot
    assert PreviousIdRule().following(100, message) is following


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (diff(101, 101, 100), APPLY),
        (diff(100, 100, 100), APPLY),
        (diff(3, 3, 100), APPLY),
        (diff(90, 90, 89), GAP),
        (diff(100, 100, 95), DROP),
        (diff(102, 102, 101), GAP),
        (diff(77, 77), APPLY),
    ],
)
def test_ids_that_may_begin_anew_are_judged_by_the_one_before(message: DepthDiff, verdict: Verdict) -> None:
    rule = PreviousIdRule(replacing=True, resets=True, timed=True)
    assert rule.first(100, message) is verdict
    assert rule.following(100, message) is verdict


@pytest.mark.parametrize(("number", "verdict"), [(99, DROP), (100, DROP), (101, APPLY), (102, GAP)])
def test_contiguous_rule_at_100(number: int, verdict: Verdict) -> None:
    assert ContiguousRule().first(100, diff(number, number)) is verdict
    assert ContiguousRule().following(100, diff(number, number)) is verdict


def test_rules_without_numbers_take_what_comes_and_whole_books_take_no_diffs() -> None:
    for rule in (UnnumberedRule(), ChecksumRule(KrakenChecksum())):
        assert rule.first(0, diff(0, 0)) is rule.following(5, diff(0, 0)) is APPLY
    assert ReplacingRule().first(0, diff(1, 1)) is ReplacingRule().following(0, diff(1, 1)) is GAP


def test_numbers_of_a_connection() -> None:
    numbers = ConnectionNumbers()
    assert [numbers.on_number(number) for number in (7, 8, 8, 10, 11, 9, 12)] == [
        *(APPLY, APPLY, DROP, GAP, APPLY, DROP, APPLY),
    ]
    assert ConnectionNumbers(begins_at=0).on_number(1) is GAP


# ----------------------------------------------------------------------------------------------------- checksums


def test_kraken_s_published_example() -> None:
    asks = [(f"0.0{5005 + 5 * step}", "0.00000500") for step in range(10)]
    bids = [(f"0.0{price}", "0.00000500") for price in (5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950)]
    book, checksum = OrderBook("A-B", -5, -8), KrakenChecksum()
    book.apply_snapshot(bids, asks)
    checksum.load(bids, asks)
    assert checksum.of(book) == 974947235


def test_okx_s_published_example() -> None:
    bids, asks = [("3366.1", "7"), ("3366", "6")], [("3366.8", "9"), ("3368", "8")]
    book, checksum = OrderBook("A-B", -1, 0), OkxChecksum()
    book.apply_snapshot(bids, asks)
    checksum.load(bids, asks)
    assert checksum.of(book) == -1881014294


def test_a_side_that_is_shorter_leaves_the_other_to_go_on_alone() -> None:
    book, checksum = OrderBook("A-B", -1, 0), OkxChecksum()
    book.apply_snapshot([("1.5", "1")], [("2", "2"), ("3", "3")])
    checksum.load([("1.5", "1")], [("2", "2"), ("3", "3")])
    expected = zlib.crc32(b"1.5:1:2:2:3:3")
    assert checksum.of(book) == (expected - 2**32 if expected >= 2**31 else expected)


def test_trailing_zeros_count_as_the_venue_sent_them() -> None:
    sums = set()
    for price, size in (("1.5", "2"), ("1.50", "2"), ("1.5", "2.0")):
        book, checksum = OrderBook("A-B", -3, -3), KrakenChecksum()
        book.apply_snapshot([(price, size)], [])
        checksum.load([(price, size)], [])
        sums.add(checksum.of(book))
        # The level is found again whatever it was called before.
        book.apply_diff([("1.500", "0.000")], [])
        checksum.update([("1.500", "0.000")], [], book)
        assert checksum.of(book) == zlib.crc32(b"")
    assert len(sums) == 3


def test_words_of_levels_that_the_cap_dropped_are_forgotten() -> None:
    book, checksum = OrderBook("A-B", 0, 0), KrakenChecksum()
    book.apply_snapshot([("1", "1")], [])
    checksum.load([("1", "1")], [])
    for price in range(2, 5000):
        level = [(str(price), "1")]
        book.apply_diff(level, [])
        book.truncate(10)
        checksum.update(level, [], book)
    assert len(checksum._bids) < 1100
    assert checksum.of(book) == zlib.crc32("".join(f"{price}1" for price in range(4999, 4989, -1)).encode())


def test_a_level_without_plain_words_has_no_sum() -> None:
    book, checksum = OrderBook("A-B", 0, 0), KrakenChecksum()
    book.apply_snapshot([("1e2", "1")], [])
    checksum.load([("1e2", "1")], [])
    assert checksum.of(book) is None


# --------------------------------------------------------------------------------------- any feed, for each rule

Truth = tuple[list[tuple[int, int]], list[tuple[int, int]]]
Message = DepthDiff | DepthSnapshot


class Venue:
    """A book of at most ten levels a side that changes at random, told in the form of one rule."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.kind = kind
        self.sides: tuple[dict[int, int], dict[int, int]] = ({100: 1}, {101: 1})
        self.id = 1_000
        self.truth: dict[int, Truth] = {}
        self._serial = 0

    def step(self) -> DepthDiff:
        """One message: some levels change. ``time_ns`` is a serial number, by which truths are kept."""
        previous = self.id
        self.id += 1 if self.kind == "contiguous" else self.random.randint(1, 3)
        if self.kind == "okx" and self.random.random() < 0.1:
            self.id = 1 if previous >= 1_000 else previous  # begins anew, once; later on, says nothing new
        changes = []
        for side, prices in zip(self.sides, (range(91, 101), range(101, 111)), strict=True):
            changed = {} if self.id == previous else {self.random.choice(prices): self.random.randint(0, 3)}
            side.update(changed)
            for price in [price for price, size in side.items() if not size]:
                del side[price]
            changes.append([(str(price), str(size)) for price, size in changed.items()])
        first = self.id if self.kind == "contiguous" else previous + 1
        return DepthDiff(
            PAIR,
            *((0, 0) if self._is_unnumbered else (first, self.id)),
            previous if self.kind in ("previous", "okx") else None,
            *changes,
            self._note(),
            self._checksum() if self.kind == "checksum" else None,
        )

    def snapshot(self) -> DepthSnapshot:
        bids, asks = ([(str(price), str(size)) for price, size in side] for side in self._levels())
        return DepthSnapshot(PAIR, 0 if self._is_unnumbered else self.id, bids, asks, self._note())

    @property
    def _is_unnumbered(self) -> bool:
        return self.kind in ("checksum", "unnumbered")

    def _levels(self) -> Truth:
        return sorted(self.sides[0].items(), reverse=True), sorted(self.sides[1].items())

    def _note(self) -> int:
        self._serial += 1
        self.truth[self._serial] = self._levels()
        return self._serial

    def _checksum(self) -> int:
        bids, asks = self._levels()
        return zlib.crc32("".join(f"{price}{size}" for price, size in (*asks, *bids)).encode())


RULES: dict[str, Callable[[], SequenceRule]] = {
    "range": RangeRule,
    "previous": PreviousIdRule,
    "okx": lambda: PreviousIdRule(replacing=True, resets=True, timed=True),
    "contiguous": ContiguousRule,
    "checksum": lambda: ChecksumRule(KrakenChecksum()),
    "replacing": ReplacingRule,
}
ACTIONS = st.lists(
    st.sampled_from(["send"] * 8 + ["lose", "repeat", "hold", "release", "snapshot", "ask", "answer", "reconnect"]),
    max_size=60,
)


@pytest.mark.parametrize("kind", RULES)
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), actions=ACTIONS)
def test_whatever_happens_on_the_way_a_book_in_sync_is_the_venue_s(kind: str, seed: int, actions: list[str]) -> None:
    feed = Feed(seed, kind)
    for action in actions:
        feed.act(action)
        feed.check()
    feed.recover()


class Feed:
    """A venue, what is under way from it, and the book at the other end."""

    def __init__(self, seed: int, kind: str) -> None:
        self.venue = Venue(seed, kind)
        self.sync = BookSync(OrderBook(PAIR, 0, 0), RULES[kind](), max_buffer=8, max_old_diffs=5)
        self.sync.on_connected()
        self.sent: list[Message] = []
        self.held: list[Message] = []
        self.answer: tuple[DepthSnapshot, int] | None = None

    def act(self, action: str) -> None:
        sync, venue = self.sync, self.venue
        if action == "send":
            self._send(self._next())
        elif action == "lose":
            self._next()
        elif action == "hold":
            self.held.append(self._next())
        elif action == "release" and self.held:
            self._send(self.held.pop(venue.random.randrange(len(self.held))))
        elif action == "repeat" and self.sent:
            self._send(venue.random.choice(self.sent[-8:]))
        elif action == "snapshot" and sync.rule.replacing:
            self._send(venue.snapshot())
        elif action == "ask" and not sync.rule.replacing:
            self.answer = venue.snapshot(), sync.epoch
        elif action == "answer" and self.answer is not None:
            sync.on_snapshot(*self.answer)
            self.answer = None
        elif action == "reconnect":
            sync.on_disconnected()
            sync.on_connected()
            self.sent.clear()
            self.held.clear()

    def check(self) -> None:
        sync = self.sync
        assert sync.awaiting_snapshot == (sync.state is SyncState.BUFFERING)
        if sync.state is SyncState.SYNCED:
            assert sync.book.depth() == self.venue.truth[sync.time_ns]

    def recover(self) -> None:
        """Once all is well again the book is the venue's, at its present."""
        self.held.clear()
        for _ in range(20):
            if self.sync.state is not SyncState.SYNCED:
                self.sync.on_snapshot(self.venue.snapshot(), self.sync.epoch)
            self._send(self._next())
            self.check()
        assert self.sync.state is SyncState.SYNCED
        assert self.sync.book.depth() == self.venue.truth[self.venue._serial]

    def _next(self) -> Message:
        if self.venue.kind != "replacing":
            return self.venue.step()
        self.venue.step()
        return self.venue.snapshot()

    def _send(self, message: Message) -> None:
        self.sent.append(message)
        if isinstance(message, DepthDiff):
            self.sync.on_diff(message)
        else:
            self.sync.on_snapshot(message)


def test_without_numbers_or_checksum_a_book_is_right_as_long_as_nothing_is_lost() -> None:
    venue = Venue(7, "unnumbered")
    sync = BookSync(OrderBook(PAIR, 0, 0), UnnumberedRule())
    sync.on_connected()
    assert sync.on_diff(venue.step()).reason is SyncReason.BUFFERED
    assert sync.on_snapshot(venue.snapshot()).applied
    for _ in range(200):
        assert sync.on_diff(venue.step()).applied
        assert sync.book.depth() == venue.truth[sync.time_ns]
    assert sync.update_id == 201
