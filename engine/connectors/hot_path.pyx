"""The hot path of market data: a depth frame's bytes straight onto its book, with no Python object on the way.

A venue whose commonest frames are worth it brings a :class:`FrameScanner`, which knows their one usual spelling and
nothing else. :class:`FrameIntake`, on which :class:`engine.connectors.feed.MarketDataFeed` is built, asks it
first. Whatever the scanner declines, and whatever does not simply continue a book in sync, goes the general way as if
the scanner did not exist; so a scanner may decline anything, and must never read a frame otherwise than the venue's
protocol does.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from engine.book.standing cimport unread_quote

cdef enum:
    FIRST_TABLE = 16


cdef class FrameScanner:
    """Reads one spelling of a kind of frame. Subclasses override the methods, none of which keeps anything."""

    cdef bint head(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil:
        """Reads all before the levels: ids, time, symbol (of at most 16 bytes). ``data[length]`` is a zero byte."""
        return False

    cdef bint body(self, Diff* diff, int price_exponent, int size_exponent) noexcept nogil:
        """Reads the levels and the frame's end. Each key is price × direction of its side, asks behind bids."""
        return False

    cdef bint quote(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil:
        """Reads a best quote: its id as ``last_id``, symbol, and where its amounts are, each of digits and points."""
        return False


cdef class FeedCounters:
    """``unparsed``: frames that could not be read. ``unknown``: events of pairs that nobody follows."""


@cython.final
cdef class Revision:
    """A number that changes with what was looked up in something else."""

    def __init__(self):
        self.number = 0


@cython.final
cdef class Lane:
    """Where the diffs of one symbol go."""


cdef class FrameIntake:
    """What a feed does with a frame first. ``hot`` counts the frames that needed nothing else. ``nothing``: the answer to
    a frame after which there is nothing to do.

    ``books`` may be added to and taken from at any time. The subclass has ``_on_frame(conn, data)`` for all other
    frames, ``_ready(pair)`` for the answer to an update applied, and ``_settled(pair, sync)`` for the same where quotes
    wait for the book.
    """

    def __init__(self, dict books not None, nothing, FrameScanner scanner=None, symbols=None):
        self.books = books
        self.nothing = nothing
        self.counters = FeedCounters()
        self._scanner = scanner
        self._symbols = symbols
        self._lanes = []
        if scanner is not None:
            self._revision = symbols.revision
            self._forget()

    def __dealloc__(self):
        free(self._table)
        free(self._levels)

    def on_frame(self, conn, data, int64_t received_mono_ns):
        """One frame, read from its socket at ``received_mono_ns``. Never raises for what the venue sends."""
        cdef object result
        self.counters.frames += 1
        self.last_frame_mono_ns = received_mono_ns
        if self._scanner is not None and PyBytes_CheckExact(data):
            result = self._take(<bytes>data)
            if result is not None:
                return result
        return self._on_frame(conn, data)

    cdef object _take(self, bytes data):
        """The answer to a frame that the hot path could carry out whole, otherwise None and nothing is done."""
        cdef Diff diff
        cdef Lane lane
        cdef Standing sync
        if not self._scanner.head(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &diff):
            return self._take_quote(data, &diff)
        lane = self._lane_of(&diff)
        if lane is None:
            return None
        sync = lane.sync
        if not sync.continues_at(diff.first_id, diff.last_id):
            return None
        diff.room = (diff.end - diff.levels) // SHORTEST_LEVEL + 1
        if diff.room > self._room:
            self._make_room(diff.room)
        diff.bids = self._levels
        if not self._scanner.body(&diff, sync.book.price_exponent, sync.book.size_exponent):
            return None
        if not sync.put(
            diff.last_id, diff.time_ns, diff.bids, diff.bid_count, diff.bids + diff.bid_count, diff.ask_count
        ):
            return None
        self.counters.diffs += 1
        self.hot += 1
        if sync.is_quoted():
            return self._settled(lane.pair, sync)
        return lane.ready

    cdef object _take_quote(self, bytes data, Diff* diff):
        """Likewise for a best quote, which is left to wait for its book."""
        cdef Lane lane
        if not self._scanner.quote(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), diff):
            return None
        lane = self._lane_of(diff)
        if lane is None or not lane.sync.awaits_quote(diff.last_id):
            return None
        lane.sync._quotes.append(unread_quote(diff.last_id, data, diff.quoted))
        self.counters.quotes += 1
        self.hot += 1
        return self.nothing

    # -------------------------------------------------------------------------------------------------------- lanes

    cdef Lane _lane_of(self, const Diff* diff):
        cdef size_t at
        cdef Lane lane
        if self._revision.number != self._seen:
            self._forget()
        at = place_of(diff.symbol_low, diff.symbol_high) & self._mask
        while self._table[at] != NULL:
            lane = <Lane>self._table[at]
            if (
                lane.symbol_low == diff.symbol_low
                and lane.symbol_high == diff.symbol_high
                and lane.symbol_length == diff.symbol_length
            ):
                if PyDict_GetItem(self.books, lane.pair) == <PyObject*>lane.sync:
                    return lane
                self._forget()
                break
            at = (at + 1) & self._mask
        return self._new_lane(diff)

    cdef Lane _new_lane(self, const Diff* diff):
        """None if nobody follows the symbol's pair, or the symbol is none of letters and digits."""
        cdef Lane lane
        cdef str symbol = symbol_of(diff)
        pair = self._symbols.pair(symbol) if symbol is not None else None
        sync = self.books.get(pair) if pair is not None else None
        if not isinstance(sync, Standing):
            return None
        lane = Lane()
        lane.symbol_low = diff.symbol_low
        lane.symbol_high = diff.symbol_high
        lane.symbol_length = diff.symbol_length
        lane.pair = pair
        lane.sync = sync
        lane.ready = self._ready(pair)
        self._lanes.append(lane)
        self._make_table(4 * <size_t>len(self._lanes))
        return lane

    cdef int _forget(self) except -1:
        """Lanes are found anew: symbols or books are not what they were."""
        self._lanes.clear()
        self._seen = self._revision.number
        return self._make_table(FIRST_TABLE)

    cdef int _make_table(self, size_t size) except -1:
        cdef Lane lane
        cdef size_t at
        cdef size_t capacity = FIRST_TABLE
        while capacity < size:
            capacity *= 2
        free(self._table)
        self._table = <void**>calloc(capacity, sizeof(void*))
        if self._table == NULL:
            raise MemoryError()
        self._mask = capacity - 1
        for lane in self._lanes:
            at = place_of(lane.symbol_low, lane.symbol_high) & self._mask
            while self._table[at] != NULL:
                at = (at + 1) & self._mask
            self._table[at] = <void*>lane
        return 0

    cdef int _make_room(self, Py_ssize_t room) except -1:
        cdef Level* levels = <Level*>realloc(self._levels, 2 * room * sizeof(Level))
        if levels == NULL:
            raise MemoryError()
        self._levels = levels
        self._room = 2 * room
        return 0


cdef str symbol_of(const Diff* diff):
    """None if it is none of ASCII letters and digits: what is written otherwise may be spelled in two ways."""
    cdef bytes symbol = diff.symbol[:diff.symbol_length]
    return symbol.decode("ascii") if symbol.isalnum() else None


cdef size_t place_of(uint64_t low, uint64_t high) noexcept nogil:
    return ((low ^ (high * <uint64_t>0x9E3779B97F4A7C15)) * <uint64_t>0x9E3779B97F4A7C15) >> 32
