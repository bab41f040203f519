from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define ENGINE_WORD 1000000000000000000LL
    """
    const int64_t WORD "ENGINE_WORD"  # what a wide mantissa's low word is below

cdef enum ParseStatus:
    PARSED
    FINER
    TOO_LARGE
    MALFORMED
    NEGATIVE

cdef enum:
    MIN_EXPONENT = -30
    MAX_EXPONENT = 18

cdef struct Wide:  # high × WORD + low, both from 0 to WORD − 1
    int64_t high
    int64_t low

cdef int parse(const char* text, Py_ssize_t length, int exponent, int64_t* mantissa, int* needed) noexcept nogil
cdef int parse_str(object text, int exponent, int64_t* mantissa, int* needed) noexcept
cdef int shift(int64_t* mantissa, int places) noexcept nogil
cdef str format_decimal(int64_t mantissa, int exponent)
cdef int parse_wide_str(object text, int exponent, Wide* mantissa, int* needed) noexcept
cdef bint shift_wide(Wide* mantissa, int places) noexcept nogil
cdef str format_wide(int64_t high, int64_t low, int exponent)
cdef object to_decimal(int64_t high, int64_t low, int exponent)

cdef class LastDecimal:
    cdef int64_t _high
    cdef int64_t _low
    cdef int _exponent
    cdef object _value

    cdef object of(self, int64_t high, int64_t low, int exponent)
