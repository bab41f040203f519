from libc.stdint cimport int64_t

from engine.book.decimals cimport Wide
from engine.book.ladder cimport Ladder, Level
from engine.book.queries cimport Cells

cdef class OrderBook:
    cdef readonly str pair
    cdef readonly int price_exponent
    cdef readonly int size_exponent
    cdef readonly bint is_valid
    cdef readonly bint is_wide
    cdef readonly long long rescales
    cdef readonly str invalid_reason
    cdef int _first_price_exponent
    cdef int _first_size_exponent
    cdef Ladder _bids
    cdef Ladder _asks
    cdef set _bid_changes  # keys of levels since the last ``changes``; None while nobody follows
    cdef set _ask_changes
    cdef bint _replaced

    cpdef void apply_diff(self, object bids, object asks) except *
    cpdef void apply_snapshot(self, object bids, object asks) except *
    cpdef void clear(self) except *
    cpdef Py_ssize_t truncate(self, Py_ssize_t depth) except -1
    cpdef bint best_equals(self, object bid, object bid_size, object ask, object ask_size) except -1
    cdef int _update_side(self, Ladder* ladder, object entries) except -1
    cdef int _load_side(self, Ladder* ladder, object entries) except -1
    cdef int _read_level(self, object entry, int64_t* price, Wide* size) except -1
    cdef int _read_size(self, object text, Wide* size) except -1
    cdef int _read_unusual_size(self, object text, Wide* size) except -1
    cdef int _read_price(self, object text, int64_t* price) except -1
    cdef int _rescale(self, bint prices, int exponent, object text) except -1
    cdef bint _sizes_fit(self, int places, bint wide) noexcept
    cdef int _widen(self) except -1
    cdef int _narrow(self) noexcept
    cdef int set_levels(
        self, const Level* bids, Py_ssize_t bid_count, const Level* asks, Py_ssize_t ask_count
    ) except -1
    cdef int _check(self) except -1
    cdef Cells _facing(self, object side) except *
    cdef Py_ssize_t _limit(self, object n) except -1
    cdef object _best(self, Ladder* ladder)
    cdef bint _top_equals(self, Ladder* ladder, object price_text, object size_text) except -1
    cdef list _changed(self, Ladder* ladder, set keys)
    cdef bytes _cells(self, Ladder* ladder, Py_ssize_t limit)
    cdef int _load_cells(self, Ladder* ladder, bytes cells) except -1
    cdef list _strings(self, Ladder* ladder, Py_ssize_t limit)
    cdef object _array(self, Ladder* ladder, Py_ssize_t limit)
