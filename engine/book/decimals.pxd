from libc.stdint cimport int64_t

cdef enum ParseStatus:
    PARSED
    FINER
    TOO_LARGE
    MALFORMED

cdef enum:
    MIN_EXPONENT = -30
    MAX_EXPONENT = 18

cdef int parse(const char* text, Py_ssize_t length, int exponent, int64_t* mantissa, int* needed) noexcept nogil
cdef int parse_str(object text, int exponent, int64_t* mantissa, int* needed) noexcept
cdef int shift(int64_t* mantissa, int places) noexcept nogil
cdef str format_decimal(int64_t mantissa, int exponent)
