"""Decimal strings to and from whole mantissas, exactly; no float is involved anywhere.

A value is ``mantissa × 10**exponent``. Mantissas keep to ±(2**63 − 1), exponents to ``MIN_EXPONENT`` (−30) through
``MAX_EXPONENT`` (18). A :class:`Wide` mantissa has up to 36 digits, in two words of 18: ``high × 10**18 + low``.
"""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeASCII
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation, Rounded

from engine.errors import BookError

cdef extern from *:
    """
    typedef unsigned __int128 engine_uint128;
    #define WIDEST ((engine_uint128)1000000000000000000 * 1000000000000000000 - 1)
    """
    ctypedef unsigned long long uint128 "engine_uint128"
    uint128 WIDEST
    bint multiply_overflow "__builtin_mul_overflow"(int64_t a, int64_t b, int64_t* result) nogil
    bint multiply_wide_overflow "__builtin_mul_overflow"(uint128 a, uint128 b, uint128* result) nogil

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* length)

# A context's method takes a text without the detour over a type's constructor. Every mantissa has room in it; should one
# be rounded, that raises.
cdef object decimal_of = Context(
    prec=80, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation, Rounded]
).create_decimal

cdef int64_t[19] POWERS
POWERS[0] = 1
cdef int _power
for _power in range(1, 19):
    POWERS[_power] = POWERS[_power - 1] * 10


cpdef int exponent_of(object increment) except? -1:
    """The decimal exponent in which every multiple of ``increment`` is a whole number.

    ``Decimal("0.01")`` and ``Decimal("0.05")`` give −2, ``Decimal("1.000")`` gives 0, ``Decimal("100")`` gives 2.
    Raises BookError for an increment that is not a positive number, or whose exponent is out of range.
    """
    value = Decimal(increment)
    if not value.is_finite() or value <= 0:
        raise BookError(f"increment {increment} is not a positive number: take it from the pair's trading rule")
    _, digits, exponent = value.as_tuple()
    for digit in reversed(digits):
        if digit:
            break
        exponent += 1
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise BookError(f"increment {increment} is out of range: exponents go from {MIN_EXPONENT} to {MAX_EXPONENT}")
    return exponent


def format_mantissa(int64_t mantissa, int exponent):
    """``mantissa × 10**exponent`` as a plain decimal string with ``-exponent`` places (none if it is positive)."""
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise BookError(f"exponent {exponent} is out of range: from {MIN_EXPONENT} to {MAX_EXPONENT}")
    return format_decimal(mantissa, exponent)


cdef inline const char* utf8_of(object text, Py_ssize_t* length) noexcept:
    """A string's UTF-8; NULL, with no error left, for what is no string or has none, as lone surrogates have. Nothing
    else in it can fail, so ``noexcept`` loses nothing; whoever asks takes NULL for a malformed number.
    """
    cdef const char* data
    if not PyUnicode_Check(text):
        return NULL
    data = PyUnicode_AsUTF8AndSize(text, length)
    if data == NULL:
        PyErr_Clear()
    return data


cdef int parse_str(object text, int exponent, int64_t* mantissa, int* needed) noexcept:
    """:func:`parse` of a Python string; anything else is malformed. ``noexcept``: nothing that it calls can raise."""
    cdef Py_ssize_t length = 0
    cdef const char* data = utf8_of(text, &length)
    return parse(data, length, exponent, mantissa, needed) if data != NULL else MALFORMED


cdef int parse(const char* text, Py_ssize_t length, int exponent, int64_t* mantissa, int* needed) noexcept nogil:
    """Reads a decimal string as a mantissa at ``exponent``.

    FINER: the value has digits beyond the exponent; ``needed`` is the exponent that holds it. TOO_LARGE: it does not
    fit in 64 bits at this exponent (or at the finer one it needs). MALFORMED: it is not a decimal number.
    """
    cdef Py_ssize_t i = 0
    cdef int64_t value = 0
    cdef unsigned int digit
    cdef int left = -exponent
    if exponent > 0 or exponent < -17:
        return _parse_any(text, length, exponent, mantissa, needed)
    while i < length:
        digit = <unsigned int>text[i] - 48
        if digit > 9:
            break
        value = value * 10 + digit
        i += 1
        if i + left > 18:
            return _parse_any(text, length, exponent, mantissa, needed)
    if i == 0:
        return _parse_any(text, length, exponent, mantissa, needed)
    if i < length:
        if text[i] != b".":
            return _parse_any(text, length, exponent, mantissa, needed)
        i += 1
        while i < length and left > 0:
            digit = <unsigned int>text[i] - 48
            if digit > 9:
                return _parse_any(text, length, exponent, mantissa, needed)
            value = value * 10 + digit
            left -= 1
            i += 1
        while i < length:
            if text[i] != b"0":
                return _parse_any(text, length, exponent, mantissa, needed)
            i += 1
    mantissa[0] = value * POWERS[left]
    return PARSED


cdef int parse_wide_str(object text, int exponent, Wide* mantissa, int* needed) noexcept:
    """As :func:`parse_str`, as a wide mantissa: NEGATIVE for a number below zero, which there is none for. ``noexcept``:
    it calls nothing that can raise, either.
    """
    cdef Py_ssize_t length = 0
    cdef const char* data = utf8_of(text, &length)
    cdef uint128 value = 0
    cdef int64_t scale = 0
    cdef bint negative = False
    cdef int status
    if data == NULL:
        return MALFORMED
    status = _read(data, length, &value, &scale, &negative)
    if status != PARSED:
        return status
    if value != 0 and negative:
        return NEGATIVE
    status = _scaled(&value, scale, exponent, needed)
    mantissa.high = <int64_t>(value // <uint128>WORD)
    mantissa.low = <int64_t>(value % <uint128>WORD)
    return status


cdef int _parse_any(const char* text, Py_ssize_t length, int exponent, int64_t* mantissa, int* needed) noexcept nogil:
    """The whole grammar: sign, leading zeros, any number of digits, exponent notation."""
    cdef uint128 value = 0
    cdef int64_t scale = 0
    cdef bint negative = False
    cdef int status = _read(text, length, &value, &scale, &negative)
    if status != PARSED:
        return status
    if value > <uint128>INT64_MAX:
        return TOO_LARGE
    status = _scaled(&value, scale, exponent, needed)
    if status != PARSED:
        return status
    if value > <uint128>INT64_MAX:
        return TOO_LARGE
    mantissa[0] = -<int64_t>value if negative else <int64_t>value
    return PARSED


cdef int _scaled(uint128* value, int64_t scale, int exponent, int* needed) noexcept nogil:
    """Brings ``value × 10**scale`` to ``exponent``."""
    if value[0] == 0:
        return PARSED
    if scale < exponent:
        needed[0] = <int>scale if scale >= MIN_EXPONENT else MIN_EXPONENT
        return FINER if scale >= MIN_EXPONENT else TOO_LARGE
    if scale - exponent > 36 or _shift_wide(value, <int>(scale - exponent)):
        return TOO_LARGE
    return PARSED


cdef int _read(
    const char* text, Py_ssize_t length, uint128* value, int64_t* scale, bint* negative
) noexcept nogil:
    """Reads a decimal string as ``value × 10**scale``, the value without zeros at its end: PARSED, TOO_LARGE if it has
    more than 36 digits, or MALFORMED."""
    cdef Py_ssize_t i = 0
    cdef int64_t zeros = 0  # seen since the last digit that is in value
    cdef int64_t fraction = 0
    cdef bint point = False, digits = False, overflow = False
    cdef unsigned int digit
    if length > 0 and (text[0] == b"-" or text[0] == b"+"):
        negative[0] = text[0] == b"-"
        i = 1
    while i < length:
        digit = <unsigned int>text[i] - 48
        if digit <= 9:
            digits = True
            if point:
                fraction += 1
            if digit == 0:
                if value[0] != 0:
                    zeros += 1
            else:
                overflow = overflow or _append(value, zeros, digit)
                zeros = 0
        elif text[i] == b"." and not point:
            point = True
        else:
            break
        i += 1
    if not digits:
        return MALFORMED
    if i < length and not _parse_scale(text + i, length - i, scale):
        return MALFORMED
    scale[0] += zeros - fraction
    return TOO_LARGE if overflow else PARSED


cdef bint _append(uint128* value, int64_t zeros, unsigned int digit) noexcept nogil:
    """Puts ``zeros`` zeros and a digit behind ``value``; true if it then has more than 36 digits."""
    if value[0] != 0 and (zeros >= 36 or _shift_wide(value, <int>zeros + 1)):
        return True
    value[0] += digit  # what was shifted ends in a zero
    return False


cdef bint _shift_wide(uint128* value, int places) noexcept nogil:
    """Multiplies by ``10**places`` (0 to 36) in place; true if that has more than 36 digits."""
    cdef uint128 result = value[0]
    if places > 18:
        if multiply_wide_overflow(result, <uint128>WORD, &result):
            return True
        places -= 18
    if multiply_wide_overflow(result, <uint128>POWERS[places], &result) or result > WIDEST:
        return True
    value[0] = result
    return False


cdef bint _parse_scale(const char* text, Py_ssize_t length, int64_t* scale) noexcept nogil:
    """Reads ``e±digits``; false if it is anything else. Far out of range stays far out of range."""
    cdef Py_ssize_t i = 1
    cdef bint negative = False
    cdef int64_t value = 0
    cdef unsigned int digit
    if text[0] != b"e" and text[0] != b"E":
        return False
    if i < length and (text[i] == b"-" or text[i] == b"+"):
        negative = text[i] == b"-"
        i += 1
    if i >= length:
        return False
    while i < length:
        digit = <unsigned int>text[i] - 48
        if digit > 9:
            return False
        if value < 1000000000:
            value = value * 10 + digit
        i += 1
    scale[0] = -value if negative else value
    return True


cdef int shift(int64_t* mantissa, int places) noexcept nogil:
    """Multiplies by ``10**places`` in place; 1 (and unchanged) if that does not fit."""
    cdef int64_t result
    if mantissa[0] == 0:
        return 0
    if places > 18 or multiply_overflow(mantissa[0], POWERS[places], &result) or result < -INT64_MAX:
        return 1
    mantissa[0] = result
    return 0


cdef bint shift_wide(Wide* mantissa, int places) noexcept nogil:
    """Multiplies by ``10**places`` in place; true (and unchanged) if that does not fit."""
    cdef uint128 value = <uint128>mantissa.high * <uint128>WORD + <uint128>mantissa.low
    if value == 0:
        return False
    if places > 36 or _shift_wide(&value, places):
        return True
    mantissa.high = <int64_t>(value // <uint128>WORD)
    mantissa.low = <int64_t>(value % <uint128>WORD)
    return False


cdef str format_wide(int64_t high, int64_t low, int exponent):
    """:func:`format_decimal` of a wide mantissa."""
    if high == 0:
        return format_decimal(low, exponent)
    digits = f"{high}{low:018}"
    if exponent >= 0:
        return digits + "0" * exponent
    digits = digits.rjust(1 - exponent, "0")
    point = len(digits) + exponent
    return f"{digits[:point]}.{digits[point:]}"


cdef str format_decimal(int64_t mantissa, int exponent):
    cdef char[72] text
    cdef int end = 72
    cdef int places = -exponent if exponent < 0 else 0
    cdef uint64_t left = <uint64_t>mantissa if mantissa >= 0 else <uint64_t>0 - <uint64_t>mantissa
    cdef int written = 0
    cdef int i
    if mantissa != 0:
        for i in range(exponent):
            end -= 1
            text[end] = b"0"
    while left or written <= places:
        if places and written == places:
            end -= 1
            text[end] = b"."
        end -= 1
        text[end] = <char>(48 + left % 10)
        left //= 10
        written += 1
    if mantissa < 0:
        end -= 1
        text[end] = b"-"
    return PyUnicode_DecodeASCII(&text[end], 72 - end, NULL)


cdef object to_decimal(int64_t high, int64_t low, int exponent):
    """A wide mantissa as a Decimal with the exponent's places."""
    return decimal_of(format_wide(high, low, exponent))


@cython.final
cdef class LastDecimal:
    """Keeps the last Decimal that was asked for, since making one costs many times what comparing its number does."""

    cdef object of(self, int64_t high, int64_t low, int exponent):
        """As :func:`to_decimal`."""
        if self._value is None or low != self._low or high != self._high or exponent != self._exponent:
            self._value = to_decimal(high, low, exponent)
            self._high = high
            self._low = low
            self._exponent = exponent
        return self._value
