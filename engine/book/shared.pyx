"""Order books in shared memory: one writer, any number of readers, no locks.

The file's layout, and how to read it from any language, is in :mod:`engine.book.layout`.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from engine.book.decimals cimport WORD, LastDecimal, to_decimal
from engine.book.layout cimport (
    ASK_COUNT, ASK_TOTAL, BID_COUNT, BID_TOTAL, DEEPEST, DEPTH, EVENT_TIME, FILE_SIZE, HEADER_WORDS,
    HEARTBEAT, INCARNATION, LEVELS, MAGIC, MAGIC_VALUE, PAIR, PAIR_BYTES, PRICE_EXPONENT, RECEIVED, RETIRED,
    SEQUENCE, SIZE_EXPONENT, SLOT_SIZE, STATE, UPDATE_ID, VERSION, VERSION_VALUE, WIDE, WRITER_PID, Mapping,
    copy_newest, fence_release, file_size_of, load_acquire, load_relaxed, map_descriptor, map_file, newest_of,
    pair_of, slot_words_of, store_relaxed, store_release, store_side, unmap,
)
from engine.book.order_book cimport OrderBook
from engine.book.queries cimport Cells, fill, fill_quote, volume
from engine.book.standing cimport Standing

import contextlib
import os

import numpy as np

from engine.book.layout import MAX_DEPTH, naming
from engine.book.states import ReadStatus, SyncState
from engine.book.views import BestView, DepthView, Execution, TopView, Volume
from engine.errors import BookError
from engine.messages import Side

cdef object BUY = Side.BUY, SELL = Side.SELL

cdef enum Status:
    FRESH = 0
    STALE = 1
    UNSYNCED = 2
    BUSY = 3
    MISSING = 4

cdef int SYNCED_STATE = 2
cdef tuple STATUSES = tuple(ReadStatus)


@cython.final
cdef class BookWriter:
    """Publishes one pair's book to every process of the host.

    ``depth``: levels of each side that readers can have. A file that is already at ``path`` is taken over with its
    readers: in place if its layout is the same, otherwise the new file replaces it and the old one is marked retired.
    ``incarnation`` is raised above the one found, if need be. The book is UNSYNCED until the first ``publish`` that
    says otherwise, and STALE to readers until the first ``heartbeat``. A writer whose file another writer has taken
    over raises BookError at its next word.
    """

    def __cinit__(
        self, path, str pair not None, int price_exponent, int size_exponent, int depth=50, incarnation=1
    ):
        self.path = os.fspath(path)
        self.pair = pair
        if not 1 <= depth <= MAX_DEPTH:
            raise BookError(f"{pair}: a shared book holds 1 to {MAX_DEPTH} levels a side, not {depth}")
        if not 1 <= len(pair.encode()) < PAIR_BYTES:
            raise BookError(f"{pair!r} does not fit the book file: a pair's name has 1 to {PAIR_BYTES - 1} bytes")
        cdef Mapping old
        cdef uint64_t raised = incarnation
        memset(&old, 0, sizeof(old))
        try:
            map_file(self.path, True, &old)
            if old.words != NULL:
                raised = max(raised, old.incarnation + 1)
            if is_usable(&old, pair, depth):
                self._map = old
                memset(&old, 0, sizeof(old))
                self._take_over(price_exponent, size_exponent, raised)
            else:
                self._create(price_exponent, size_exponent, depth, raised)
                if old.words != NULL:
                    store_release(old.words + RETIRED, 1)
        finally:
            unmap(&old)

    def __dealloc__(self):
        unmap(&self._map)

    @property
    def incarnation(self):
        """The number under which this writer writes."""
        return self._map.incarnation

    @property
    def depth(self):
        """Levels of each side that the file has room for."""
        return self._map.depth

    @property
    def closed(self):
        return self._map.words == NULL

    cpdef void publish(
        self, OrderBook book, int64_t update_id, int64_t event_time_ns, int64_t received_mono_ns, int state
    ) except *:
        """Makes the book's best levels the newest slot. ``state``: a :class:`SyncState`.

        ``received_mono_ns``, this host's monotonic clock, counts as a heartbeat. Of an invalid book only the state is
        published, and the last levels stay; as SYNCED it raises BookError, as does a writer that was succeeded.
        """
        self._check()
        if not book.is_valid:
            if state == SYNCED_STATE:
                raise BookError(f"{self.pair}: invalid, so not in sync ({book.invalid_reason}); publish the state")
            self.set_state(state)
            return
        cdef uint64_t depth = self._map.depth
        cdef uint64_t* slot = self._begin()
        cdef uint64_t* bids = slot + LEVELS
        store_relaxed(slot + UPDATE_ID, <uint64_t>update_id)
        store_relaxed(slot + EVENT_TIME, <uint64_t>event_time_ns)
        store_relaxed(slot + RECEIVED, <uint64_t>received_mono_ns)
        store_relaxed(slot + STATE, <uint64_t>state)
        store_relaxed(slot + PRICE_EXPONENT, <uint64_t><int64_t>book.price_exponent)
        store_relaxed(slot + SIZE_EXPONENT, <uint64_t><int64_t>book.size_exponent)
        store_relaxed(slot + WIDE, book.is_wide)
        store_relaxed(slot + BID_COUNT, store_side(bids, bids + 4 * depth, &book._bids, depth))
        store_relaxed(slot + ASK_COUNT, store_side(bids + 2 * depth, bids + 5 * depth, &book._asks, depth))
        store_relaxed(slot + BID_TOTAL, <uint64_t>book._bids.count)
        store_relaxed(slot + ASK_TOTAL, <uint64_t>book._asks.count)
        self._end(slot)
        if received_mono_ns > <int64_t>load_relaxed(self._map.words + HEARTBEAT):
            store_release(self._map.words + HEARTBEAT, <uint64_t>received_mono_ns)

    cpdef void publish_standing(self, Standing standing, int64_t received_mono_ns) except *:
        """As :meth:`publish`, of a book where it stands."""
        self.publish(
            standing.book, standing.update_id, standing.time_ns, received_mono_ns, <int>standing.state
        )

    cpdef void set_state(self, int state) except *:
        """Says what the book is worth, its levels unchanged."""
        self._check()
        cdef uint64_t* newest = self._newest
        cdef uint64_t* slot
        cdef uint64_t i
        if newest[STATE] == <uint64_t>state:
            return
        slot = self._begin()
        for i in range(1, self._map.slot_words):
            store_relaxed(slot + i, newest[i])
        store_relaxed(slot + STATE, <uint64_t>state)
        self._end(slot)

    cpdef void heartbeat(self, int64_t mono_ns) except *:
        """Says that the writer lives, at ``mono_ns`` of this host's monotonic clock."""
        self._check()
        store_release(self._map.words + HEARTBEAT, <uint64_t>mono_ns)

    def close(self, *, unlink=False):
        """Leaves: the book is UNSYNCED from here on. ``unlink`` removes the file as well. Harmless if repeated."""
        if self._map.words == NULL:
            return
        try:
            if self._owns():
                self.set_state(SyncState.UNSYNCED)
                if unlink:
                    store_release(self._map.words + RETIRED, 1)
                    self._unlink()
        finally:
            unmap(&self._map)

    def unlink(self):
        """Leaves and removes the file."""
        self.close(unlink=True)

    # ------------------------------------------------------------------------------------------------- taking place

    def _create(self, int price_exponent, int size_exponent, uint64_t depth, uint64_t incarnation):
        """Makes a file aside, complete, and renames it into place."""
        cdef uint64_t slot_words = slot_words_of(depth)
        cdef size_t size = file_size_of(depth)
        cdef bytes name = self.pair.encode()
        cdef const char* name_data = name
        aside = self.path + ".new"
        with naming(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)  # a full file system shows here, not as a signal later
                map_descriptor(descriptor, size, True, &self._map)
            except BaseException:
                os.unlink(aside)
                raise
            finally:
                os.close(descriptor)
            self._map.depth = depth
            self._map.slot_words = slot_words
            self._map.words[MAGIC] = MAGIC_VALUE
            self._map.words[VERSION] = VERSION_VALUE
            self._map.words[FILE_SIZE] = size
            self._map.words[SLOT_SIZE] = slot_words * 8
            self._map.words[DEPTH] = depth
            memcpy(self._map.words + PAIR, name_data, len(name))
            self._take_over(price_exponent, size_exponent, incarnation)
            os.rename(aside, self.path)

    def _take_over(self, int price_exponent, int size_exponent, uint64_t incarnation):
        """Writes an empty, unsynced book as the newest slot, then raises the incarnation."""
        cdef uint64_t* first = self._map.words + HEADER_WORDS
        cdef uint64_t* second = first + self._map.slot_words
        cdef uint64_t one = load_acquire(first), two = load_acquire(second)
        cdef uint64_t* slot
        cdef int i
        self._sequence = max(one, two)
        self._sequence += self._sequence & 1
        self._newest = newest_of(first, one, second, two)
        if self._newest == NULL:
            self._newest = first
        slot = self._begin()
        for i in range(1, LEVELS):
            store_relaxed(slot + i, 0)
        store_relaxed(slot + PRICE_EXPONENT, <uint64_t><int64_t>price_exponent)
        store_relaxed(slot + SIZE_EXPONENT, <uint64_t><int64_t>size_exponent)
        self._end(slot)
        self._map.words[WRITER_PID] = os.getpid()
        self._map.incarnation = incarnation
        store_release(self._map.words + INCARNATION, incarnation)

    def _unlink(self):
        """Removes the path if it still is this writer's file."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path, follow_symlinks=False)
            if found.st_ino == self._map.inode and found.st_dev == self._map.device:
                os.unlink(self.path)

    # -------------------------------------------------------------------------------------------------------- steps

    def _owns(self):
        return (
            load_acquire(self._map.words + RETIRED) == 0
            and load_acquire(self._map.words + INCARNATION) == self._map.incarnation
        )

    cdef int _check(self) except -1:
        if self._map.words == NULL:
            raise BookError(f"{self.pair}: {self.path} is closed; open a new writer")
        if (
            load_acquire(self._map.words + RETIRED) != 0
            or load_acquire(self._map.words + INCARNATION) != self._map.incarnation
        ):
            raise BookError(f"{self.pair}: another writer has taken over {self.path}; stop writing")
        return 0

    cdef uint64_t* _begin(self) noexcept nogil:
        """The older slot, marked as being written."""
        cdef uint64_t* slot = self._map.words + HEADER_WORDS
        if slot == self._newest:
            slot += self._map.slot_words
        store_relaxed(slot + SEQUENCE, self._sequence + 1)
        fence_release()
        return slot

    cdef void _end(self, uint64_t* slot) noexcept nogil:
        """Makes the slot the newest."""
        self._sequence += 2
        store_release(slot + SEQUENCE, self._sequence)
        self._newest = slot


@cython.final
cdef class BookReader:
    """Reads one pair's book, without a message and without ever waiting for its writer.

    ``stale_after_ns``: a heartbeat older than this, by this host's monotonic clock, makes a reading STALE. The file
    is looked for at each reading until it is there, and mapped anew when a writer replaces it. ``now_mono_ns`` of
    the readings stands in for the monotonic clock where time is virtual.

    A file that is no complete book is MISSING; one of another layout version raises BookError.
    """

    def __cinit__(self, path, int64_t stale_after_ns=500_000_000):
        self.path = os.fspath(path)
        self.stale_after_ns = stale_after_ns
        self._bid, self._bid_size = LastDecimal(), LastDecimal()
        self._ask, self._ask_size = LastDecimal(), LastDecimal()

    def __dealloc__(self):
        unmap(&self._map)
        free(self._copy)

    def close(self):
        """Lets go of the file; the next reading maps it again."""
        unmap(&self._map)

    @property
    def capacity(self):
        """Levels of each side that the mapped file has room for; 0 while there is none."""
        return self._map.depth

    @property
    def incarnation(self):
        """The writer's incarnation at the last reading; 0 while there is no file."""
        return self._map.incarnation

    @property
    def pair(self):
        """The pair that the mapped file holds; empty while there is none."""
        return self._pair if self._map.words != NULL else ""

    cdef int best(self, Best* found, int64_t now_mono_ns) except -1:
        """Reads the best bid and ask without making a Python object: the reader for compiled strategies.

        ``now_mono_ns`` 0: the host's monotonic clock. Answers a :class:`ReadStatus` as a number; where that is BUSY or
        MISSING, ``found`` is all zeros. The update id is the venue's. BookError if the best size of a side does not fit
        in 64 bits, which only sizes of a wide book may do: :meth:`read_best` has them.
        """
        cdef int status = self._read_at(monotonic() if now_mono_ns == 0 else now_mono_ns, 1)
        cdef const int64_t* words = <const int64_t*>self._copy
        cdef const int64_t* asks
        memset(found, 0, sizeof(Best))
        if status >= BUSY:
            return status
        asks = words + LEVELS + 2 * self._map.depth
        if words[WIDE]:
            self._check_narrow()
        if words[BID_COUNT]:
            found.bid = words[LEVELS]
            found.bid_size = words[LEVELS + 1]
        if words[ASK_COUNT]:
            found.ask = asks[0]
            found.ask_size = asks[1]
        found.update_id = words[UPDATE_ID]
        found.received_mono_ns = words[RECEIVED]
        found.price_exponent = <int>words[PRICE_EXPONENT]
        found.size_exponent = <int>words[SIZE_EXPONENT]
        return status

    def read_raw(self, now_mono_ns=None):
        """(status, bid price, bid size, ask price, ask size, price exponent, size exponent, update id, age in ns).

        Mantissas; a size of 0 says that the side is empty. All 0, and age −1, if the status is BUSY or MISSING.
        """
        cdef int status = self._read(now_mono_ns, 1)
        cdef const int64_t* words = <const int64_t*>self._copy
        cdef const int64_t* asks = words + LEVELS + 2 * self._map.depth
        if status >= BUSY:
            return STATUSES[status], 0, 0, 0, 0, 0, 0, 0, -1
        if words[WIDE]:
            return self._raw_of_wide(status)
        return (
            STATUSES[status],
            words[LEVELS] if words[BID_COUNT] else 0,
            words[LEVELS + 1] if words[BID_COUNT] else 0,
            asks[0] if words[ASK_COUNT] else 0,
            asks[1] if words[ASK_COUNT] else 0,
            words[PRICE_EXPONENT],
            words[SIZE_EXPONENT],
            words[UPDATE_ID],
            self._age,
        )

    def read_best(self, now_mono_ns=None):
        """The best bid and ask as a :class:`BestView`. What has not changed since the last reading is the same object."""
        cdef int status = self._read(now_mono_ns, 1)
        cdef const int64_t* words = <const int64_t*>self._copy
        cdef const int64_t* bids = words + LEVELS
        cdef const int64_t* asks = bids + 2 * self._map.depth
        cdef const int64_t* high = asks + 2 * self._map.depth  # of both sides' sizes, in a wide book
        cdef object bid = None, bid_size = None, ask = None, ask_size = None
        cdef int price_exponent, size_exponent
        if status >= BUSY:
            return BestView(status=STATUSES[status])
        price_exponent, size_exponent = <int>words[PRICE_EXPONENT], <int>words[SIZE_EXPONENT]
        if words[BID_COUNT]:
            bid = self._bid.of(0, bids[0], price_exponent)
            bid_size = self._bid_size.of(high[0] if words[WIDE] else 0, bids[1], size_exponent)
        if words[ASK_COUNT]:
            ask = self._ask.of(0, asks[0], price_exponent)
            ask_size = self._ask_size.of(high[self._map.depth] if words[WIDE] else 0, asks[1], size_exponent)
        return BestView(
            status=STATUSES[status],
            bid=bid,
            bid_size=bid_size,
            ask=ask,
            ask_size=ask_size,
            update_id=words[UPDATE_ID],
            age_ns=self._age,
        )

    def depth(self, n=None, now_mono_ns=None):
        """Up to ``n`` levels of each side (None: all that the file holds) as a :class:`DepthView` of Decimals.

        Fewer come only where the book has fewer: asking for more than the file holds raises BookError.
        """
        cdef int64_t limit = self._checked_limit(n)
        cdef int status = self._read(now_mono_ns, limit)
        cdef uint64_t* words = self._copy
        if status >= BUSY:
            return DepthView(status=STATUSES[status], bids=[], asks=[])
        self._recheck(n)
        return DepthView(
            status=STATUSES[status],
            bids=self._decimals(0, words[BID_COUNT]),
            asks=self._decimals(1, words[ASK_COUNT]),
            bid_total=words[BID_TOTAL],
            ask_total=words[ASK_TOTAL],
            update_id=<int64_t>words[UPDATE_ID],
            age_ns=self._age,
        )

    def top(self, n=None, now_mono_ns=None):
        """As :meth:`depth`, as a :class:`TopView` of int64 arrays, or of integers of Python for a wide book."""
        cdef int64_t limit = self._checked_limit(n)
        cdef int status = self._read(now_mono_ns, limit)
        cdef uint64_t* words = self._copy
        if status >= BUSY:
            return TopView(
                status=STATUSES[status],
                bids=np.empty((0, 2), dtype=np.int64),
                asks=np.empty((0, 2), dtype=np.int64),
                price_exponent=0,
                size_exponent=0,
            )
        self._recheck(n)
        return TopView(
            status=STATUSES[status],
            bids=self._array(0, words[BID_COUNT]),
            asks=self._array(1, words[ASK_COUNT]),
            price_exponent=<int64_t>words[PRICE_EXPONENT],
            size_exponent=<int64_t>words[SIZE_EXPONENT],
            bid_total=words[BID_TOTAL],
            ask_total=words[ASK_TOTAL],
            update_id=<int64_t>words[UPDATE_ID],
            age_ns=self._age,
        )

    def fill(self, side, size, now_mono_ns=None):
        """As :meth:`OrderBook.fill`, of the levels that the file holds: BookError where more would be needed."""
        cdef Cells cells
        cdef int status = self._read_facing(side, now_mono_ns, &cells)
        if status >= BUSY:
            return Execution(status=STATUSES[status])
        return fill(&cells, self._pair, size, STATUSES[status])

    def fill_quote(self, side, quote, now_mono_ns=None):
        """As :meth:`OrderBook.fill_quote`, of the levels that the file holds."""
        cdef Cells cells
        cdef int status = self._read_facing(side, now_mono_ns, &cells)
        if status >= BUSY:
            return Execution(status=STATUSES[status])
        return fill_quote(&cells, self._pair, quote, STATUSES[status])

    def volume(self, side, price, now_mono_ns=None):
        """As :meth:`OrderBook.volume`, of the levels that the file holds."""
        cdef Cells cells
        cdef int status = self._read_facing(side, now_mono_ns, &cells)
        if status >= BUSY:
            return Volume(status=STATUSES[status])
        return volume(&cells, self._pair, price, side is BUY, STATUSES[status])

    # -------------------------------------------------------------------------------------------------------- steps

    cdef int _read_facing(self, object side, object now_mono_ns, Cells* cells) except -1:
        """Reads, and finds the side that a taker of ``side`` meets."""
        if side is not BUY and side is not SELL:
            raise TypeError(f"{self.path}: {side!r} is not a Side")
        cdef int status = self._read(now_mono_ns, DEEPEST)
        cdef const int64_t* words = <const int64_t*>self._copy
        if status >= BUSY:
            return status
        cells.first = words + LEVELS + (2 * self._map.depth if side is BUY else 0)
        cells.high = words + LEVELS + (5 if side is BUY else 4) * self._map.depth if words[WIDE] else NULL
        cells.step = 1
        cells.count = words[ASK_COUNT] if side is BUY else words[BID_COUNT]
        cells.direction = 1
        cells.price_exponent = <int>words[PRICE_EXPONENT]
        cells.size_exponent = <int>words[SIZE_EXPONENT]
        cells.is_cut = cells.count < (words[ASK_TOTAL] if side is BUY else words[BID_TOTAL])
        return status

    cdef int _read(self, object now_mono_ns, int64_t limit) except -1:
        return self._read_at(monotonic() if now_mono_ns is None else now_mono_ns, limit)

    cdef int _read_at(self, int64_t now, int64_t limit) except -1:
        """Copies up to ``limit`` levels of the newest complete slot into ``_copy``; answers a status.

        The counts in the copy are of the levels copied.
        """
        cdef int status = MISSING
        cdef int attempt
        self._age = -1
        for attempt in range(2):
            if not self._ready():
                return MISSING
            if not copy_newest(&self._map, self._copy, <uint64_t>limit, &self.retries):
                status = BUSY
            else:
                status = UNSYNCED if self._copy[STATE] != <uint64_t>SYNCED_STATE else FRESH
                if now - <int64_t>load_acquire(self._map.words + HEARTBEAT) > self.stale_after_ns:
                    status = STALE
                if self._copy[RECEIVED] != 0:
                    self._age = max(<int64_t>0, now - <int64_t>self._copy[RECEIVED])
            if attempt == 1 or status == FRESH or status == UNSYNCED or not self._moved():
                return status
            unmap(&self._map)
        return status

    cdef bint _ready(self) except -1:
        """Whether there is a file, mapped as it now is."""
        if (
            self._map.words != NULL
            and load_acquire(self._map.words + RETIRED) == 0
            and load_acquire(self._map.words + INCARNATION) == self._map.incarnation
        ):
            return True
        return self._remap()

    cdef bint _remap(self) except -1:
        unmap(&self._map)
        free(self._copy)
        self._copy = NULL
        map_file(self.path, False, &self._map)
        if self._map.words == NULL:
            return False
        if load_acquire(self._map.words + RETIRED) != 0:
            unmap(&self._map)
            return False
        self._pair = pair_of(&self._map)
        self._copy = <uint64_t*>malloc(self._map.slot_words * 8)
        if self._copy == NULL:
            unmap(&self._map)
            raise MemoryError()
        return True

    cdef bint _moved(self) except -1:
        """Whether the path holds another file than the mapped one, or none."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return True
        return found.st_ino != self._map.inode or found.st_dev != self._map.device

    cdef int64_t _checked_limit(self, object n) except -1:
        """``n`` as a number of levels that the file can answer for; the whole file where it is None."""
        if n is None:
            return DEEPEST
        if n < 0:
            raise BookError(f"{self.path}: {n} levels were asked for; ask for 0 or more, or None for all")
        if self._ready():
            self._recheck(n)
        return min(n, DEEPEST)

    def _recheck(self, n):
        if n is not None and n > self._map.depth:
            raise BookError(
                f"{self._pair}: {n} levels were asked for, the shared book holds {self._map.depth} a side; "
                "ask for fewer or raise the book's depth"
            )

    cdef object _array(self, uint64_t side, uint64_t count):
        cdef int64_t[:, ::1] view
        cdef uint64_t i
        if self._copy[WIDE]:
            array = np.empty((count, 2), dtype=object)
            for i in range(count):
                array[i] = self._level(side, i)
            return array
        array = np.empty((count, 2), dtype=np.int64)
        view = array
        if count:
            memcpy(&view[0, 0], self._copy + LEVELS + 2 * side * self._map.depth, count * 16)
        return array

    cdef list _decimals(self, uint64_t side, uint64_t count):
        cdef const int64_t* words = <const int64_t*>self._copy
        cdef int price_exponent = <int>words[PRICE_EXPONENT]
        cdef int size_exponent = <int>words[SIZE_EXPONENT]
        cdef const int64_t* high = words + LEVELS + (4 + side) * self._map.depth
        cdef bint wide = words[WIDE]
        cdef uint64_t i
        cdef list levels = []
        words += LEVELS + 2 * side * self._map.depth
        for i in range(count):
            levels.append((
                to_decimal(0, words[2 * i], price_exponent),
                to_decimal(high[i] if wide else 0, words[2 * i + 1], size_exponent),
            ))
        return levels

    cdef tuple _level(self, uint64_t side, uint64_t number):
        """(price, size) of a level that was copied, of a wide book."""
        cdef const int64_t* words = <const int64_t*>self._copy + LEVELS
        cdef const int64_t* level = words + 2 * side * self._map.depth + 2 * number
        size = <object>words[(4 + side) * self._map.depth + number] * WORD + level[1]
        return level[0], size

    cdef tuple _raw_of_wide(self, int status):
        cdef const int64_t* words = <const int64_t*>self._copy
        bid = self._level(0, 0) if words[BID_COUNT] else (0, 0)
        ask = self._level(1, 0) if words[ASK_COUNT] else (0, 0)
        exponents = words[PRICE_EXPONENT], words[SIZE_EXPONENT]
        return (STATUSES[status], *bid, *ask, *exponents, words[UPDATE_ID], self._age)

    cdef int _check_narrow(self) except -1:
        """BookError if a best size has a high word."""
        cdef const uint64_t* words = self._copy
        cdef const uint64_t* high = words + LEVELS + 4 * self._map.depth
        if (words[BID_COUNT] and high[0]) or (words[ASK_COUNT] and high[self._map.depth]):
            raise BookError(f"{self._pair}: a size does not fit in 64 bits; read it with read_best or depth")
        return 0


cdef bint is_usable(const Mapping* old, str pair, uint64_t depth) except -1:
    """Whether a file found at the path can be written on in place."""
    if old.words == NULL or old.depth != depth or load_acquire(old.words + RETIRED) != 0:
        return False
    return pair_of(old) == pair


cdef int64_t monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec
