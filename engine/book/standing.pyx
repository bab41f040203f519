"""Where a book stands with its venue, kept so that compiled code can move it on.

:class:`engine.book.BookSync` is built on :class:`Standing` and decides everything; the hot path takes from it the one
case that nearly every message is: a diff that continues the ids of a book in sync, by the rule of ranges.
"""

from engine.book.ladder cimport crossed

from engine.book.states import SyncState

cdef object SYNCED = SyncState.SYNCED
cdef object UNSYNCED = SyncState.UNSYNCED


cdef class SyncCounters:
    """Counts since the object was made.

    ``updates``: applied messages of the stream. ``snapshots``: applied snapshots. ``gaps``: missing messages
    found. ``resyncs``: how often a book once built had to be given up. ``rescales``: values finer than the
    book's exponents. ``crossed``, ``bad_values``: resyncs because the book was crossed, or a value could not
    be held. ``overflows``: diffs lost from a full buffer. ``dropped``: events without use, old or unasked
    for. ``bbo_checked``, ``bbo_equal``: quotes compared with the book at their very id, and found equal.
    ``checksums_ok``, ``checksums_failed``: the venue's checksums that the book met, or did not. ``old_runs``:
    resyncs because nothing but old messages came. ``audits``, ``audit_mismatches``: snapshots that could be
    compared with the book, and those that differed.
    """

    def __repr__(self):
        names = [name for name in dir(type(self)) if not name.startswith("_")]
        return f"SyncCounters({', '.join(f'{name}={getattr(self, name)}' for name in names if getattr(self, name))})"


cdef class Standing:
    """A book, its state and its place in the venue's sequence. ``_ranged``: its rule is the rule of ranges, as it is.

    ``state`` says what the book is worth, ``update_id`` where it stands (the last one, while out of sync),
    ``time_ns`` the venue's time of that update (0 if it does not say).
    """

    def __cinit__(self, *_, **__):
        self.counters = SyncCounters()
        self.state = UNSYNCED
        self._quotes = ()

    cdef bint continues_at(self, int64_t first_id, int64_t last_id) noexcept:
        """Whether a diff of this range is one that :meth:`put` may apply. It compares fields, which cannot raise."""
        return (
            self.state is SYNCED
            and self._ranged
            and not self._follows_snapshot
            and not self._checks
            and first_id - 1 <= self.update_id < last_id
            and self.book.is_valid
            and not self.book.is_wide
        )

    cdef bint put(
        self, int64_t last_id, int64_t time_ns, const Level* bids, Py_ssize_t bid_count, const Level* asks,
        Py_ssize_t ask_count
    ) except -1:
        """Applies a diff that continues the book. False, and standing where it stood, if that leaves the book crossed:
        ``BookSync.on_diff`` then judges the same diff anew, whose levels change nothing a second time."""
        cdef OrderBook book = self.book
        book.set_levels(bids, bid_count, asks, ask_count)
        if crossed(&book._bids, &book._asks):
            return False
        self._old_diffs = 0
        self._old_quotes = 0
        self.counters.updates += 1
        self.time_ns = time_ns
        self.update_id = last_id
        return True
