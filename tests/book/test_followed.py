"""A book followed by its changes ends as the book itself, whatever was lost, or says that it is not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import FollowedBook, OrderBook
from engine.messages import BookChanged, BookSnapshot

PAIR = "A-B"
BIDS, ASKS = [("10.5", "1"), ("10", "2")], [("11", "3")]


class Publisher:
    """What the order-book actor does with one book."""

    def __init__(self) -> None:
        self.book = OrderBook(PAIR, -1, 0)
        self.book.apply_snapshot(BIDS, ASKS)
        self.sequence = 0
        self.is_synced = True

    def change(self) -> BookChanged:
        self.sequence += 1
        whole, bids, asks = self.book.changes() if self.is_synced else (False, [], [])
        state = "synced" if self.is_synced else "buffering"
        return BookChanged(
            connector="c", pair=PAIR, sequence=self.sequence, update_id=self.sequence, time_ns=0, received_mono_ns=0,
            state=state, whole=whole, bids=bids, asks=asks,
        )  # fmt: skip

    def snapshot(self) -> BookSnapshot:
        bids, asks = self.book.depth_strings() if self.is_synced else ([], [])
        state = "synced" if self.is_synced else "buffering"
        return BookSnapshot(
            connector="c", pair=PAIR, sequence=self.sequence, update_id=self.sequence, time_ns=0, state=state,
            bids=bids, asks=asks,
        )  # fmt: skip


def test_the_first_change_is_the_whole_book_and_the_next_ones_what_changed() -> None:
    publisher = Publisher()
    first = publisher.change()
    assert (first.whole, first.bids, first.asks) == (True, [("10.5", "1"), ("10.0", "2")], [("11.0", "3")])
    publisher.book.apply_diff([("10.5", "0"), ("9", "0"), ("10.2", "7")], [])
    second = publisher.change()
    assert (second.whole, second.bids, second.asks) == (False, [("10.5", "0"), ("10.2", "7"), ("9.0", "0")], [])
    assert publisher.change().bids == []
    publisher.book.truncate(1)
    assert publisher.change().bids == [("10.0", "0")]
    publisher.book.apply_diff([], [("11.55", "1")])
    assert publisher.change().whole, "prices have other steps from here on"
    publisher.book.apply_snapshot(ASKS, [])
    assert publisher.change().whole
    publisher.book.forget_changes()
    assert publisher.change().whole


def test_who_comes_late_asks_for_a_snapshot_and_goes_on_from_it() -> None:
    publisher = Publisher()
    publisher.change()
    late = FollowedBook(PAIR)
    publisher.book.apply_diff([("10.6", "5")], [])
    assert late.on_changed(publisher.change())
    snapshot = publisher.snapshot()
    publisher.book.apply_diff([("10.7", "6")], [])
    assert not late.on_changed(publisher.change())
    assert not late.is_synced
    assert not late.on_snapshot(snapshot)
    assert late.is_synced
    assert late.book.depth() == publisher.book.depth()
    assert late.update_id == 3


def test_a_hole_is_seen_and_mended() -> None:
    publisher, follower = Publisher(), FollowedBook(PAIR)
    follower.on_changed(publisher.change())
    publisher.book.apply_diff([("10.6", "5")], [])
    publisher.change()  # is lost
    publisher.book.apply_diff([("10.7", "6")], [])
    assert follower.on_changed(publisher.change())
    assert (follower.is_synced, follower.lost) == (False, 1)
    assert not follower.on_snapshot(publisher.snapshot())
    assert follower.is_synced
    assert follower.book.depth() == publisher.book.depth()


def test_a_book_out_of_sync_at_its_source_is_so_at_the_far_end() -> None:
    publisher, follower = Publisher(), FollowedBook(PAIR)
    follower.on_changed(publisher.change())
    publisher.is_synced = False
    follower.on_changed(publisher.change())
    assert not follower.is_synced
    publisher.is_synced = True
    publisher.book.apply_snapshot(BIDS[:1], ASKS)
    follower.on_changed(publisher.change())
    assert follower.is_synced
    assert follower.book.depth() == publisher.book.depth()


level = st.tuples(
    st.decimals(min_value=1, max_value=3, places=2).map(str),
    st.integers(0, 3).map(str) | st.just("123456789012345678901.5"),
)
step = st.tuples(
    st.sampled_from(["diff", "snapshot", "cut", "unsynced", "forgotten"]),
    st.lists(level, max_size=4),
    st.sampled_from(["arrives", "lost", "lost and told", "snapshot asked for", "snapshot late"]),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(step, max_size=25))
def test_whatever_is_lost_a_follower_in_sync_has_the_very_book(
    steps: list[tuple[str, list[tuple[str, str]], str]],
) -> None:
    publisher, follower = Publisher(), FollowedBook(PAIR)
    late: BookSnapshot | None = None
    for what, levels, fate in steps:
        if what == "unsynced":
            publisher.is_synced = False
        elif what == "snapshot" or not publisher.is_synced:
            publisher.book.apply_snapshot(levels, ASKS)
            publisher.is_synced = True
        elif what == "diff":
            publisher.book.apply_diff(levels[:2], levels[2:])
        elif what == "cut":
            publisher.book.truncate(2)
        else:
            publisher.book.forget_changes()
        change = publisher.change()
        if fate == "lost and told":
            follower.on_lost()
        elif fate != "lost" and follower.on_changed(change) and fate == "snapshot asked for":
            follower.on_snapshot(publisher.snapshot())
        if late is not None:
            follower.on_snapshot(late)
        late = publisher.snapshot() if fate == "snapshot late" else None
        if follower.is_synced and fate not in ("lost",) and follower.sequence == publisher.sequence:
            assert follower.book.depth() == publisher.book.depth()
    if follower.on_changed(publisher.change()) or follower.sequence is None:
        assert not follower.on_snapshot(publisher.snapshot())
    assert follower.is_synced is publisher.is_synced
    if follower.is_synced:
        assert follower.book.depth() == publisher.book.depth()
