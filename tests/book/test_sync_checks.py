"""What a book does beyond its sequence: checksums, the depth's cap, ids that must be wrong, audits."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from engine.book import (
    BestQuote,
    BookSync,
    ChecksumRule,
    DepthDiff,
    DepthSnapshot,
    KrakenChecksum,
    OkxChecksum,
    OrderBook,
    PreviousIdRule,
    RangeRule,
    SequenceRule,
    SyncReason,
    SyncResult,
    SyncState,
    UnnumberedRule,
)
from engine.book.reference import ReferenceBook
from engine.errors import BookError

PAIR = "ETH-USDT"
Levels = list[tuple[str, str]]
BIDS: Levels = [("100", "1"), ("99", "5")]
ASKS: Levels = [("101", "2"), ("102", "5")]


def diff(first: int, last: int, bids: Levels | None = None, asks: Levels | None = None, **more: int) -> DepthDiff:
    return DepthDiff(
        PAIR, first, last, more.get("previous"), bids or [], asks or [], more.get("at", 0), more.get("sum")
    )


def quote(update_id: int) -> BestQuote:
    return BestQuote(PAIR, update_id, "100", "1", "101", "2")


def synced(rule: SequenceRule, update_id: int = 100, depth: int = 0, **options: int) -> BookSync:
    sync = BookSync(OrderBook(PAIR, -2, -3), rule, **options)
    sync.on_connected()
    assert sync.on_snapshot(DepthSnapshot(PAIR, update_id, BIDS, ASKS, depth=depth)).applied
    return sync


def kraken_sum(bids: Levels, asks: Levels) -> int:
    return zlib.crc32("".join(f"{price}{size}" for price, size in (*asks, *bids)).encode())


# ------------------------------------------------------------------------------------------- ids that must be wrong


def test_an_id_far_too_large_does_not_leave_a_book_in_sync_that_takes_nothing_any_more() -> None:
    sync = synced(RangeRule(), max_old_diffs=10)
    assert sync.on_diff(diff(101, 10**15)).applied
    results = [sync.on_diff(diff(update, update)) for update in range(102, 112)]
    assert [result.reason for result in results] == [SyncReason.OLD_DIFF] * 9 + [SyncReason.OLD_RUN]
    assert results[-1].need_snapshot
    assert (sync.counters.old_runs, sync.counters.resyncs) == (1, 1)
    assert sync.on_snapshot(DepthSnapshot(PAIR, 110, BIDS, ASKS)).applied
    assert sync.on_diff(diff(112, 112)).applied
    assert sync.update_id == 112


def test_a_snapshot_s_id_far_too_large_is_found_out_as_well() -> None:
    sync = synced(RangeRule(), update_id=10**15, max_old_diffs=10)
    for update in range(100, 110):
        sync.on_diff(diff(update, update))
    assert sync.state is SyncState.BUFFERING
    assert sync.counters.old_runs == 1


def test_quotes_alone_show_it_too() -> None:
    sync = synced(RangeRule(), update_id=10**15, max_old_quotes=10)
    results = [sync.on_quote(quote(update)) for update in range(10)]
    assert [result.need_snapshot for result in results] == [False] * 9 + [True]
    assert results[-1].reason is SyncReason.OLD_RUN


def test_old_messages_between_new_ones_are_nothing_to_worry_about() -> None:
    sync = synced(RangeRule(), max_old_diffs=3, max_old_quotes=3)
    for update in range(101, 150):
        assert sync.on_diff(diff(update, update)).applied
        for _ in range(2):
            assert sync.on_diff(diff(90, 95)).reason is SyncReason.OLD_DIFF
            assert not sync.on_quote(quote(90)).need_snapshot
    assert sync.counters.old_runs == 0


@pytest.mark.parametrize("rule", [RangeRule, PreviousIdRule])
def test_a_gap_that_was_a_wrong_id_does_not_block_the_buffer(rule: Callable[[], SequenceRule]) -> None:
    sync = synced(rule())
    assert sync.on_diff(diff(10**15, 10**15, previous=10**15 - 1)).reason is SyncReason.GAP
    for update in range(102, 106):
        sync.on_diff(diff(update, update, previous=update - 1))
    result = sync.on_snapshot(DepthSnapshot(PAIR, 103, BIDS, ASKS))
    assert result.applied
    assert (sync.state, sync.update_id) == (SyncState.SYNCED, 105)


def test_a_wrong_id_in_the_middle_of_the_buffer_costs_one_more_snapshot() -> None:
    sync = BookSync(OrderBook(PAIR, -2, -3), RangeRule())
    sync.on_connected()
    for update in (101, 102, 10**15, 104, 10**16, 105):
        sync.on_diff(diff(update, update))
    assert sync.on_snapshot(DepthSnapshot(PAIR, 100, BIDS, ASKS)).reason is SyncReason.GAP
    assert sync.on_snapshot(DepthSnapshot(PAIR, 103, BIDS, ASKS)).reason is SyncReason.GAP
    assert sync.on_snapshot(DepthSnapshot(PAIR, 104, BIDS, ASKS)).applied
    assert sync.update_id == 105


# ---------------------------------------------------------------------------------------------- checksums, the cap


def test_a_checksum_that_holds_is_counted_and_one_that_fails_gives_the_book_up() -> None:
    sync = synced(ChecksumRule(KrakenChecksum()))
    bids = [("100", "7"), BIDS[1]]
    assert sync.on_diff(diff(0, 0, [("100", "7")], sum=kraken_sum(bids, ASKS))).applied
    result = sync.on_diff(diff(0, 0, [("98", "1")], sum=1))
    assert (result.applied, result.need_snapshot, result.reason) == (False, True, SyncReason.CHECKSUM)
    assert sync.state is SyncState.BUFFERING
    assert (sync.counters.checksums_ok, sync.counters.checksums_failed, sync.counters.resyncs) == (1, 1, 1)
    assert sync.on_snapshot(DepthSnapshot(PAIR, 0, BIDS, ASKS)).applied
    assert sync.on_diff(diff(0, 0, sum=kraken_sum(BIDS, ASKS))).applied


def test_a_lost_message_shows_in_the_next_checksum() -> None:
    sync = synced(ChecksumRule(KrakenChecksum()))
    lost = [("100", "3"), BIDS[1]]
    asks = [("101", "9"), ASKS[1]]
    assert sync.on_diff(diff(0, 0, None, [("101", "9")], sum=kraken_sum(lost, asks))).reason is SyncReason.CHECKSUM


def test_a_snapshot_s_own_checksum_counts() -> None:
    rule = PreviousIdRule(replacing=True, resets=True, checksum=OkxChecksum())
    sync = BookSync(OrderBook(PAIR, -2, -3), rule)
    sync.on_connected()
    assert sync.on_snapshot(DepthSnapshot(PAIR, 1, BIDS, ASKS, checksum=5)).reason is SyncReason.CHECKSUM
    total = zlib.crc32(b"100:1:101:2:99:5:102:5")
    assert sync.on_snapshot(DepthSnapshot(PAIR, 2, BIDS, ASKS, checksum=total - (total >> 31 << 32))).applied
    assert (sync.counters.checksums_ok, sync.counters.checksums_failed) == (1, 1)


def test_messages_without_a_checksum_are_taken_as_they_are() -> None:
    sync = synced(ChecksumRule(KrakenChecksum()))
    assert sync.on_diff(diff(0, 0, [("98", "1")])).applied
    assert (sync.counters.checksums_ok, sync.counters.checksums_failed) == (0, 0)


def test_levels_beyond_the_subscribed_depth_go_before_the_checksum() -> None:
    sync = synced(ChecksumRule(KrakenChecksum()), depth=2)
    better = [("100.5", "1"), ("100", "1")]
    total = zlib.crc32(b"101210251005110" + b"01")
    assert sync.on_diff(diff(0, 0, [("100.5", "1")], sum=total)).applied
    assert sync.book.depth_strings()[0] == [(f"{float(price):.2f}", f"{size}.000") for price, size in better]
    assert sync.book.bid_count == 2


def test_truncating_is_what_the_reference_does() -> None:
    book, reference = OrderBook(PAIR, 0, 0), ReferenceBook(PAIR, 0, 0)
    bids = [(str(price), "1") for price in range(90, 60, -1)]
    asks = [(str(price), "2") for price in range(91, 100)]
    for one in (book, reference):
        one.apply_snapshot(bids, asks)
    for depth in (40, 12, 9, 3, 3, 0):
        assert book.truncate(depth) == reference.truncate(depth)
        assert book.depth() == reference.depth()
    with pytest.raises(BookError, match="-1"):
        book.truncate(-1)


# ----------------------------------------------------------------------------------------------- books in the stream


def test_a_snapshot_in_the_stream_holds_all_that_came_before_it() -> None:
    sync = BookSync(OrderBook(PAIR, -2, -3), UnnumberedRule())
    sync.on_connected()
    assert sync.on_diff(diff(0, 0, [("100", "9")])).reason is SyncReason.BUFFERED
    assert sync.on_snapshot(DepthSnapshot(PAIR, 0, BIDS, ASKS)).applied
    assert sync.book.best_raw()[1] == 1000
    assert (sync.update_id, sync.counters.dropped, sync.buffered) == (1, 1, 0)
    sync.on_diff(diff(0, 0, [("103", "1")]))
    assert sync.state is SyncState.BUFFERING
    assert sync.counters.crossed == 1


def test_a_loss_on_the_connection_costs_a_book_its_sync() -> None:
    sync = synced(UnnumberedRule())
    result = sync.on_loss("frame 7 is missing")
    assert (result.need_snapshot, result.reason, result.detail) == (True, SyncReason.GAP, "frame 7 is missing")
    assert not sync.on_loss("again").need_snapshot
    assert (sync.counters.gaps, sync.counters.resyncs) == (1, 1)


# ------------------------------------------------------------------------------------------------------------ audits


def timed(bid_size: str, at: int) -> DepthDiff:
    return diff(0, 0, [("100", bid_size)], at=at)


def book_at(at: int, bid_size: str, update_id: int = 0) -> DepthSnapshot:
    return DepthSnapshot(PAIR, update_id, [("100", bid_size), ("99", "5.0")], ASKS, at)


def test_an_audit_finds_the_book_of_the_snapshot_s_moment() -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(timed("2", 10))
    sync.begin_audit()
    for size, at in (("3", 20), ("4", 30), ("5", 40)):
        assert sync.on_diff(timed(size, at)).applied
    result = sync.on_audit(book_at(25, "3"))
    assert (result.reason, result.need_snapshot, result.detail) == (SyncReason.AUDIT, False, "")
    assert (sync.counters.audits, sync.counters.audit_mismatches) == (1, 0)
    assert sync.state is SyncState.SYNCED


def test_a_book_that_differs_from_its_audit_is_given_up() -> None:
    sync = synced(UnnumberedRule())
    sync.begin_audit()
    sync.on_diff(timed("3", 20))
    sync.on_diff(timed("4", 30))
    result = sync.on_audit(book_at(25, "9"))
    assert (result.reason, result.need_snapshot) == (SyncReason.AUDIT, True)
    assert (sync.counters.audits, sync.counters.audit_mismatches, sync.counters.resyncs) == (1, 1, 1)
    assert sync.state is SyncState.BUFFERING


@pytest.mark.parametrize(("at", "says"), [(5, "did not stand"), (40, "has not passed"), (0, "no time")])
def test_an_audit_that_cannot_be_compared_says_so_and_counts_nothing(at: int, says: str) -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(timed("2", 10))
    sync.begin_audit()
    sync.on_diff(timed("3", 20))
    result = sync.on_audit(book_at(at, "9"))
    assert "not comparable" in result.detail
    assert says in result.detail
    assert (sync.counters.audits, sync.state) == (0, SyncState.SYNCED)


def test_times_of_stream_and_snapshot_may_differ_by_the_tolerance() -> None:
    for tolerance, audits in ((0, (1, 1)), (6, (1, 0))):
        sync = synced(UnnumberedRule())
        sync.begin_audit(tolerance_ns=tolerance)
        for size, at in (("3", 20), ("4", 30), ("5", 40)):
            sync.on_diff(timed(size, at))
        sync.on_audit(book_at(25, "4"))
        assert (sync.counters.audits, sync.counters.audit_mismatches) == audits


def test_numbered_books_are_compared_at_the_very_id() -> None:
    sync = synced(RangeRule())
    sync.begin_audit(levels=1)
    sync.on_diff(diff(101, 103, [("100", "3")]))
    sync.on_diff(diff(104, 106, [("100", "4")]))
    assert "did not stand" in sync.on_audit(book_at(0, "3", 105)).detail
    sync.begin_audit()
    assert sync.on_audit(book_at(0, "4", 106)).detail == ""
    sync.begin_audit()
    assert sync.on_audit(book_at(0, "8", 106)).need_snapshot
    assert (sync.counters.audits, sync.counters.audit_mismatches) == (2, 1)


def test_an_audit_without_an_answer_or_of_a_book_out_of_sync_is_none() -> None:
    sync = synced(UnnumberedRule())
    assert "not comparable" in sync.on_audit(book_at(1, "1")).detail
    sync.begin_audit()
    assert "not comparable" in sync.on_audit(None).detail
    sync.begin_audit()
    sync.on_loss("gone")
    assert "not comparable" in sync.on_audit(book_at(1, "1")).detail
    sync.begin_audit()
    assert sync.counters.audits == 0


def test_a_snapshot_that_cannot_be_read_is_not_comparable() -> None:
    sync = synced(RangeRule())
    sync.begin_audit()
    assert "cannot be read" in sync.on_audit(DepthSnapshot(PAIR, 100, [("x", "1")], [])).detail


@pytest.mark.parametrize(("bid_size", "mismatches"), [("2", 0), ("3", 0), ("4", 0), ("9", 1)])
def test_a_snapshot_of_no_known_moment_may_be_the_book_of_any_moment_around_it(bid_size: str, mismatches: int) -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(timed("2", 10))
    sync.begin_audit(any_moment=True)
    sync.on_diff(timed("3", 20))
    sync.on_diff(timed("4", 30))
    assert sync.on_audit(book_at(0, bid_size)).need_snapshot is bool(mismatches)
    assert (sync.counters.audits, sync.counters.audit_mismatches) == (1, mismatches)


def batch(at: int, *bids: tuple[str, str]) -> DepthDiff:
    return diff(0, 0, list(bids), at=at)


def audited(sync: BookSync, at: int, bids: list[tuple[str, str]], levels: int = 10) -> SyncResult:
    """After two more batches, 10 apart, around which nothing but the best bid changes."""
    sync.begin_audit(levels=levels, tolerance_ns=5, batched=True)
    for size, passed in (("3", 10), ("4", 20), ("5", 30)):
        sync.on_diff(batch(at - 15 + passed, ("100", size)))
    return sync.on_audit(DepthSnapshot(PAIR, 0, bids, ASKS, at))


def test_between_two_batches_only_what_did_not_change_must_be_the_snapshot_s() -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(batch(1, ("100", "2")))
    result = audited(sync, 100, [("100", "3.5"), ("99", "5.0")])
    assert (result.reason, sync.counters.audits, sync.is_suspected) == (SyncReason.AUDIT, 1, False)
    assert audited(sync, 200, [("99", "5.0")]).reason is SyncReason.AUDIT, "the best bid was gone for a moment"
    assert audited(sync, 300, [("99", "5.0")], levels=1).reason is SyncReason.AUDIT, "nothing is known of further ones"
    assert (sync.counters.audits, sync.counters.audit_mismatches) == (3, 0)


@pytest.mark.parametrize(
    "told", [[("100", "4")], [("100", "4"), ("99", "6")], [("100", "4"), ("99.5", "1"), ("99", "5")]]
)
def test_a_difference_that_a_second_audit_confirms_costs_a_book_its_sync(told: list[tuple[str, str]]) -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(batch(1, ("100", "2")))
    result = audited(sync, 100, told)
    assert (result.reason, result.need_snapshot, sync.is_suspected) == (SyncReason.AUDIT_SKIPPED, False, True)
    assert "to be confirmed" in result.detail
    result = audited(sync, 200, told)
    assert (result.reason, result.need_snapshot) == (SyncReason.AUDIT, True)
    assert (sync.counters.audits, sync.counters.audit_mismatches, sync.counters.resyncs) == (1, 1, 1)
    sync.on_snapshot(DepthSnapshot(PAIR, 0, BIDS, ASKS))
    assert not sync.is_suspected


def test_a_difference_that_is_gone_at_the_second_audit_was_a_level_that_came_and_went() -> None:
    sync = synced(UnnumberedRule())
    sync.on_diff(batch(1, ("100", "2")))
    for number, flicker in enumerate(("99.5", "99.6")):
        result = audited(sync, 100 + 100 * number, [("100", "4"), (flicker, "1"), ("99", "5")])
        assert (result.reason, sync.state) == (SyncReason.AUDIT_SKIPPED, SyncState.SYNCED)
    assert audited(sync, 400, [("100", "4"), ("99", "5")]).reason is SyncReason.AUDIT
    assert (sync.is_suspected, sync.counters.audits) == (False, 1)
