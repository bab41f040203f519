"""An order book on exact integers.

Prices and sizes are 64-bit mantissas with one decimal exponent each per book. Each side is a ladder of levels
(:mod:`engine.book.ladder`); what is read and asked of them, and when they are rescaled, is here.

Sizes that have no common exponent in 64 bits (173176223.4512 beside 0.00000000001) make the book *wide*: what is above
18 digits of each size lies in a second array beside the levels. Such a book is as exact and somewhat slower.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check
from libc.stdint cimport int64_t
from libc.stdlib cimport free

from engine.book.decimals cimport FINER, MALFORMED, MAX_EXPONENT, MIN_EXPONENT, NEGATIVE, PARSED, WORD, Wide
from engine.book.decimals cimport format_decimal, format_wide, parse_str, parse_wide_str
from engine.book.ladder cimport arrange, best_of, best_price, crossed, cut, find, high_of, joined, level_of, note
from engine.book.ladder cimport put_levels, put_size, reserve, set_level, shift_prices, shift_sizes, sizes_fit, widen
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
        """Of C alone, which cannot raise."""
        return sizes_fit(&self._bids, places, wide) and sizes_fit(&self._asks, places, wide)

    cdef int _widen(self) except -1:
        """Room for sizes of up to 36 digits."""
        widen(&self._bids)
        widen(&self._asks)
        self.is_wide = True
        self.rescales += 1
        return 0

    cdef int _narrow(self) noexcept:
        """Sizes of 64 bits again; for an empty book. It frees and sets fields, which cannot raise."""
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
