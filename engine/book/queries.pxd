from libc.stdint cimport int64_t

cdef struct Cells:
    const int64_t* first  # the best level's price; its size is behind it, and two words further the next level
    const int64_t* high  # of a wide book: the high word of its size; otherwise NULL
    Py_ssize_t step  # 1, or -1 where the levels lie the other way round
    Py_ssize_t count
    int64_t direction  # of the price as it is stored: 1, or -1 where it is negated
    int price_exponent
    int size_exponent
    bint is_cut  # there are further levels, which are not here

cdef object fill(const Cells* cells, str pair, object size, object status)
cdef object fill_quote(const Cells* cells, str pair, object quote, object status)
cdef object volume(const Cells* cells, str pair, object price, bint is_buy, object status)
cdef object exact(object mantissa, int exponent)
