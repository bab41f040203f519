"""The two loops of :mod:`engine.fuzzing.torn`: one process writes a shared book without pause, another reads it.

Book number ``k`` of ``PATTERNS`` tells its number by every price, every size and how many levels it has, so that a copy
mixed of two of them shows.
"""

from libc.stdint cimport int64_t, uint64_t
from posix.resource cimport getrusage, rusage
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, clockid_t, timespec

from engine.book.layout cimport (
    ASK_COUNT, BID_COUNT, HEADER_WORDS, LEVELS, SEQUENCE, UPDATE_ID, copy_slot, load_acquire, newest_of
)
from engine.book.order_book cimport OrderBook
from engine.book.shared cimport BookReader, BookWriter

import os

cdef extern from "<sys/resource.h>" nogil:
    int RUSAGE_THREAD

PATTERNS = COUNT
DEPTH = MOST_LEVELS

cdef enum:
    COUNT = 16
    MOST_LEVELS = 50
    FEWEST_BIDS = 10
    MOST_ASKS = 30
    BATCH = 64  # reads between two looks at the CPU clock
    WHOLE = 8  # every so many reads copy all levels, the others the best
    SYNCED = 2
    BUSY = 3


def pattern(int64_t k):
    """Book number ``k``, from 0 to ``PATTERNS`` − 1."""
    book = OrderBook("ETH-USDT", 0, 0)
    size, middle = str(k + 1), (k + 1) * 10_000
    book.apply_snapshot(
        [(str(middle - i), size) for i in range(FEWEST_BIDS + k)],
        [(str(middle + 1 + i), size) for i in range(MOST_ASKS - k)],
    )
    return book


def write(path):
    """Publishes one book after the other, the update's id telling which, until the parent process is gone."""
    cdef BookWriter writer = BookWriter(path, "ETH-USDT", 0, 0, MOST_LEVELS)
    cdef list books = [pattern(k) for k in range(COUNT)]
    cdef int64_t update_id = 0
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(10_000):
            update_id += 1
            writer.publish(<OrderBook>books[update_id % COUNT], update_id, 0, nanoseconds(CLOCK_MONOTONIC), SYNCED)


def read(BookReader reader not None, int64_t count, bint checked=True):
    """``count`` reads. ``checked`` False leaves out what makes a copy whole: the second look at the slot's sequence.

    Answers (torn, older than the one before, busy, most nanoseconds of this thread's CPU time that ``BATCH`` reads
    took together, which no single read of them can exceed). The CPU clock of a thread is brought up to date in jumps; no
    reads took more of it than of the monotonic clock, which does not jump but goes on while others have the processor.
    So the smaller of the two is taken, and reads in whose midst the processor was taken away, which may have met both
    a jump and a wait, are not timed.
    """
    cdef int64_t i, torn = 0, older = 0, busy = 0, slowest = 0, last = 0, update_id
    cdef int64_t began = nanoseconds(CLOCK_THREAD_CPUTIME_ID), now
    cdef int64_t wall_began = nanoseconds(CLOCK_MONOTONIC), wall_now
    cdef long lost = preemptions(), lost_now
    cdef int status
    for i in range(count):
        status = one(reader, MOST_LEVELS if i % WHOLE == 0 else 1, checked)
        if status >= BUSY:
            busy += 1
        else:
            update_id = <int64_t>reader._copy[UPDATE_ID]
            torn += not is_whole(reader._copy, update_id % COUNT, MOST_LEVELS if i % WHOLE == 0 else 1)
            older += update_id < last
            last = update_id
        if i % BATCH == BATCH - 1:
            now = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
            wall_now = nanoseconds(CLOCK_MONOTONIC)
            lost_now = preemptions()
            if lost_now == lost:
                slowest = max(slowest, min(now - began, wall_now - wall_began))
            began, wall_began, lost = now, wall_now, lost_now
    return torn, older, busy, slowest


cdef int one(BookReader reader, uint64_t limit, bint checked) except -1:
    cdef uint64_t* first
    cdef uint64_t* second
    cdef uint64_t* slot
    if checked:
        return reader._read_at(nanoseconds(CLOCK_MONOTONIC), limit)
    if not reader._ready():
        return BUSY
    first = reader._map.words + HEADER_WORDS
    second = first + reader._map.slot_words
    slot = newest_of(first, load_acquire(first + SEQUENCE), second, load_acquire(second + SEQUENCE))
    if slot == NULL or not copy_slot(slot, reader._copy, reader._map.depth, limit):
        return BUSY
    return 0


cdef bint is_whole(const uint64_t* words, int64_t k, int64_t limit) noexcept nogil:
    """Whether the levels, and how many there are, are those of book ``k``."""
    cdef const int64_t* bids = <const int64_t*>words + LEVELS
    cdef const int64_t* asks = bids + 2 * MOST_LEVELS
    cdef int64_t i, middle = (k + 1) * 10_000
    if <int64_t>words[BID_COUNT] != min(limit, FEWEST_BIDS + k) or <int64_t>words[ASK_COUNT] != min(limit, MOST_ASKS - k):
        return False
    for i in range(<int64_t>words[BID_COUNT]):
        if bids[2 * i] != middle - i or bids[2 * i + 1] != k + 1:
            return False
    for i in range(<int64_t>words[ASK_COUNT]):
        if asks[2 * i] != middle + 1 + i or asks[2 * i + 1] != k + 1:
            return False
    return True


cdef long preemptions() noexcept nogil:
    """How often this thread has lost the processor though it wanted to go on."""
    cdef rusage used
    getrusage(RUSAGE_THREAD, &used)
    return used.ru_nivcsw


cdef int64_t nanoseconds(clockid_t clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec
