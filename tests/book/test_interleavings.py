"""Every rule, with the parameters that venues have, under any loss, repetition, disorder and lateness.

A made-up venue keeps the true book of every moment and sends it in each venue's way. A book in sync must be the true
book of the moment at which it says to stand; where a rule cannot see every loss, only after what it can see.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import (
    BookSync,
    Checksum,
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
    SyncState,
    UnnumberedRule,
    Verdict,
)

PAIR = "ETH-USDT"
Side = dict[int, int]
Levels = list[tuple[str, str]]
ACTIONS = st.lists(
    st.sampled_from(
        [
            *["diff"] * 8,
            "lost",
            "lost",
            "repeated",
            "late",
            "late",
            "ask",
            "answer",
            "answer",
            "fail",
            "pushed",
            "reconnect",
        ]
    ),
    max_size=60,
)


class Style(msgspec.Struct, frozen=True):
    """How a venue sends its books.

    ``rule``: made anew for each book. ``contiguous``: ids are of messages, one apart, otherwise of many updates.
    ``previous``: each message names the last id of the one before. ``numbered``: messages have ids at all. ``whole``:
    nothing but whole books. ``summed``: how the book is summed up. ``connection``: numbers of the whole connection.
    ``lossless``: the venue's way shows no loss, so nothing is lost.
    """

    rule: Callable[[], SequenceRule]
    contiguous: bool = False
    previous: bool = False
    numbered: bool = True
    whole: bool = False
    summed: Callable[[Levels, Levels], int] | None = None
    connection: bool = False
    lossless: bool = False


def kraken_sum(bids: Levels, asks: Levels) -> int:
    return zlib.crc32("".join(f"{price}{size}" for price, size in (*asks[:10], *bids[:10])).encode())


def okx_sum(bids: Levels, asks: Levels) -> int:
    words = []
    for number in range(25):
        words += [f"{price}:{size}" for side in (bids, asks) for price, size in side[number : number + 1]]
    total = zlib.crc32(":".join(words).encode())
    return total - (1 << 32) if total >> 31 else total


def okx(**more: bool) -> SequenceRule:
    checksum: Checksum = OkxChecksum()
    return PreviousIdRule(replacing=True, resets=True, checksum=checksum, **more)


STYLES = {
    "Binance spot U/u": Style(RangeRule),
    "Binance USD-M pu": Style(PreviousIdRule, previous=True),
    "Bybit u": Style(ContiguousRule, contiguous=True),
    "Kraken v1, v2 checksum": Style(lambda: ChecksumRule(KrakenChecksum()), numbered=False, summed=kraken_sum),
    "OKX prevSeqId": Style(lambda: PreviousIdRule(replacing=True, resets=True), previous=True),
    "OKX prevSeqId and checksum": Style(okx, previous=True, summed=okx_sum),
    "OKX before 2023": Style(lambda: okx(timed=True), summed=okx_sum),
    "KuCoin, Gate ranges": Style(RangeRule),
    "HTX mbp prevSeqNum": Style(PreviousIdRule, previous=True),
    "Coinbase sequence_num": Style(UnnumberedRule, numbered=False, connection=True),
    "Coinbase Exchange level2": Style(UnnumberedRule, numbered=False, lossless=True),
    "Hyperliquid, HTX whole books": Style(ReplacingRule, whole=True),
}


class Venue:
    """The true book of each id, and what is sent of it. Prices up to 20 are bids, 21 and above asks."""

    def __init__(self, seed: int, style: Style) -> None:
        self.random = Random(seed)
        self.style = style
        self.update_id = 100
        self.number = 0
        self.bids: Side = {10: 1}
        self.asks: Side = {30: 1}
        self.history = [self.levels()]
        self.moments = {self.update_id: self.levels()}

    def step(self) -> DepthDiff | DepthSnapshot:
        """The next message. A step of a venue with ids of its own may hold several updates."""
        first, before = self.update_id + 1, self.update_id
        self.update_id += 1 if self.style.contiguous else self.random.choice((1, 1, 3, 9))
        self.number += 1
        changed = tuple(self._change(side, low) for side, low in ((self.bids, 1), (self.asks, 21)))
        self._note()
        if self.style.whole:
            return self.snapshot()
        sums = self.style.summed(*self.levels()) if self.style.summed else None
        previous = before if self.style.previous else None
        if not self.style.numbered:
            return DepthDiff(PAIR, 0, 0, None, *changed, 0, sums)
        if self.style.contiguous:
            first = self.update_id
        return DepthDiff(PAIR, first, self.update_id, previous, *changed, 0, sums)

    def snapshot(self) -> DepthSnapshot:
        sums = self.style.summed(*self.levels()) if self.style.summed else None
        return DepthSnapshot(PAIR, self.update_id if self.style.numbered else 0, *self.levels(), 0, sums)

    def levels(self) -> tuple[Levels, Levels]:
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return [(str(price), str(size)) for price, size in bids], [(str(price), str(size)) for price, size in asks]

    def _change(self, side: Side, low: int) -> Levels:
        changes = {low + self.random.randrange(20): self.random.choice((0, 1, 2, 3)) for _ in range(2)}
        side.update(changes)
        for price in [price for price, size in side.items() if not size]:
            del side[price]
        return [(str(price), str(size)) for price, size in changes.items()]

    def _note(self) -> None:
        self.history.append(self.levels())
        self.moments[self.update_id] = self.levels()


class Desk:
    """A book fed over one connection that loses, repeats, delays and swaps messages."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.sync = BookSync(OrderBook(PAIR, 0, 0), venue.style.rule(), max_buffer=5, max_old_diffs=10)
        self.numbers = ConnectionNumbers()
        self.sent: list[tuple[int, DepthDiff | DepthSnapshot]] = []
        self.held: list[tuple[int, DepthDiff | DepthSnapshot]] = []
        self.answer: tuple[DepthSnapshot, int] | None = None
        self.asked = False
        self.connect()

    def do(self, action: str) -> None:
        if action == "reconnect":
            self.sync.on_disconnected()
            self.connect()
        elif action == "diff":
            self.take(self.next())
            self.deliver_held()
        elif action == "lost" and not self.venue.style.lossless:
            self.next()
        elif action == "repeated" and self.sent and not self.venue.style.lossless:
            self.take(self.venue.random.choice(self.sent))
        elif action == "late" and not self.venue.style.lossless:
            self.held.append(self.next())
        elif action == "pushed" and self.sync.rule.replacing:
            self.venue.number += 1
            self.take((self.venue.number, self.venue.snapshot()))
        else:
            self.ask_or_answer(action)

    def ask_or_answer(self, action: str) -> None:
        """Of a venue that is asked for its books; the answer may come long after it was made."""
        if action == "ask" and self.asked:
            self.answer, self.asked = (self.venue.snapshot(), self.sync.epoch), False
        elif action == "answer" and self.answer:
            given, self.answer = self.answer, None
            self.heed(self.sync.on_snapshot(*given).need_snapshot)
        elif action == "fail" and self.answer:
            self.answer = None
            self.heed(self.sync.on_snapshot_failed().need_snapshot)

    def connect(self) -> None:
        self.numbers = ConnectionNumbers(self.venue.number + 1)
        self.held.clear()
        self.sent.clear()
        self.answer = None
        self.heed(self.sync.on_connected().need_snapshot)

    def next(self) -> tuple[int, DepthDiff | DepthSnapshot]:
        message = self.venue.step()
        self.sent.append((self.venue.number, message))
        return self.sent[-1]

    def deliver_held(self) -> None:
        if self.held and self.venue.random.random() < 0.7:
            self.take(self.held.pop(self.venue.random.randrange(len(self.held))))

    def take(self, numbered: tuple[int, DepthDiff | DepthSnapshot]) -> None:
        number, message = numbered
        if self.venue.style.connection:
            verdict = self.numbers.on_number(number)
            if verdict is Verdict.DROP:
                return
            if verdict is Verdict.GAP:
                self.heed(self.sync.on_loss("a hole").need_snapshot)
        if isinstance(message, DepthSnapshot):
            self.heed(self.sync.on_snapshot(message).need_snapshot)
        else:
            self.heed(self.sync.on_diff(message).need_snapshot)

    def heed(self, needed: bool) -> None:
        self.asked = (self.asked or needed) and not self.sync.rule.replacing

    def held_levels(self) -> tuple[Levels, Levels]:
        return self.sync.book.depth_strings()


def check(desk: Desk) -> None:
    sync, venue = desk.sync, desk.venue
    assert sync.awaiting_snapshot == (sync.state is SyncState.BUFFERING)
    if sync.state is SyncState.BUFFERING and not sync.rule.replacing:
        assert desk.asked or desk.answer is not None
    if sync.state is not SyncState.SYNCED:
        return
    levels = desk.held_levels()
    if venue.style.summed is not None and not venue.style.previous:
        sums = {venue.style.summed(*true) for true in venue.history}
        assert venue.style.summed(*levels) in sums
    elif venue.style.numbered:
        assert levels == venue.moments[sync.update_id]
    else:
        assert levels in venue.history


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), actions=ACTIONS)
def test_a_book_in_sync_is_the_true_one_whatever_happens_on_the_way(
    style: Style, seed: int, actions: list[str]
) -> None:
    desk = Desk(Venue(seed, style))
    for action in actions:
        desk.do(action)
        check(desk)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), actions=ACTIONS)
def test_once_all_arrives_again_a_book_comes_back_and_stays(style: Style, seed: int, actions: list[str]) -> None:
    desk = Desk(Venue(seed, style))
    for action in actions:
        desk.do(action)
    desk.held.clear()
    for _ in range(30):
        for action in ("ask", "answer"):
            desk.do(action)
        if desk.sync.rule.replacing and desk.sync.state is not SyncState.SYNCED:
            desk.do("pushed")
        desk.take(desk.next())
        check(desk)
    assert desk.sync.state is SyncState.SYNCED
    resyncs = desk.sync.counters.resyncs
    desk.take(desk.next())
    assert desk.sync.counters.resyncs == resyncs
    if desk.sync.rule.numbered and not desk.sync.rule.checksum:
        assert desk.held_levels() == desk.venue.levels()
