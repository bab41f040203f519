from libc.stdint cimport int64_t

from engine.book.ladder cimport Level
from engine.book.order_book cimport OrderBook

cdef class SyncCounters:
    cdef public long long updates
    cdef public long long snapshots
    cdef public long long gaps
    cdef public long long resyncs
    cdef public long long rescales
    cdef public long long crossed
    cdef public long long bad_values
    cdef public long long overflows
    cdef public long long dropped
    cdef public long long bbo_checked
    cdef public long long bbo_equal
    cdef public long long checksums_ok
    cdef public long long checksums_failed
    cdef public long long old_runs
    cdef public long long audits
    cdef public long long audit_mismatches

cdef struct Span:
    Py_ssize_t start
    Py_ssize_t end

cdef class UnreadQuote:
    cdef readonly int64_t update_id
    cdef bytes _frame
    cdef Span[4] _spans

    cdef str _text(self, int number)

cdef class Standing:
    cdef public OrderBook book
    cdef public SyncCounters counters
    cdef public object state
    cdef public int64_t update_id
    cdef public int64_t time_ns
    cdef public object _quotes
    cdef public long long _max_quotes
    cdef public bint _ranged
    cdef public bint _follows_snapshot
    cdef public bint _checks
    cdef public long long _old_diffs
    cdef public long long _old_quotes

    cdef bint continues_at(self, int64_t first_id, int64_t last_id) noexcept
    cdef bint put(
        self, int64_t last_id, int64_t time_ns, const Level* bids, Py_ssize_t bid_count, const Level* asks,
        Py_ssize_t ask_count
    ) except -1
    cdef bint awaits_quote(self, int64_t update_id) except -1
    cdef bint is_quoted(self) except -1

cdef UnreadQuote unread_quote(int64_t update_id, bytes frame, const Span* spans)
