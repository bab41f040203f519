from libc.stdint cimport int64_t, uint64_t

from engine.book.ladder cimport Level
from engine.book.standing cimport Span, Standing

cdef enum:
    SHORTEST_LEVEL = 10  # bytes: ["1","1"],

cdef struct Diff:
    const char* end  # of the frame, where a zero byte is
    const char* levels  # where they begin
    const char* symbol
    Py_ssize_t symbol_length
    uint64_t symbol_low  # its first eight bytes, and its next eight
    uint64_t symbol_high
    int64_t first_id
    int64_t last_id
    int64_t time_ns
    Level* bids  # room for ``room`` levels of both sides together
    Py_ssize_t room
    Py_ssize_t bid_count
    Py_ssize_t ask_count
    Span[4] quoted  # of a best quote: bid, its size, ask and its size, in the frame

cdef class FrameScanner:
    cdef bint head(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil
    cdef bint body(self, Diff* diff, int price_exponent, int size_exponent) noexcept nogil
    cdef bint quote(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil

cdef class FeedCounters:
    cdef public long long frames
    cdef public long long unparsed
    cdef public long long diffs
    cdef public long long quotes
    cdef public long long trades
    cdef public long long unknown

cdef class Revision:
    cdef public long long number

cdef class Lane:
    cdef uint64_t symbol_low
    cdef uint64_t symbol_high
    cdef Py_ssize_t symbol_length  # a shorter symbol and zero bytes would have the same words
    cdef str pair
    cdef Standing sync
    cdef object ready

cdef class FrameIntake:
    cdef public dict books
    cdef public FeedCounters counters
    cdef public int64_t last_frame_mono_ns
    cdef readonly long long hot
    cdef readonly object nothing
    cdef FrameScanner _scanner
    cdef object _symbols
    cdef Revision _revision
    cdef long long _seen
    cdef list _lanes
    cdef void** _table  # of borrowed lanes, open addressing
    cdef size_t _mask
    cdef Level* _levels
    cdef Py_ssize_t _room

    cdef object _take(self, bytes data)
    cdef object _take_quote(self, bytes data, Diff* diff)
    cdef Lane _lane_of(self, const Diff* diff)
    cdef Lane _new_lane(self, const Diff* diff)
    cdef int _forget(self) except -1
    cdef int _make_table(self, size_t size) except -1
    cdef int _make_room(self, Py_ssize_t room) except -1

cdef str symbol_of(const Diff* diff)
