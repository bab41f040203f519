import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import (
    BestQuote,
    BookSync,
    DepthDiff,
    DepthSnapshot,
    OrderBook,
    QuoteMismatch,
    RangeRule,
    SyncReason,
    SyncState,
    Verdict,
)

PAIR = "ETH-USDT"


def diff(first: int, last: int, bids: list[tuple[str, str]] | None = None, asks: list[tuple[str, str]] | None = None):
    return DepthDiff(PAIR, first, last, None, bids or [], asks or [])


def snapshot(update_id: int, bid: str = "100", ask: str = "101") -> DepthSnapshot:
    return DepthSnapshot(PAIR, update_id, [(bid, "1"), ("50", "5")], [(ask, "2"), ("150", "5")])


def quote(update_id: int, bid: str = "100.00", ask: str = "101.00") -> BestQuote:
    return BestQuote(PAIR, update_id, bid, "1.00000000", ask, "2.00000000")


@pytest.fixture
def make() -> Callable[..., BookSync]:
    return lambda **options: BookSync(OrderBook(PAIR, -2, -3), RangeRule(), **options)


@pytest.fixture
def sync(make: Callable[..., BookSync]) -> BookSync:
    """In sync at 100."""
    sync = make()
    sync.on_connected()
    sync.on_snapshot(snapshot(100))
    assert sync.state is SyncState.SYNCED
    return sync


# ------------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (90, 99, Verdict.DROP),
        (95, 100, Verdict.DROP),
        (95, 105, Verdict.APPLY),
        (101, 101, Verdict.APPLY),
        (102, 110, Verdict.GAP),
    ],
)
def test_range_rule_after_update_100(first: int, last: int, verdict: Verdict) -> None:
    assert RangeRule().first(100, diff(first, last)) is verdict
    assert RangeRule().following(100, diff(first, last)) is verdict


# --------------------------------------------------------------------------------------------------- coming in sync


def test_connecting_buffers_and_asks_for_a_snapshot_once(make: Callable[..., BookSync]) -> None:
    sync = make()
    assert sync.state is SyncState.UNSYNCED
    result = sync.on_connected()
    assert (sync.state, result.need_snapshot, result.applied) == (SyncState.BUFFERING, True, False)
    for start in (101, 106):
        result = sync.on_diff(diff(start, start + 4))
        assert (result.need_snapshot, result.applied, result.reason) == (False, False, SyncReason.BUFFERED)
    assert sync.awaiting_snapshot


def test_buffered_diffs_go_on_the_snapshot_in_order(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(95, 98, [("100", "9")]))
    sync.on_diff(diff(99, 103, [("100", "3")]))
    sync.on_diff(diff(104, 107, [("100.5", "4")]))
    result = sync.on_snapshot(snapshot(100))
    assert result.applied
    assert not result.need_snapshot
    assert (sync.state, sync.update_id) == (SyncState.SYNCED, 107)
    assert sync.book.depth_strings(2)[0] == [("100.50", "4.000"), ("100.00", "3.000")]
    assert (sync.counters.updates, sync.counters.snapshots, sync.counters.dropped) == (2, 1, 1)
    assert not sync.awaiting_snapshot


def test_a_snapshot_older_than_the_buffer_is_asked_for_again(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(110, 115))
    result = sync.on_snapshot(snapshot(100))
    assert (result.need_snapshot, result.applied) == (True, False)
    assert result.reason is SyncReason.SNAPSHOT_TOO_OLD
    assert "110" in result.detail
    assert sync.book.bid_count == 0
    assert sync.on_snapshot(snapshot(112)).applied
    assert sync.update_id == 115
    assert (sync.counters.gaps, sync.counters.resyncs) == (0, 0)


def test_a_snapshot_newer_than_all_that_is_buffered_is_where_the_book_stands(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(95, 98))
    assert sync.on_snapshot(snapshot(100)).applied
    assert (sync.state, sync.update_id) == (SyncState.SYNCED, 100)
    assert sync.on_diff(diff(99, 102)).applied
    assert sync.update_id == 102


def test_a_gap_among_the_buffered_diffs_asks_for_a_newer_snapshot_and_keeps_what_follows(
    make: Callable[..., BookSync],
) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(101, 105))
    sync.on_diff(diff(110, 115))
    sync.on_diff(diff(116, 120))
    result = sync.on_snapshot(snapshot(103))
    assert (result.applied, result.need_snapshot, result.reason) == (False, True, SyncReason.GAP)
    assert sync.state is SyncState.BUFFERING
    assert sync.on_snapshot(snapshot(112)).applied
    assert (sync.update_id, sync.counters.gaps, sync.counters.resyncs) == (120, 1, 1)


def test_a_full_buffer_loses_its_oldest_and_counts_it(make: Callable[..., BookSync]) -> None:
    sync = make(max_buffer=3)
    sync.on_connected()
    results = [sync.on_diff(diff(update, update)) for update in range(101, 106)]
    assert [result.reason for result in results[3:]] == [SyncReason.BUFFER_OVERFLOW] * 2
    assert sync.counters.overflows == 2
    assert sync.on_snapshot(snapshot(100)).reason is SyncReason.SNAPSHOT_TOO_OLD
    assert sync.on_snapshot(snapshot(103)).applied
    assert sync.update_id == 105


def test_a_failed_snapshot_is_asked_for_again_only_while_it_is_wanted(sync: BookSync) -> None:
    assert not sync.on_snapshot_failed().need_snapshot
    sync.on_diff(diff(105, 106))
    result = sync.on_snapshot_failed()
    assert (result.need_snapshot, result.reason) == (True, SyncReason.SNAPSHOT_FAILED)


def test_a_snapshot_that_nobody_asked_for_is_dropped(make: Callable[..., BookSync], sync: BookSync) -> None:
    assert sync.on_snapshot(snapshot(90, bid="70")).reason is SyncReason.SNAPSHOT_UNEXPECTED
    assert (sync.update_id, sync.book.best_raw()[0]) == (100, 10000)
    assert make().on_snapshot(snapshot(90)).reason is SyncReason.SNAPSHOT_UNEXPECTED


def test_a_snapshot_asked_for_before_a_reconnection_is_dropped(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    epoch = sync.epoch
    sync.on_disconnected()
    sync.on_connected()
    assert sync.on_snapshot(snapshot(100), epoch).reason is SyncReason.SNAPSHOT_UNEXPECTED
    assert sync.state is SyncState.BUFFERING
    assert sync.on_snapshot(snapshot(200), sync.epoch).applied


def test_a_rule_of_replacing_snapshots_takes_each_as_it_comes() -> None:
    class Replacing(RangeRule):
        replacing = True

    sync = BookSync(OrderBook(PAIR, -2, -3), Replacing())
    sync.on_connected()
    for update_id, bid in ((100, "100"), (300, "99")):
        assert sync.on_snapshot(snapshot(update_id, bid=bid)).applied
        assert (sync.update_id, sync.book.best_raw()[0]) == (update_id, int(bid) * 100)
    assert (sync.counters.updates, sync.counters.resyncs) == (2, 0)


# -------------------------------------------------------------------------------------------------- staying in sync


def test_contiguous_diffs_are_applied(sync: BookSync) -> None:
    assert sync.on_diff(diff(101, 104, [("100.5", "1")])).applied
    assert sync.on_diff(diff(105, 105, [("100.5", "0")])).applied
    assert (sync.update_id, sync.book.best_raw()[0], sync.counters.updates) == (105, 10000, 2)


def test_the_venues_time_goes_with_the_update(sync: BookSync) -> None:
    assert sync.time_ns == 0
    sync.on_diff(DepthDiff(PAIR, 101, 104, time_ns=77))
    assert (sync.update_id, sync.time_ns) == (104, 77)


def test_repeated_and_old_diffs_are_dropped(sync: BookSync) -> None:
    sync.on_diff(diff(101, 104))
    for repeated in (diff(101, 104, [("100.5", "1")]), diff(90, 95, [("100.5", "1")])):
        result = sync.on_diff(repeated)
        assert (result.applied, result.need_snapshot, result.reason) == (False, False, SyncReason.OLD_DIFF)
    assert (sync.book.best_raw()[0], sync.counters.dropped) == (10000, 2)


def test_a_gap_unsyncs_at_once_and_the_diff_behind_it_is_kept(sync: BookSync) -> None:
    result = sync.on_diff(diff(103, 105, [("100.5", "7")]))
    assert (result.applied, result.need_snapshot, result.reason) == (False, True, SyncReason.GAP)
    assert "103" in result.detail
    assert sync.state is SyncState.BUFFERING
    assert not sync.on_diff(diff(106, 108)).need_snapshot
    assert sync.on_snapshot(snapshot(102)).applied
    assert (sync.update_id, sync.book.best_raw()[:2]) == (108, (10050, 7000))
    assert (sync.counters.gaps, sync.counters.resyncs) == (1, 1)


def test_a_disconnection_forgets_everything_but_the_counts(sync: BookSync) -> None:
    sync.on_disconnected()
    assert (sync.state, sync.awaiting_snapshot, sync.counters.resyncs) == (SyncState.UNSYNCED, False, 1)
    assert sync.on_diff(diff(101, 102)).reason is SyncReason.NOT_CONNECTED
    assert sync.on_quote(quote(100)).reason is SyncReason.NOT_CONNECTED
    assert sync.on_connected().need_snapshot
    assert sync.on_snapshot(snapshot(500)).applied
    assert (sync.update_id, sync.counters.bbo_checked) == (500, 0)


def test_a_crossed_book_is_given_up(sync: BookSync) -> None:
    result = sync.on_diff(diff(101, 101, [("101", "1")]))
    assert (result.applied, result.need_snapshot, result.reason) == (False, True, SyncReason.CROSSED)
    assert "101.00" in result.detail
    assert sync.state is SyncState.BUFFERING
    assert (sync.counters.crossed, sync.counters.resyncs) == (1, 1)
    assert sync.on_snapshot(snapshot(101)).applied


def test_a_crossed_snapshot_is_given_up(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(101, 102))
    assert sync.on_snapshot(snapshot(100, bid="120")).reason is SyncReason.CROSSED
    assert sync.on_snapshot(snapshot(100)).applied
    assert sync.update_id == 102


def test_a_value_that_cannot_be_held_gives_the_book_up_by_name(sync: BookSync) -> None:
    result = sync.on_diff(diff(101, 101, [("99", "1e40")]))
    assert (result.applied, result.need_snapshot, result.reason) == (False, True, SyncReason.BAD_VALUE)
    assert PAIR in result.detail
    assert "1e40" in result.detail
    assert sync.counters.bad_values == 1
    bad = DepthSnapshot(PAIR, 101, [("junk", "1")], [])
    assert sync.on_snapshot(bad).reason is SyncReason.BAD_VALUE
    assert sync.on_snapshot(snapshot(101)).applied
    assert sync.state is SyncState.SYNCED


def test_rescales_are_counted(sync: BookSync) -> None:
    sync.on_diff(diff(101, 101, [("99.123", "1")]))
    assert sync.counters.rescales == 1


# ---------------------------------------------------------------------------------------------------------- quotes


def test_a_quote_is_compared_at_its_very_id_whichever_comes_first(sync: BookSync) -> None:
    assert sync.on_quote(quote(100)).mismatches == ()
    assert sync.counters.bbo_checked == 1
    sync.on_quote(quote(104, bid="100.5"))
    assert sync.counters.bbo_checked == 1
    result = sync.on_diff(diff(101, 104, [("100.5", "1")]))
    assert result.applied
    assert result.mismatches == ()
    sync.on_quote(quote(104, bid="100.50"))
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal) == (3, 3)


def test_a_mismatch_is_counted_and_told_with_both_values(sync: BookSync) -> None:
    result = sync.on_quote(quote(100, bid="99.9"))
    expected = QuoteMismatch(
        100, ("99.9", "1.00000000", "101.00", "2.00000000"), ("100.00", "1.000", "101.00", "2.000")
    )
    assert result.mismatches == (expected,)
    assert (result.applied, result.need_snapshot) == (False, False)
    sync.on_quote(quote(102))
    sync.on_quote(quote(104, ask="103"))
    assert sync.on_diff(diff(101, 102)).mismatches == ()
    result = sync.on_diff(diff(103, 104))
    assert result.applied
    assert [mismatch.update_id for mismatch in result.mismatches] == [104]
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal) == (3, 1)
    assert sync.state is SyncState.SYNCED


def test_a_book_that_two_quotes_running_differ_from_is_given_up(make: Callable[..., BookSync]) -> None:
    sync = make(max_mismatches=2)
    sync.on_connected()
    sync.on_snapshot(snapshot(100))
    assert not sync.on_quote(quote(100, bid="99.9")).need_snapshot
    sync.on_quote(quote(101, ask="103"))
    sync.on_quote(quote(101, ask="104"))
    result = sync.on_diff(diff(101, 101))
    assert (result.need_snapshot, result.applied, result.reason) == (True, False, SyncReason.QUOTE)
    assert [mismatch.update_id for mismatch in result.mismatches] == [101]
    assert (sync.state, sync.counters.resyncs, sync.counters.gaps) == (SyncState.BUFFERING, 1, 0)
    assert sync.on_snapshot(snapshot(101)).applied
    assert not sync.on_quote(quote(101, bid="99.9")).need_snapshot, "it begins anew"


def test_quotes_whose_ids_nobody_vouches_for_cost_nothing(sync: BookSync) -> None:
    for _ in range(5):
        assert not sync.on_quote(quote(100, bid="99.9")).need_snapshot
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal, sync.state) == (5, 0, SyncState.SYNCED)


def test_quotes_between_two_diffs_are_passed_over(sync: BookSync) -> None:
    for update_id in (101, 103, 102, 102, 106):
        sync.on_quote(quote(update_id))
    sync.on_diff(diff(101, 104))
    sync.on_quote(quote(103))
    assert sync.counters.bbo_checked == 0
    sync.on_diff(diff(105, 106))
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal) == (1, 1)


def test_quotes_wait_for_the_snapshot_and_the_buffered_diffs(make: Callable[..., BookSync]) -> None:
    sync = make()
    sync.on_connected()
    sync.on_diff(diff(99, 103, [("100", "1")]))
    sync.on_diff(diff(104, 105, [("100", "1")]))
    for update_id, bid in ((90, "1"), (100, "2"), (103, "100"), (105, "3")):
        sync.on_quote(quote(update_id, bid=bid))
    result = sync.on_snapshot(snapshot(100))
    assert result.applied
    assert [mismatch.update_id for mismatch in result.mismatches] == [100, 105]
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal) == (3, 1)


def test_quotes_that_the_diffs_never_reach_cost_the_book_its_sync(make: Callable[..., BookSync]) -> None:
    sync = make(max_quotes=3)
    sync.on_connected()
    assert not sync.on_time(0, 100).need_snapshot
    sync.on_snapshot(snapshot(10))
    sync.on_quote(quote(9))
    for now in (0, 1_000):
        assert not sync.on_time(now, 100).need_snapshot, "nothing waits"
    for update_id in range(11, 21):  # more than are kept
        sync.on_quote(quote(update_id))
        assert not sync.on_time(1_989 + update_id, 100).need_snapshot
    result = sync.on_time(2_100, 100)
    assert (result.need_snapshot, result.reason, sync.state) == (True, SyncReason.GAP, SyncState.BUFFERING)
    assert (sync.counters.gaps, sync.counters.resyncs) == (1, 1)
    assert not sync.on_time(9_999, 100).need_snapshot, "it was asked for"
    sync.on_snapshot(snapshot(20))
    assert (sync.state, sync.on_time(99_999, 100).need_snapshot) == (SyncState.SYNCED, False)


def test_waiting_quotes_are_bounded(make: Callable[..., BookSync]) -> None:
    sync = make(max_quotes=2)
    sync.on_connected()
    for update_id in (100, 101, 102):
        sync.on_quote(quote(update_id))
    sync.on_snapshot(snapshot(100))
    assert sync.counters.bbo_checked == 0
    sync.on_diff(diff(101, 101))
    sync.on_diff(diff(102, 102))
    assert sync.counters.bbo_checked == 2


# -------------------------------------------------------------------------------------------------- any feed at all


class Venue:
    """A book that changes at random, told in diffs and snapshots."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bids = {100: 1}
        self.asks = {200: 1}
        self.update_id = 1
        self.history = {1: self._levels()}

    def step(self) -> DepthDiff:
        first = self.update_id + 1
        self.update_id += self.random.randint(1, 3)
        bids, asks = ({self.random.randint(*span): self.random.randint(0, 3)} for span in ((50, 149), (150, 250)))
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            side.update(changes)
            for price in [price for price, size in side.items() if not size]:
                del side[price]
        self.history[self.update_id] = self._levels()
        texts = ([(str(price), str(size)) for price, size in side.items()] for side in (bids, asks))
        return DepthDiff(PAIR, first, self.update_id, None, *texts)

    def snapshot(self) -> DepthSnapshot:
        bids, asks = self._levels()
        texts = ([(str(price), str(size)) for price, size in side] for side in (bids, asks))
        return DepthSnapshot(PAIR, self.update_id, *texts)

    def _levels(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())


ACTIONS = st.lists(
    st.sampled_from(
        ["diff"] * 8 + ["lost", "repeated", "ask", "answer", "answer", "fail", "disconnect", "connect", "quote"]
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), ACTIONS)
def test_whatever_is_lost_repeated_or_late_a_book_in_sync_is_the_venues(seed: int, actions: list[str]) -> None:
    venue = Venue(seed)
    sync = BookSync(OrderBook(PAIR, 0, 0), RangeRule(), max_buffer=5)
    asked = sync.on_connected().need_snapshot
    answer: tuple[DepthSnapshot, int] | None = None
    sent: list[DepthDiff] = []
    for action in actions:
        result = None
        if action == "diff":
            sent.append(venue.step())
            result = sync.on_diff(sent[-1])
        elif action == "lost":
            venue.step()
        elif action == "repeated" and sent:
            result = sync.on_diff(venue.random.choice(sent))
        elif action == "ask" and asked:
            answer, asked = (venue.snapshot(), sync.epoch), False
        elif action == "answer" and answer:
            result = sync.on_snapshot(*answer)
            answer = None
        elif action == "fail" and answer:
            answer, result = None, sync.on_snapshot_failed()
        elif action == "disconnect":
            sync.on_disconnected()
            asked = False
        elif action == "connect":
            result = sync.on_connected()
        elif action == "quote":
            bids, asks = venue.snapshot().bids, venue.snapshot().asks
            best = (*(bids[0] if bids else ("0", "0")), *(asks[0] if asks else ("0", "0")))
            result = sync.on_quote(BestQuote(PAIR, venue.update_id, *best))
        if result is not None:
            asked = asked or result.need_snapshot
            assert result.applied <= (sync.state is SyncState.SYNCED)
        assert sync.awaiting_snapshot == (sync.state is SyncState.BUFFERING)
        if sync.state is SyncState.BUFFERING:
            assert asked or answer is not None
        if sync.state is SyncState.SYNCED:
            bids, asks = venue.history[sync.update_id]
            assert sync.book.depth() == (bids, asks)
    assert sync.counters.bbo_checked == sync.counters.bbo_equal
