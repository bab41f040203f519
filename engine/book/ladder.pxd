from libc.stdint cimport int64_t

from engine.book.decimals cimport Wide

cdef struct Level:
    int64_t key  # price × direction, so that both sides ascend towards their best level
    int64_t size  # of a wide book: what is below 10**18 of it

cdef struct Ladder:
    Level* levels
    Py_ssize_t count
    Py_ssize_t capacity
    int64_t direction  # 1 for bids, -1 for asks
    int64_t* high  # of a wide book: size // 10**18 of each level; otherwise NULL

cdef int reserve(Ladder* ladder, Py_ssize_t count) except -1
cdef int widen(Ladder* ladder) except -1
cdef Py_ssize_t find(const Level* levels, Py_ssize_t high, int64_t key) noexcept nogil
cdef void put_levels(Ladder* ladder, const Level* changes, Py_ssize_t count) noexcept nogil
cdef int set_level(Ladder* ladder, int64_t key, Wide size) except -1
cdef int arrange(Ladder* ladder) except -1
cdef Py_ssize_t cut(Ladder* ladder, Py_ssize_t depth) noexcept nogil
cdef tuple best_of(const Ladder* ladder)
cdef tuple level_of(const Ladder* ladder, Py_ssize_t at)
cdef int note(set keys, const Level* levels, Py_ssize_t count) except -1
cdef bint joined(const Wide* size, int64_t* whole) noexcept nogil
cdef bint sizes_fit(const Ladder* ladder, int places, bint wide) noexcept nogil
cdef bint shift_prices(Ladder* ladder, int places) noexcept nogil
cdef bint shift_sizes(Ladder* ladder, int places) noexcept nogil

cdef inline int64_t high_of(const Ladder* ladder, Py_ssize_t at) noexcept nogil:
    return ladder.high[at] if ladder.high != NULL else 0

cdef inline void put_size(Ladder* ladder, Py_ssize_t at, Wide size) noexcept nogil:
    ladder.levels[at].size = size.low
    if ladder.high != NULL:
        ladder.high[at] = size.high

cdef inline int64_t best_price(const Ladder* ladder) noexcept nogil:
    """Of a side that is not empty."""
    return ladder.levels[ladder.count - 1].key * ladder.direction

cdef inline bint crossed(const Ladder* bids, const Ladder* asks) noexcept nogil:
    if bids.count == 0 or asks.count == 0:
        return False
    return bids.levels[bids.count - 1].key >= -asks.levels[asks.count - 1].key
