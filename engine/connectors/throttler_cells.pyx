"""Counts of requests in memory that several processes may share: without locks, and whole at any instant.

The memory is ``MEMORY_SIZE`` bytes of 64-bit words in the host's order, in rows of 64 words::

    row 0        mark (whose layout, and of which boot of the host), then unused
    row 1..1023  one limit each: key, silent until (monotonic ns), window, unused, 60 buckets

A window is (its number's low 32 bits) << 32 | units used in it: the venue's own way of counting, by its clock. A bucket
is the same with the number of a 59th of the limit's interval on the host's monotonic clock: the sum of the last 60
holds all units of a whole interval, wherever that begins. Every word changes by compare-and-swap, and a unit is counted
before it is used: a process that is killed between the two leaves a unit too many, never one too few.
"""

cimport cython
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from engine.errors import ConfigError

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t cell_load(uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void cell_store(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static inline int cell_swap(uint64_t *at, uint64_t old, uint64_t fresh) {
        return __atomic_compare_exchange_n(at, &old, fresh, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t cell_load(uint64_t *at) nogil
    void cell_store(uint64_t *at, uint64_t value) nogil
    bint cell_swap(uint64_t *at, uint64_t old, uint64_t fresh) nogil

cdef enum:
    ROW = 64
    ROWS = 1024
    KEY = 0
    SILENT = 1
    WINDOW = 2
    FIRST_BUCKET = 4
    _BUCKETS = 60
    _SIZE = 64 * 1024 * 8
    _PLAUSIBLE = 600
    _NO_WINDOW = -1
    _NO_INTERVAL = -2

MEMORY_SIZE = _SIZE
ENTRIES = ROWS - 1
BUCKETS = _BUCKETS
NO_ROOM_IN_WINDOW = _NO_WINDOW
NO_ROOM_IN_INTERVAL = _NO_INTERVAL


cdef inline uint64_t packed(uint32_t number, uint64_t units) noexcept nogil:
    return (<uint64_t>number << 32) | (units if units < <uint64_t>0xFFFFFFFFu else <uint64_t>0xFFFFFFFFu)


cdef inline uint32_t number_of(uint64_t word) noexcept nogil:
    return <uint32_t>(word >> 32)


cdef inline uint32_t units_of(uint64_t word) noexcept nogil:
    return <uint32_t>word


cdef inline uint32_t window_of(uint64_t word, uint32_t mine) noexcept nogil:
    """The window that counts now: mine, or the next one if a process whose clock is a little ahead has begun it."""
    return mine + 1 if number_of(word) == mine + 1 else mine


cdef inline uint32_t add_to_window(uint64_t *word, uint32_t mine, uint32_t cost, uint32_t *window) noexcept nogil:
    """Add to the window, and give what is used of it now."""
    cdef uint64_t old, units
    while True:
        old = cell_load(word)
        window[0] = window_of(old, mine)
        units = cost + (<uint64_t>units_of(old) if number_of(old) == window[0] else 0)
        if cell_swap(word, old, packed(window[0], units)):
            return units_of(packed(0, units))


cdef inline void take_from(uint64_t *word, uint32_t number, uint32_t cost) noexcept nogil:
    """Take units back, unless the word has gone on to another number."""
    cdef uint64_t old
    cdef uint32_t units
    while True:
        old = cell_load(word)
        if number_of(old) != number:
            return
        units = units_of(old)
        if cell_swap(word, old, packed(number, units - cost if units > cost else 0)):
            return


cdef inline void add_to_bucket(uint64_t *buckets, int64_t bucket, uint32_t cost) noexcept nogil:
    """A process that was stopped in between may come late: then its units go where the newer ones are."""
    cdef uint64_t *word = buckets + bucket % _BUCKETS
    cdef uint64_t old
    cdef int32_t ahead
    while True:
        old = cell_load(word)
        ahead = <int32_t>(number_of(old) - <uint32_t>bucket)
        if 0 <= ahead <= _PLAUSIBLE:
            if cell_swap(word, old, packed(number_of(old), <uint64_t>units_of(old) + cost)):
                return
        elif cell_swap(word, old, packed(<uint32_t>bucket, cost)):
            return


cdef inline uint64_t sum_of(uint64_t *buckets, int64_t bucket) noexcept nogil:
    cdef uint64_t total = 0, word
    cdef int32_t age
    cdef int at
    for at in range(_BUCKETS):
        word = cell_load(buckets + at)
        age = <int32_t>(<uint32_t>bucket - number_of(word))
        if -_PLAUSIBLE <= age < _BUCKETS:
            total += units_of(word)
    return total


@cython.final
cdef class LimitCells:
    """The words of one memory; ``mark`` says whose it is.

    They are those of the file that ``descriptor`` has open for writing, of at least ``MEMORY_SIZE`` bytes; the
    descriptor may be closed once this object is made. A negative one is memory of this process alone.
    OSError if the file cannot be mapped.
    """

    def __cinit__(self, int descriptor, uint64_t mark):
        cdef int flags = MAP_SHARED if descriptor >= 0 else MAP_PRIVATE | MAP_ANONYMOUS
        cdef void *memory = mmap(NULL, _SIZE, PROT_READ | PROT_WRITE, flags, descriptor, 0)
        if memory == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self._words = <uint64_t *>memory
        self._mark = mark

    def __dealloc__(self):
        if self._words != NULL:
            munmap(self._words, _SIZE)

    @property
    def is_marked(self):
        """Whether the memory is of this layout and boot."""
        return cell_load(self._words) == self._mark

    def clear(self):
        """Forget everything, and mark the memory. Nobody else may use it yet."""
        cdef int at
        for at in range(1, ROW * ROWS):
            cell_store(self._words + at, 0)
        cell_store(self._words, self._mark)

    cdef uint64_t *_entry(self, int entry) except NULL:
        if not 1 <= entry < ROWS:
            raise IndexError(entry)
        return self._words + entry * ROW

    cpdef int claim(self, uint64_t key) except -1:
        """The row of a key, taken if nobody has it yet; ConfigError if all are taken. A key is not 0."""
        cdef int step, row
        cdef uint64_t *word
        if key == 0:
            raise ValueError("a key is not 0")
        for step in range(ROWS - 1):
            row = 1 + <int>((key + step) % (ROWS - 1))
            word = self._words + row * ROW + KEY
            if cell_load(word) == key or cell_swap(word, 0, key) or cell_load(word) == key:
                return row
        raise ConfigError(f"more than {ROWS - 1} limits share one memory: give each engine its own")

    cpdef int64_t charge(self, int entry, uint32_t cost, uint32_t limit, int64_t window, int64_t bucket) except -3:
        """Count ``cost`` in the venue's window and, unless ``bucket`` is below 0, in the last interval.

        Gives the number of the window that it was counted in, or says where there was no room; then nothing has
        changed. What several processes count at once is never more than ``limit``, though it may be less.
        """
        cdef uint64_t *row = self._entry(entry)
        cdef uint32_t counted
        if bucket >= 0 and sum_of(row + FIRST_BUCKET, bucket) + cost > limit:
            return _NO_INTERVAL
        if add_to_window(row + WINDOW, <uint32_t>window, cost, &counted) > limit:
            take_from(row + WINDOW, counted, cost)
            return _NO_WINDOW
        if bucket >= 0:
            add_to_bucket(row + FIRST_BUCKET, bucket, cost)
            if sum_of(row + FIRST_BUCKET, bucket) > limit:
                self.refund(entry, cost, counted, bucket)
                return _NO_INTERVAL
        return counted

    cpdef void refund(self, int entry, uint32_t cost, uint32_t window, int64_t bucket):
        """Take back what :meth:`charge` counted in this window and bucket."""
        cdef uint64_t *row = self._words + entry * ROW
        take_from(row + WINDOW, window, cost)
        if bucket >= 0:
            take_from(row + FIRST_BUCKET + bucket % _BUCKETS, <uint32_t>bucket, cost)

    cpdef void report(self, int entry, uint32_t window, uint32_t used):
        """The venue counts ``used`` in this window: believed if it is more than is known, and the window goes on."""
        cdef uint64_t *word = self._words + entry * ROW + WINDOW
        cdef uint64_t old
        while True:
            old = cell_load(word)
            if number_of(old) != window or units_of(old) >= used or cell_swap(word, old, packed(window, used)):
                return

    cpdef uint32_t used(self, int entry, int64_t window):
        """What is used of this window."""
        cdef uint64_t old = cell_load(self._words + entry * ROW + WINDOW)
        return units_of(old) if number_of(old) == window_of(old, <uint32_t>window) else 0

    cpdef uint32_t remembered(self, int entry, int64_t bucket):
        """What was used in the interval that ends with this bucket."""
        return units_of(packed(0, sum_of(self._words + entry * ROW + FIRST_BUCKET, bucket)))

    cpdef int64_t room_from(self, int entry, int64_t bucket, uint32_t room):
        """The first bucket, from this one on, in whose interval no more than ``room`` is used by what is known now."""
        cdef uint64_t *buckets = self._words + entry * ROW + FIRST_BUCKET
        cdef int step
        for step in range(_BUCKETS):
            if sum_of(buckets, bucket + step) <= room:
                return bucket + step
        return bucket + _BUCKETS

    cpdef int64_t silent_until(self, int entry):
        """Until when nothing may be sent, on the monotonic clock (ns)."""
        return <int64_t>cell_load(self._words + entry * ROW + SILENT)

    cpdef void silence(self, int entry, int64_t until_ns):
        """Nothing may be sent until then; a shorter silence does not end a longer one."""
        cdef uint64_t *word = self._words + entry * ROW + SILENT
        cdef uint64_t old
        while True:
            old = cell_load(word)
            if <int64_t>old >= until_ns or cell_swap(word, old, <uint64_t>until_ns):
                return
