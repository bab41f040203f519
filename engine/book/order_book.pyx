"""An order book on exact integers.

Prices and sizes are 64-bit mantissas with one decimal exponent each per book. Each side is a sorted array with its
best level at the end: updates near the top, which most are, move a handful of bytes.

Sizes that have no common exponent in 64 bits (173176223.4512 beside 0.00000000001) make the book *wide*: what is above
18 digits of each size lies in a second array beside the levels. Such a book is as exact and somewhat slower.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove

from engine.book.decimals cimport FINER, MALFORMED, MAX_EXPONENT, MIN_EXPONENT, NEGATIVE, PARSED, WORD, Wide
from engine.book.decimals cimport format_decimal, format_wide, parse_str, parse_wide_str, shift, shift_wide
from engine.book.queries cimport Cells, exact, fill, fill_quote, volume

from decimal import Decimal

import numpy as np

from engine.book.states import ReadStatus
from engine.errors import BookError
from engine.messages import Side

cdef object BUY = Side.BUY, SELL = Side.SELL
cdef object FRESH = ReadStatus.FRESH

cdef extern from "Python.h":
    object PySequence_Fast(object sequence, const char* message)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t i)

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


@cython.final
cdef class OrderBook:
    """The bids and asks of one pair.

    ``price_exponent`` and ``size_exponent`` are where the book starts (see ``exponent_of``). A value finer than its
    exponent rescales the book, and a size beyond 64 bits makes it wide; both are counted in ``rescales``. A value that
    cannot be held (a price in 64 bits, a size in 36 digits), or is no number, raises BookError naming pair and value and
    leaves the book invalid: every query then raises BookError until the next ``apply_snapshot`` or ``clear``, both of
    which start again from the first exponents.
    """

    def __cinit__(self, str pair not None, int price_exponent, int size_exponent):
        for exponent in (price_exponent, size_exponent):
            if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
                raise BookError(
                    f"{pair}: exponent {exponent} is out of range: from {MIN_EXPONENT} to {MAX_EXPONENT}"
                )
        self.pair = pair
        self.price_exponent = self._first_price_exponent = price_exponent
        self.size_exponent = self._first_size_exponent = size_exponent
        self.is_valid = True
        self.invalid_reason = ""
        self._bids.direction = 1
        self._asks.direction = -1

    def __dealloc__(self):
        free(self._bids.levels)
        free(self._asks.levels)
        self._narrow()

    def __repr__(self):
        state = f"{self.bid_count} bids, {self.ask_count} asks" if self.is_valid else f"invalid: {self.invalid_reason}"
        return f"<OrderBook {self.pair}: {state}>"

    # ------------------------------------------------------------------------------------------------- updates

    cpdef void apply_diff(self, object bids, object asks) except *:
        """Sets the named levels to their new sizes; size 0 removes. Levels are (price, size) decimal strings."""
        self._check()
        self.is_valid = False
        self.invalid_reason = "an update failed half-way"
        self._update_side(&self._bids, bids)
        self._update_side(&self._asks, asks)
        self.is_valid = True
        self.invalid_reason = ""

    cpdef void apply_snapshot(self, object bids, object asks) except *:
        """Replaces the whole book. Levels may come in any order; best first, as venues send them, is fastest."""
        self.clear()
        self.is_valid = False
        self.invalid_reason = "a snapshot failed half-way"
        self._load_side(&self._bids, bids)
        self._load_side(&self._asks, asks)
        self.is_valid = True
        self.invalid_reason = ""

    cpdef void clear(self) except *:
        """Empties the book; an invalid one is valid again, at its first exponents."""
        self._bids.count = 0
        self._asks.count = 0
        self._replaced = True
        if not self.is_valid:
            self.price_exponent = self._first_price_exponent
            self.size_exponent = self._first_size_exponent
            self._narrow()
        self.is_valid = True
        self.invalid_reason = ""

    cpdef Py_ssize_t truncate(self, Py_ssize_t depth) except -1:
        """Drops all but the best ``depth`` levels of each side; answers how many went."""
        self._check()
        if depth < 0:
            raise BookError(f"{self.pair}: a book cannot be cut to {depth} levels; give 0 or more")
        if self._bid_changes is not None:
            note(self._bid_changes, self._bids.levels, self._bids.count - depth)
            note(self._ask_changes, self._asks.levels, self._asks.count - depth)
        return cut(&self._bids, depth) + cut(&self._asks, depth)

    # ------------------------------------------------------------------------------------------------- changes

    def changes(self):
        """(is whole, bids, asks): the levels that changed since the last call, by (price, size) strings, best first.

        A size of "0" says that the level is gone. The first call gives the whole book, as does one after a snapshot or
        a rescale of prices. From it on the book keeps track of what changes, until :meth:`forget_changes`.
        """
        self._check()
        cdef bint is_whole = self._bid_changes is None or self._replaced
        if is_whole:
            bids, asks = self.depth_strings()
        else:
            bids = self._changed(&self._bids, self._bid_changes)
            asks = self._changed(&self._asks, self._ask_changes)
        self._bid_changes = set()
        self._ask_changes = set()
        self._replaced = False
        return is_whole, bids, asks

    def forget_changes(self):
        """Keep track of changes no longer."""
        self._bid_changes = self._ask_changes = None

    # ------------------------------------------------------------------------------------------------- queries

    @property
    def bid_count(self):
        """Number of bid levels."""
        return self._bids.count

    @property
    def ask_count(self):
        """Number of ask levels."""
        return self._asks.count

    @property
    def is_crossed(self):
        """Whether the best bid is at or above the best ask, which no venue's book can be."""
        self._check()
        return crossed(&self._bids, &self._asks)

    def best_bid(self):
        """(price, size) of the highest bid as Decimals, or None."""
        self._check()
        return self._best(&self._bids)

    def best_ask(self):
        """(price, size) of the lowest ask as Decimals, or None."""
        self._check()
        return self._best(&self._asks)

    def best_raw(self):
        """(bid price, bid size, ask price, ask size) as mantissas. A size of 0 says that the side is empty."""
        self._check()
        return (*best_of(&self._bids), *best_of(&self._asks))

    def depth(self, n=None):
        """(bids, asks), each up to ``n`` (price, size) Decimals, best first. None: all."""
        bids, asks = self.depth_strings(n)
        return (
            [(Decimal(price), Decimal(size)) for price, size in bids],
            [(Decimal(price), Decimal(size)) for price, size in asks],
        )

    def depth_strings(self, n=None):
        """As :meth:`depth`, as exact decimal strings with the book's decimal places."""
        cdef Py_ssize_t limit = self._limit(n)
        return self._strings(&self._bids, limit), self._strings(&self._asks, limit)

    def to_numpy(self, n=None):
        """(bids, asks, price exponent, size exponent): int64 arrays of shape (levels, 2), best first, price and size
        mantissas in the columns. Of a wide book they are arrays of Python's integers (``dtype=object``)."""
        cdef Py_ssize_t limit = self._limit(n)
        return (
            self._array(&self._bids, limit), self._array(&self._asks, limit), self.price_exponent, self.size_exponent
        )

    def cells(self, n=None):
        """(bids, asks) as bytes: of each level, best first, price and size mantissa as two native ``int64``.

        BookError for a wide book, whose sizes do not fit them.
        """
        cdef Py_ssize_t limit = self._limit(n)
        if self.is_wide:
            raise BookError(f"{self.pair}: the sizes of a wide book do not fit in 64 bits; take depth_strings")
        return self._cells(&self._bids, limit), self._cells(&self._asks, limit)

    def load_cells(self, bytes bids not None, bytes asks not None):
        """Replaces the whole book by what :meth:`cells` gave of one with the same exponents.

        BookError, and an invalid book, for anything else.
        """
        self.clear()
        self._narrow()
        self.is_valid = False
        self.invalid_reason = "cells could not be taken"
        self._load_cells(&self._bids, bids)
        self._load_cells(&self._asks, asks)
        self.is_valid = True
        self.invalid_reason = ""

    def mid(self):
        """Half way between best bid and best ask, exactly; None when a side is empty."""
        self._check()
        if self._bids.count == 0 or self._asks.count == 0:
            return None
        both = <object>best_price(&self._bids) + <object>best_price(&self._asks)
        return exact(both // 2, self.price_exponent) if both % 2 == 0 else exact(both * 5, self.price_exponent - 1)

    def spread(self):
        """Best ask less best bid; None when a side is empty."""
        self._check()
        if self._bids.count == 0 or self._asks.count == 0:
            return None
        return exact(<object>best_price(&self._asks) - <object>best_price(&self._bids), self.price_exponent)

    def fill(self, side, size):
        """What a market order of ``size`` would get, as an :class:`~engine.book.views.Execution`. ``side``: the
        taker's :class:`~engine.messages.Side`."""
        self._check()
        cdef Cells cells = self._facing(side)
        return fill(&cells, self.pair, size, FRESH)

    def fill_quote(self, side, quote):
        """The same of an order that spends, or is to bring, ``quote`` of the quote asset. The last part of it is
        rounded down to whole steps of the book's sizes."""
        self._check()
        cdef Cells cells = self._facing(side)
        return fill_quote(&cells, self.pair, quote, FRESH)

    def volume(self, side, price):
        """What a taker finds at ``price`` or better, as a :class:`~engine.book.views.Volume`."""
        self._check()
        cdef Cells cells = self._facing(side)
        return volume(&cells, self.pair, price, side is BUY, FRESH)

    cpdef bint best_equals(self, object bid, object bid_size, object ask, object ask_size) except -1:
        """Whether the best bid and ask are exactly these decimal strings. A size of zero stands for an empty side."""
        self._check()
        return self._top_equals(&self._bids, bid, bid_size) and self._top_equals(&self._asks, ask, ask_size)

    # ------------------------------------------------------------------------------------------------- reading

    cdef int _update_side(self, Ladder* ladder, object entries) except -1:
        cdef object sequence = PySequence_Fast(entries, b"levels must be a sequence")
        cdef Py_ssize_t i
        cdef int64_t price
        cdef Wide size
        cdef set changes = self._bid_changes if ladder.direction > 0 else self._ask_changes
        for i in range(PySequence_Fast_GET_SIZE(sequence)):
            if self._read_level(<object>PySequence_Fast_GET_ITEM(sequence, i), &price, &size):
                set_level(ladder, price * ladder.direction, size)
                if changes is not None:
                    changes.add(price * ladder.direction)
        return 0

    cdef int _load_side(self, Ladder* ladder, object entries) except -1:
        """Appends all levels as they come, then puts them in order: one pass where they come best first."""
        cdef object sequence = PySequence_Fast(entries, b"levels must be a sequence")
        cdef Py_ssize_t i
        cdef int64_t price
        cdef Wide size
        reserve(ladder, PySequence_Fast_GET_SIZE(sequence))
        for i in range(PySequence_Fast_GET_SIZE(sequence)):
            if self._read_level(<object>PySequence_Fast_GET_ITEM(sequence, i), &price, &size):
                put_size(ladder, ladder.count, size)
                ladder.levels[ladder.count].key = price * ladder.direction
                ladder.count += 1
        arrange(ladder)
        return 0

    cdef int _read_level(self, object entry, int64_t* price, Wide* size) except -1:
        """Reads a (price, size, …) pair, rescaling the book as needed. 0: the removal of a level that cannot exist."""
        cdef int needed = 0
        cdef int status
        cdef object price_text
        if not (PyTuple_Check(entry) or PyList_Check(entry)) or PySequence_Fast_GET_SIZE(entry) < 2:
            self._refuse(entry, "is not a (price, size) pair")
        price_text = <object>PySequence_Fast_GET_ITEM(entry, 0)
        self._read_size(<object>PySequence_Fast_GET_ITEM(entry, 1), size)
        if size.low != 0 or size.high != 0:
            self._read_price(price_text, price)
            return 1
        status = parse_str(price_text, self.price_exponent, price, &needed)
        if status == MALFORMED:
            self._refuse(price_text, "is not a decimal number")
        return status == PARSED

    cdef int _read_size(self, object text, Wide* size) except -1:
        cdef int needed = 0
        size.high = 0
        if self.is_wide or parse_str(text, self.size_exponent, &size.low, &needed) != PARSED:
            return self._read_unusual_size(text, size)
        if size.low < 0:
            self._refuse(text, "is a negative size")
        return 0

    cdef int _read_unusual_size(self, object text, Wide* size) except -1:
        """A size that is finer than the book, beyond 64 bits, no number, or any of a wide book."""
        cdef int needed = 0
        cdef int status = parse_wide_str(text, self.size_exponent, size, &needed)
        if status == FINER:
            self._rescale(False, needed, text)
            status = parse_wide_str(text, self.size_exponent, size, &needed)
        if status == NEGATIVE:
            self._refuse(text, "is a negative size")
        if status != PARSED:
            self._refuse(text, "is not a decimal number" if status == MALFORMED else "does not fit in 36 digits")
        if not self.is_wide:
            if joined(size, &size.low):
                size.high = 0
            else:
                self._widen()
        return 0

    cdef int _read_price(self, object text, int64_t* price) except -1:
        cdef int needed = 0
        cdef int status = parse_str(text, self.price_exponent, price, &needed)
        if status == FINER:
            self._rescale(True, needed, text)
            status = parse_str(text, self.price_exponent, price, &needed)
        if status != PARSED:
            self._refuse(text, "is not a decimal number" if status == MALFORMED else "does not fit in 64 bits")
        return 0

    cdef int _rescale(self, bint prices, int exponent, object text) except -1:
        """Brings all prices or all sizes to a finer exponent."""
        cdef int places = (self.price_exponent if prices else self.size_exponent) - exponent
        cdef bint widens = not prices and not self.is_wide and not self._sizes_fit(places, False)
        if widens and self._sizes_fit(places, True):
            self._widen()
        if prices:
            if shift_prices(&self._bids, places) or shift_prices(&self._asks, places):
                self._refuse(text, f"needs exponent {exponent}, at which the book's other values do not fit in 64 bits")
            self.price_exponent = exponent
            self._replaced = True
        else:
            if shift_sizes(&self._bids, places) or shift_sizes(&self._asks, places):
                self._refuse(text, f"needs exponent {exponent}, at which the book's other values have over 36 digits")
            self.size_exponent = exponent
        self.rescales += 1
        return 0

    cdef bint _sizes_fit(self, int places, bint wide) noexcept:
        return sizes_fit(&self._bids, places, wide) and sizes_fit(&self._asks, places, wide)

    cdef int _widen(self) except -1:
        """Room for sizes of up to 36 digits."""
        widen(&self._bids)
        widen(&self._asks)
        self.is_wide = True
        self.rescales += 1
        return 0

    cdef int _narrow(self) noexcept:
        """Sizes of 64 bits again; for an empty book."""
        free(self._bids.high)
        free(self._asks.high)
        self._bids.high = self._asks.high = NULL
        self.is_wide = False
        return 0

    def _refuse(self, value, what):
        self.is_valid = False
        self.invalid_reason = f"{value!r} {what}"
        raise BookError(f"{self.pair}: {value!r} {what}; the book needs a new snapshot")

    # ------------------------------------------------------------------------------------------------- compiled callers

    cdef int set_levels(
        self, const Level* bids, Py_ssize_t bid_count, const Level* asks, Py_ssize_t ask_count
    ) except -1:
        """As :meth:`apply_diff`, of a valid book that is not wide, and of levels that are mantissas at its exponents.

        Their keys are price × direction of the side. Fastest if each side comes best first, as venues send them.
        """
        reserve(&self._bids, self._bids.count + bid_count)
        reserve(&self._asks, self._asks.count + ask_count)
        put_levels(&self._bids, bids, bid_count)
        put_levels(&self._asks, asks, ask_count)
        if self._bid_changes is not None:
            note(self._bid_changes, bids, bid_count)
            note(self._ask_changes, asks, ask_count)
        return 0

    # ------------------------------------------------------------------------------------------------- helpers

    cdef int _check(self) except -1:
        if not self.is_valid:
            raise BookError(f"{self.pair}: the book is invalid ({self.invalid_reason}); it needs a new snapshot")
        return 0

    cdef Cells _facing(self, object side) except *:
        """The side that a taker of ``side`` meets."""
        cdef Ladder* ladder = &self._asks if side is BUY else &self._bids
        cdef Cells cells
        if side is not BUY and side is not SELL:
            raise TypeError(f"{self.pair}: {side!r} is not a Side")
        cells.first = &ladder.levels[ladder.count - 1].key if ladder.count else NULL
        cells.high = &ladder.high[ladder.count - 1] if ladder.count and ladder.high != NULL else NULL
        cells.step = -1
        cells.count = ladder.count
        cells.direction = ladder.direction
        cells.price_exponent = self.price_exponent
        cells.size_exponent = self.size_exponent
        cells.is_cut = False
        return cells

    cdef Py_ssize_t _limit(self, object n) except -1:
        self._check()
        if n is None:
            return max(self._bids.count, self._asks.count)
        if n < 0:
            raise BookError(f"{self.pair}: {n} levels were asked for; ask for 0 or more, or None for all")
        return min(n, max(self._bids.count, self._asks.count))

    cdef object _best(self, Ladder* ladder):
        if ladder.count == 0:
            return None
        price, size = self._strings(ladder, 1)[0]
        return Decimal(price), Decimal(size)

    cdef bint _top_equals(self, Ladder* ladder, object price_text, object size_text) except -1:
        cdef int64_t wanted_price = 0
        cdef Wide wanted_size
        cdef int needed = 0
        if parse_wide_str(size_text, self.size_exponent, &wanted_size, &needed) != PARSED:
            return False
        price, size = best_of(ladder)
        if <object>wanted_size.high * WORD + wanted_size.low != size:
            return False
        if size == 0:
            return True
        return parse_str(price_text, self.price_exponent, &wanted_price, &needed) == PARSED and wanted_price == price

    cdef bytes _cells(self, Ladder* ladder, Py_ssize_t limit):
        cdef Py_ssize_t i, at, count = min(limit, ladder.count)
        cdef bytes cells = PyBytes_FromStringAndSize(NULL, count * sizeof(Level))
        cdef Level* target = <Level*><char*>cells
        for i in range(count):
            at = ladder.count - 1 - i
            target[i].key = ladder.levels[at].key * ladder.direction
            target[i].size = ladder.levels[at].size
        return cells

    cdef int _load_cells(self, Ladder* ladder, bytes cells) except -1:
        cdef Py_ssize_t i, at, count = len(cells) // <Py_ssize_t>sizeof(Level)
        cdef const Level* source = <const Level*><const char*>cells
        if count * <Py_ssize_t>sizeof(Level) != len(cells):
            raise BookError(f"{self.pair}: {len(cells)} bytes are no levels of {sizeof(Level)} bytes each")
        reserve(ladder, count)
        for i in range(count):
            at = count - 1 - i
            if source[i].size <= 0 or source[i].key < 0:
                raise BookError(f"{self.pair}: a level of {source[i].size} at {source[i].key} cannot be")
            ladder.levels[at].key = source[i].key * ladder.direction
            ladder.levels[at].size = source[i].size
            if i and ladder.levels[at].key >= ladder.levels[at + 1].key:
                raise BookError(f"{self.pair}: levels are not best first at {source[i].key}")
        ladder.count = count
        return 0

    cdef list _strings(self, Ladder* ladder, Py_ssize_t limit):
        cdef Py_ssize_t i, at
        cdef list levels = []
        for i in range(min(limit, ladder.count)):
            at = ladder.count - 1 - i
            levels.append((
                format_decimal(ladder.levels[at].key * ladder.direction, self.price_exponent),
                format_wide(high_of(ladder, at), ladder.levels[at].size, self.size_exponent),
            ))
        return levels

    cdef list _changed(self, Ladder* ladder, set keys):
        cdef list levels = []
        cdef Py_ssize_t at
        cdef int64_t key
        for key in sorted(keys, reverse=True):
            at = find(ladder.levels, ladder.count, key)
            size = "0"
            if at < ladder.count and ladder.levels[at].key == key:
                size = format_wide(high_of(ladder, at), ladder.levels[at].size, self.size_exponent)
            levels.append((format_decimal(key * ladder.direction, self.price_exponent), size))
        return levels

    cdef object _array(self, Ladder* ladder, Py_ssize_t limit):
        cdef Py_ssize_t count = min(limit, ladder.count)
        cdef Py_ssize_t i
        cdef int64_t[:, ::1] view
        if self.is_wide:
            array = np.empty((count, 2), dtype=object)
            for i in range(count):
                array[i] = level_of(ladder, ladder.count - 1 - i)
            return array
        array = np.empty((count, 2), dtype=np.int64)
        view = array
        for i in range(count):
            view[i, 0] = ladder.levels[ladder.count - 1 - i].key * ladder.direction
            view[i, 1] = ladder.levels[ladder.count - 1 - i].size
        return array


# ---------------------------------------------------------------------------------------------------------- ladders


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


cdef void put_size(Ladder* ladder, Py_ssize_t at, Wide size) noexcept nogil:
    ladder.levels[at].size = size.low
    if ladder.high != NULL:
        ladder.high[at] = size.high


cdef int64_t high_of(const Ladder* ladder, Py_ssize_t at) noexcept nogil:
    return ladder.high[at] if ladder.high != NULL else 0


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


cdef int64_t best_price(const Ladder* ladder) noexcept nogil:
    """Of a side that is not empty."""
    return ladder.levels[ladder.count - 1].key * ladder.direction


cdef int note(set keys, const Level* levels, Py_ssize_t count) except -1:
    """Adds the keys of ``count`` levels, of none if that is below 0."""
    cdef Py_ssize_t i
    for i in range(count):
        keys.add(levels[i].key)
    return 0


cdef bint crossed(const Ladder* bids, const Ladder* asks) noexcept nogil:
    if bids.count == 0 or asks.count == 0:
        return False
    return bids.levels[bids.count - 1].key >= -asks.levels[asks.count - 1].key


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
