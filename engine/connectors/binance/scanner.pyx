"""Binance's depth frames and best quotes as the venue spells them: no white space, keys in their order, plain decimals.

    {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":[["1.0","2"]],"a":[]}}
    {"stream":"btcusdt@bookTicker","data":{"u":2,"s":"BTCUSDT","b":"1.0","B":"2","a":"1.1","A":"3"}}

or the inner object alone, of a raw stream. Everything else is declined: other keys or another order, escapes, numbers
that are signed, need rounding at the book's exponents, or might not fit.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from engine.book.decimals cimport PARSED, parse
from engine.book.ladder cimport Level
from engine.book.standing cimport Span
from engine.connectors.hot_path cimport SHORTEST_LEVEL, Diff, FrameScanner, symbol_of

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Eight bytes, the first one lowest; bytes from ``end`` on read as zero. */
    static inline uint64_t eight(const char *at, const char *end) {
        uint64_t word = 0;
        if (__builtin_expect(end - at >= 8, 1)) memcpy(&word, at, 8);
        else if (end > at) memcpy(&word, at, (size_t)(end - at));
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }

    /* How many of the eight bytes, from the lowest on, are digits. */
    static inline int digits_of(uint64_t word) {
        uint64_t x = word ^ 0x3030303030303030ULL;
        uint64_t other = ((x + 0x7676767676767676ULL) | x) & 0x8080808080808080ULL;
        return other ? __builtin_ctzll(other) >> 3 : 8;
    }

    /* The value of the first ``count`` (1 to 8) bytes, which are digits. */
    static inline int64_t value_of(uint64_t word, int count) {
        uint64_t x = (word ^ 0x3030303030303030ULL) << (64 - 8 * count);
        x = x * 10 + (x >> 8);
        return (int64_t)((((x & 0x000000FF000000FFULL) * 0x000F424000000064ULL)
                        + (((x >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL)) >> 32);
    }

    /* How many of the eight bytes come before the first quotation mark. */
    static inline int before_quote(uint64_t word) {
        uint64_t x = word ^ 0x2222222222222222ULL;
        uint64_t quote = (x - 0x0101010101010101ULL) & ~x & 0x8080808080808080ULL;
        return quote ? __builtin_ctzll(quote) >> 3 : 8;
    }

    /* The word's first ``count`` (0 to 8) bytes, zeros behind them. */
    static inline uint64_t first_bytes(uint64_t word, int count) {
        return count == 8 ? word : word & ~(~0ULL << (8 * count));
    }

    /* Whether the bytes from number ``from`` up to ``count``, which are digits, are all zeros. */
    static inline int zeros_behind(uint64_t word, int from, int count) {
        uint64_t x = (word ^ 0x3030303030303030ULL) << (64 - 8 * count);
        return count <= from || (x >> (64 - 8 * (count - from))) == 0;
    }
    """
    uint64_t eight(const char* at, const char* end) noexcept nogil
    int digits_of(uint64_t word) noexcept nogil
    int64_t value_of(uint64_t word, int count) noexcept nogil
    int before_quote(uint64_t word) noexcept nogil
    uint64_t first_bytes(uint64_t word, int count) noexcept nogil
    bint zeros_behind(uint64_t word, int start, int count) noexcept nogil

cdef int64_t LATEST_MS = 9_223_372_036_854  # in nanoseconds it still fits in 64 bits

cdef enum:
    LAST_AT = 64  # the protocol looks for the @ of a stream's name this far

cdef int64_t[19] POWERS
POWERS[0] = 1
cdef int _power
for _power in range(1, 19):
    POWERS[_power] = POWERS[_power - 1] * 10


@cython.final
cdef class BinanceScanner(FrameScanner):
    """Reads a frame of ``<symbol>@depth``, ``@depth@100ms``, ``@depth@1000ms`` or ``@bookTicker``, or declines it."""

    cdef bint head(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil:
        cdef const char* at = data
        cdef const char* end = data + length
        cdef int64_t time_ms = 0
        if skip(&at, end, b'{"stream":"', 11):
            while is_name(at[0]):
                at += 1
            if at - data >= LAST_AT or not skip(&at, end, b"@depth", 6):
                return False
            if not skip(&at, end, b"@100ms", 6):
                skip(&at, end, b"@1000ms", 7)
            if not skip(&at, end, b'","data":', 9) or (end - 1)[0] != b"}":
                return False
            end -= 1
        diff.end = end
        if (
            not skip(&at, end, b'{"e":"depthUpdate","E":', 23)
            or not read_id(&at, end, &time_ms)
            or time_ms > LATEST_MS
            or not skip(&at, end, b',"s":"', 6)
            or not read_symbol(&at, end, diff)
            or not skip(&at, end, b'","U":', 6)
            or not read_id(&at, end, &diff.first_id)
            or not skip(&at, end, b',"u":', 5)
            or not read_id(&at, end, &diff.last_id)
            or not skip(&at, end, b',"b":[', 6)
        ):
            return False
        diff.time_ns = time_ms * 1_000_000
        diff.levels = at
        return diff.first_id <= diff.last_id

    cdef bint body(self, Diff* diff, int price_exponent, int size_exponent) noexcept nogil:
        cdef const char* at = diff.levels
        diff.bid_count = read_levels(&at, diff.end, price_exponent, size_exponent, 1, diff.bids)
        if diff.bid_count < 0 or not skip(&at, diff.end, b',"a":[', 6):
            return False
        diff.ask_count = read_levels(
            &at, diff.end, price_exponent, size_exponent, -1, diff.bids + diff.bid_count
        )
        return diff.ask_count >= 0 and at == diff.end - 1 and at[0] == b"}"

    cdef bint quote(self, const char* data, Py_ssize_t length, Diff* diff) noexcept nogil:
        cdef const char* at = data
        cdef const char* end = data + length
        if skip(&at, end, b'{"stream":"', 11):
            while is_name(at[0]):
                at += 1
            if at - data >= LAST_AT or not skip(&at, end, b'@bookTicker","data":', 20) or (end - 1)[0] != b"}":
                return False
            end -= 1
        return (
            skip(&at, end, b'{"u":', 5)
            and read_id(&at, end, &diff.last_id)
            and skip(&at, end, b',"s":"', 6)
            and read_symbol(&at, end, diff)
            and skip(&at, end, b'","b":"', 7)
            and find_amount(data, &at, &diff.quoted[0])
            and skip(&at, end, b'","B":"', 7)
            and find_amount(data, &at, &diff.quoted[1])
            and skip(&at, end, b'","a":"', 7)
            and find_amount(data, &at, &diff.quoted[2])
            and skip(&at, end, b'","A":"', 7)
            and find_amount(data, &at, &diff.quoted[3])
            and skip(&at, end, b'"}', 2)
            and at == end
        )

    def scan_quote(self, bytes frame not None):
        """(symbol, update id, bid, bid size, ask, ask size) with amounts as the frame has them, or None: for tests."""
        cdef Diff diff
        cdef const char* data = frame
        if not self.quote(data, len(frame), &diff) or symbol_of(&diff) is None:
            return None
        spans = [frame[diff.quoted[n].start : diff.quoted[n].end].decode() for n in range(4)]
        return symbol_of(&diff), diff.last_id, *spans

    def scan(self, bytes frame not None, int price_exponent, int size_exponent):
        """(symbol, first id, last id, time in ns, bids, asks) with levels of mantissas, or None: for tests."""
        cdef Diff diff
        cdef Py_ssize_t n
        cdef const char* data = frame
        if not self.head(data, len(frame), &diff) or symbol_of(&diff) is None:
            return None
        diff.room = (diff.end - diff.levels) // SHORTEST_LEVEL + 1
        diff.bids = <Level*>malloc(diff.room * sizeof(Level))
        if diff.bids == NULL:
            raise MemoryError()
        try:
            if not self.body(&diff, price_exponent, size_exponent):
                return None
            return (
                symbol_of(&diff),
                diff.first_id,
                diff.last_id,
                diff.time_ns,
                [(diff.bids[n].key, diff.bids[n].size) for n in range(diff.bid_count)],
                [(-diff.bids[diff.bid_count + n].key, diff.bids[diff.bid_count + n].size) for n in range(diff.ask_count)],
            )
        finally:
            free(diff.bids)


cdef inline bint skip(const char** start, const char* end, const char* text, Py_ssize_t length) noexcept nogil:
    if end - start[0] < length or memcmp(start[0], text, length) != 0:
        return False
    start[0] += length
    return True


cdef inline bint is_name(char letter) noexcept nogil:
    return b"a" <= letter <= b"z" or b"0" <= letter <= b"9" or letter == b"_"


cdef inline bint is_digit(char letter) noexcept nogil:
    return b"0" <= letter <= b"9"


cdef inline bint find_amount(const char* data, const char** start, Span* span) noexcept nogil:
    """Goes on behind digits and points, of which there must be some."""
    cdef const char* at = start[0]
    while is_digit(at[0]) or at[0] == b".":
        at += 1
    span.start = start[0] - data
    span.end = at - data
    start[0] = at
    return span.end > span.start


cdef inline bint read_id(const char** start, const char* end, int64_t* value) noexcept nogil:
    """Reads a JSON integer that is not negative and has at most 18 digits, so that it fits."""
    cdef const char* at = start[0]
    cdef uint64_t word = eight(at, end)
    cdef int digits = digits_of(word)
    cdef int64_t found
    if digits == 0 or (at[0] == b"0" and digits > 1):
        return False
    found = value_of(word, digits)
    at += digits
    if digits == 8:
        word = eight(at, end)
        digits = digits_of(word)
        if digits:
            found = found * POWERS[digits] + value_of(word, digits)
            at += digits
        if digits == 8:
            for digits in range(3):
                if not is_digit(at[0]):
                    break
                if digits == 2:
                    return False
                found = found * 10 + (at[0] - 48)
                at += 1
    start[0] = at
    value[0] = found
    return True


cdef inline bint read_symbol(const char** start, const char* end, Diff* diff) noexcept nogil:
    """Reads up to 15 bytes before a quotation mark; who looks them up knows which they may be."""
    cdef const char* at = start[0]
    cdef uint64_t low = eight(at, end), high = 0
    cdef int length = before_quote(low)
    if length == 8:
        high = eight(at + 8, end)
        length += before_quote(high)
        high = first_bytes(high, length - 8)
    else:
        low = first_bytes(low, length)
    diff.symbol = at
    diff.symbol_length = length
    diff.symbol_low = low
    diff.symbol_high = high
    start[0] = at + length
    return 0 < length < 16


cdef Py_ssize_t read_levels(
    const char** start, const char* end, int price_exponent, int size_exponent, int64_t direction, Level* levels
) noexcept nogil:
    """Reads ``["price","size"],…]`` behind its opening bracket, up to behind its closing one; −1: declined."""
    cdef const char* at = start[0]
    cdef Level* level = levels
    cdef int64_t price = 0
    if at[0] == b"]":
        start[0] = at + 1
        return 0
    while True:
        if at[0] != b"[" or at[1] != b'"':
            return -1
        at += 2
        if not read_amount(&at, end, price_exponent, &price):
            return -1
        if at[0] != b'"' or at[1] != b"," or at[2] != b'"':
            return -1
        at += 3
        if not read_amount(&at, end, size_exponent, &level.size):
            return -1
        if at[0] != b'"' or at[1] != b"]":
            return -1
        at += 2
        level.key = price * direction
        level += 1
        if at[0] == b",":
            at += 1
            continue
        if at[0] != b"]":
            return -1
        start[0] = at + 1
        return level - levels


cdef inline bint read_amount(const char** start, const char* end, int exponent, int64_t* mantissa) noexcept nogil:
    """Reads a plain decimal, eight digits at a time, as a mantissa at ``exponent``."""
    cdef const char* at = start[0]
    cdef uint64_t word = eight(at, end)
    cdef int digits = digits_of(word)
    cdef int places = -exponent
    cdef int64_t value
    if places < 0 or places > 10 or digits == 0 or digits == 8:
        return read_unusual(start, exponent, mantissa)
    value = value_of(word, digits) * POWERS[places]
    at += digits
    if at[0] == b".":
        at += 1
        word = eight(at, end)
        digits = digits_of(word)
        if digits == 0 or (digits == 8 and is_digit(at[8])):
            return read_unusual(start, exponent, mantissa)
        at += digits
        if digits <= places:
            value += value_of(word, digits) * POWERS[places - digits]
        elif not zeros_behind(word, places, digits):
            return False
        elif places:
            value += value_of(word, places)
    start[0] = at
    mantissa[0] = value
    return True


cdef bint read_unusual(const char** start, int exponent, int64_t* mantissa) noexcept nogil:
    """As :func:`read_amount`, for longer numbers and other exponents."""
    cdef const char* at = start[0]
    cdef int needed = 0
    cdef Py_ssize_t length = 0
    while is_digit(at[length]) or at[length] == b".":
        length += 1
    if length == 0 or length > 40 or parse(at, length, exponent, mantissa, &needed) != PARSED:
        return False
    start[0] = at + length
    return True
