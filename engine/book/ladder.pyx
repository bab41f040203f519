"""One side of a book: a sorted array of levels whose best is at the end, so that updates near the top move a handful
of bytes, and most are near the top.

Keys are prices × direction, and ascend towards the best on both sides. The sizes of a *wide* book have a second word
each, in an array beside the levels. No Python object is made here but where a level is shown.
"""

from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove

from engine.book.decimals cimport WORD, Wide, shift, shift_wide

cdef extern from *:
    """
    #include <stdint.h>

    /* One step of a merge without a branch on its data, which no processor could predict: the empty assembly keeps the
       compiler from putting one back. ``level`` and ``change`` are the best not yet merged of each; the better is
       written to ``out``, the change where both are as good, and what is not behind it is passed. Answers whether
       ``out`` is to be kept: a change of size 0 is not. */
    #define merge_step(level, change, out) ({                                                          \
        intptr_t above = (level)->key > (change)->key, equal = (level)->key == (change)->key, kept;    \
        __asm__("" : "+r"(above));                                                                     \
        kept = above | ((change)->size != 0);                                                          \
        *(out) = *(__typeof__(level))((intptr_t)(level)                                                \
            + (((intptr_t)(change) - (intptr_t)(level)) & (above - 1)));                               \
        (level) -= above | equal;                                                                      \
        (change) += 1 - above;                                                                         \
        kept;                                                                                          \
    })
    """
    int merge_step(const Level* level, const Level* change, Level* out) nogil

cdef Py_ssize_t FIRST_CAPACITY = 256

cdef enum:
    WINDOW = 64  # best levels, within which a side's changes are merged in one pass


cdef int reserve(Ladder* ladder, Py_ssize_t count) except -1:
    """Makes room for ``count`` levels in all."""
    cdef Py_ssize_t capacity = max(ladder.capacity, FIRST_CAPACITY)
    cdef Level* levels
    cdef int64_t* high
    if count <= ladder.capacity:
        return 0
    while capacity < count:
        capacity *= 2
    if ladder.high != NULL:
        high = <int64_t*>realloc(ladder.high, capacity * sizeof(int64_t))
        if high == NULL:
            raise MemoryError()
        ladder.high = high
    levels = <Level*>realloc(ladder.levels, capacity * sizeof(Level))
    if levels == NULL:
        raise MemoryError()
    ladder.levels = levels
    ladder.capacity = capacity
    return 0


cdef int widen(Ladder* ladder) except -1:
    """Splits each size in two words."""
    cdef Py_ssize_t i
    reserve(ladder, FIRST_CAPACITY)
    ladder.high = <int64_t*>malloc(ladder.capacity * sizeof(int64_t))
    if ladder.high == NULL:
        raise MemoryError()
    for i in range(ladder.count):
        ladder.high[i] = ladder.levels[i].size // WORD
        ladder.levels[i].size %= WORD
    return 0


cdef Py_ssize_t find(const Level* levels, Py_ssize_t high, int64_t key) noexcept nogil:
    """Index of the first level whose key is not below ``key``, at most ``high``: gallops down from there, then bisects."""
    cdef Py_ssize_t step = 1
    cdef Py_ssize_t low = high - 1
    cdef Py_ssize_t middle
    while low >= 0 and levels[low].key >= key:
        high = low
        low -= step
        step *= 2
    low = low + 1 if low >= 0 else 0
    while low < high:
        middle = (low + high) // 2
        if levels[middle].key < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef void put_levels(Ladder* ladder, const Level* changes, Py_ssize_t count) noexcept nogil:
    """Sets or removes ``count`` levels, for which there is room: in one pass those near the top, if all are in order."""
    cdef Py_ssize_t n
    cdef Py_ssize_t near = count
    cdef bint ordered = True
    for n in range(1, count):
        ordered &= changes[n].key < changes[n - 1].key
    if not ordered:
        put_each(ladder, changes, count)
        return
    if ladder.count > WINDOW:
        while near > 0 and changes[near - 1].key < ladder.levels[ladder.count - WINDOW].key:
            near -= 1
    if near < 2 or near > WINDOW:
        put_each(ladder, changes, count)
        return
    if near < count:
        put_each(ladder, changes + near, count - near)  # all below what is merged
    merge(ladder, changes, near)


cdef void merge(Ladder* ladder, const Level* changes, Py_ssize_t count) noexcept nogil:
    """Sets or removes levels that come best first, all within the best ``WINDOW``."""
    cdef Level[2 * WINDOW] merged
    cdef Level* out = merged
    cdef const Level* change = changes
    cdef const Level* end = changes + count
    cdef Level* bottom = ladder.levels
    cdef const Level* level = bottom + ladder.count - 1
    cdef Level* target
    while change < end and level >= bottom:
        out += merge_step(level, change, out)
    while change < end:
        out[0] = change[0]
        out += change.size != 0
        change += 1
    target = bottom + (level + 1 - bottom)
    ladder.count = (target - bottom) + (out - merged)
    while out > merged:
        out -= 1
        target[0] = out[0]
        target += 1


cdef void put_each(Ladder* ladder, const Level* changes, Py_ssize_t count) noexcept nogil:
    """Sets or removes levels one by one. Each search begins where the last one ended."""
    cdef Level* levels = ladder.levels
    cdef Py_ssize_t held = ladder.count
    cdef Py_ssize_t at = held
    cdef Py_ssize_t n
    cdef int64_t key
    for n in range(count):
        key = changes[n].key
        if at < held and levels[at].key < key:
            at = held
        at = find(levels, at, key)
        if at < held and levels[at].key == key:
            if changes[n].size == 0:
                held -= 1
                memmove(&levels[at], &levels[at + 1], (held - at) * sizeof(Level))
            else:
                levels[at].size = changes[n].size
        elif changes[n].size != 0:
            memmove(&levels[at + 1], &levels[at], (held - at) * sizeof(Level))
            levels[at] = changes[n]
            held += 1
    ladder.count = held


cdef int set_level(Ladder* ladder, int64_t key, Wide size) except -1:
    cdef Py_ssize_t i = find(ladder.levels, ladder.count, key)
    cdef bint present = i < ladder.count and ladder.levels[i].key == key
    if size.low == 0 and size.high == 0:
        if present:
            ladder.count -= 1
            move(ladder, i, i + 1, ladder.count - i)
        return 0
    if not present:
        reserve(ladder, ladder.count + 1)
        move(ladder, i + 1, i, ladder.count - i)
        ladder.count += 1
        ladder.levels[i].key = key
    put_size(ladder, i, size)
    return 0


cdef void move(Ladder* ladder, Py_ssize_t target, Py_ssize_t source, Py_ssize_t count) noexcept nogil:
    memmove(&ladder.levels[target], &ladder.levels[source], count * sizeof(Level))
    if ladder.high != NULL:
        memmove(&ladder.high[target], &ladder.high[source], count * sizeof(int64_t))


cdef int arrange(Ladder* ladder) except -1:
    """Puts freshly appended levels in order; of several at one price the last stands, and those of size 0 go."""
    cdef Py_ssize_t i
    cdef Py_ssize_t count = ladder.count
    cdef Level* levels
    cdef int64_t* high
    cdef Wide size
    for i in range(count):
        if (ladder.levels[i].size == 0 and high_of(ladder, i) == 0) or (
            i > 0 and ladder.levels[i].key >= ladder.levels[i - 1].key
        ):
            break
    else:
        turn_round(ladder)
        return 0
    levels = <Level*>malloc(count * sizeof(Level))
    high = <int64_t*>calloc(count, sizeof(int64_t))
    try:
        if levels == NULL or high == NULL:
            raise MemoryError()
        memcpy(levels, ladder.levels, count * sizeof(Level))
        if ladder.high != NULL:
            memcpy(high, ladder.high, count * sizeof(int64_t))
        ladder.count = 0
        for i in range(count):
            size.high = high[i]
            size.low = levels[i].size
            set_level(ladder, levels[i].key, size)
    finally:
        free(levels)
        free(high)
    return 0


cdef void turn_round(Ladder* ladder) noexcept nogil:
    cdef Py_ssize_t i, other
    cdef Level level
    cdef int64_t high
    for i in range(ladder.count // 2):
        other = ladder.count - 1 - i
        level = ladder.levels[i]
        ladder.levels[i] = ladder.levels[other]
        ladder.levels[other] = level
        if ladder.high != NULL:
            high = ladder.high[i]
            ladder.high[i] = ladder.high[other]
            ladder.high[other] = high


cdef Py_ssize_t cut(Ladder* ladder, Py_ssize_t depth) noexcept nogil:
    """Keeps the best ``depth`` levels; answers how many it dropped."""
    cdef Py_ssize_t excess = ladder.count - depth
    if excess <= 0:
        return 0
    move(ladder, 0, excess, depth)
    ladder.count = depth
    return excess


cdef tuple best_of(const Ladder* ladder):
    """(price, size) mantissas of the best level; zeros if there is none."""
    return level_of(ladder, ladder.count - 1) if ladder.count else (0, 0)


cdef tuple level_of(const Ladder* ladder, Py_ssize_t at):
    size = ladder.levels[at].size
    if ladder.high != NULL:
        size += <object>ladder.high[at] * WORD
    return ladder.levels[at].key * ladder.direction, size


cdef int note(set keys, const Level* levels, Py_ssize_t count) except -1:
    """Adds the keys of ``count`` levels, of none if that is below 0."""
    cdef Py_ssize_t i
    for i in range(count):
        keys.add(levels[i].key)
    return 0


cdef bint joined(const Wide* size, int64_t* whole) noexcept nogil:
    """Writes a wide size as one word; false, and nothing written, if it does not fit."""
    if size.high > 9 or (size.high == 9 and size.low > INT64_MAX - 9 * WORD):
        return False
    whole[0] = size.high * WORD + size.low
    return True


cdef bint sizes_fit(const Ladder* ladder, int places, bint wide) noexcept nogil:
    """Whether every size of a book that is not wide, times ``10**places``, fits in 64 bits or in a wide mantissa."""
    cdef Py_ssize_t i
    cdef Wide size
    for i in range(ladder.count):
        size.high = 0
        size.low = ladder.levels[i].size
        if wide:
            if shift_wide(&size, places):
                return False
        elif shift(&size.low, places):
            return False
    return True


cdef bint shift_prices(Ladder* ladder, int places) noexcept nogil:
    """Multiplies every price by ``10**places``; true, half-way, if one does not fit."""
    cdef Py_ssize_t i
    for i in range(ladder.count):
        if shift(&ladder.levels[i].key, places):
            return True
    return False


cdef bint shift_sizes(Ladder* ladder, int places) noexcept nogil:
    """As :func:`shift_prices`, of sizes."""
    cdef Py_ssize_t i
    cdef Wide size
    for i in range(ladder.count):
        if ladder.high == NULL:
            if shift(&ladder.levels[i].size, places):
                return True
            continue
        size.high = ladder.high[i]
        size.low = ladder.levels[i].size
        if shift_wide(&size, places):
            return True
        put_size(ladder, i, size)
    return False
