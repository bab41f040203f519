"""Where a book stands with its venue, kept so that compiled code can move it on.

:class:`engine.book.BookSync` is built on :class:`Standing` and decides everything; the hot path takes from it the two
cases that nearly every message is: a diff that continues the ids of a book in sync, by the rule of ranges, and a best
quote that is ahead of the book.
"""

cimport cython

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


@cython.final
cdef class UnreadQuote:
    """A best quote as an :class:`~engine.book.events.BestQuote`, whose prices and sizes stay in their frame until they are
    asked for: most quotes are passed by the book without being compared.
    """

    @property
    def bid(self):
        return self._text(0)

    @property
    def bid_size(self):
        return self._text(1)

    @property
    def ask(self):
        return self._text(2)

    @property
    def ask_size(self):
        return self._text(3)

    cdef str _text(self, int number):
        return self._frame[self._spans[number].start : self._spans[number].end].decode("ascii")


cdef UnreadQuote unread_quote(int64_t update_id, bytes frame, const Span* spans):
    """``spans``: where ``frame`` has bid, its size, ask and its size, all of ASCII characters."""
    cdef UnreadQuote quote = UnreadQuote()
    cdef int n
    quote.update_id = update_id
    quote._frame = frame
    for n in range(4):
        quote._spans[n] = spans[n]
    return quote


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

    cdef bint awaits_quote(self, int64_t update_id) except -1:
        """Whether a best quote of this id, put behind those that wait, would wait for the book to get there."""
        cdef object quotes = self._quotes
        cdef Py_ssize_t count
        if self.state is not SYNCED or update_id <= self.update_id:
            return False
        count = len(quotes)
        return count == 0 or (count < self._max_quotes and quotes[count - 1].update_id < update_id)

    cdef bint is_quoted(self) except -1:
        """Drops the best quotes that the book has passed; whether the next one is of the very id that it stands at."""
        cdef object quotes = self._quotes
        while quotes and quotes[0].update_id < self.update_id:
            quotes.popleft()
        return bool(quotes) and quotes[0].update_id == self.update_id
