from libc.stdint cimport int64_t, uint64_t

from engine.book.decimals cimport LastDecimal
from engine.book.layout cimport Mapping
from engine.book.order_book cimport OrderBook
from engine.book.queries cimport Cells
from engine.book.standing cimport Standing

cdef class BookWriter:
    cdef readonly str path
    cdef readonly str pair
    cdef Mapping _map
    cdef uint64_t* _newest
    cdef uint64_t _sequence

    cpdef void publish(
        self, OrderBook book, int64_t update_id, int64_t event_time_ns, int64_t received_mono_ns, int state
    ) except *
    cpdef void publish_standing(self, Standing standing, int64_t received_mono_ns) except *
    cpdef void set_state(self, int state) except *
    cpdef void heartbeat(self, int64_t mono_ns) except *
    cdef int _check(self) except -1
    cdef uint64_t* _begin(self) noexcept nogil
    cdef void _end(self, uint64_t* slot) noexcept nogil

cdef struct Best:
    int64_t bid  # prices and sizes are mantissas; a size of 0 says that the side is empty
    int64_t bid_size
    int64_t ask
    int64_t ask_size
    int64_t update_id
    int64_t received_mono_ns
    int price_exponent
    int size_exponent

cdef class BookReader:
    cdef readonly str path
    cdef readonly int64_t stale_after_ns
    cdef Mapping _map
    cdef uint64_t* _copy  # of one slot: as many words as the mapped file's slots
    cdef int64_t _age
    cdef str _pair
    cdef LastDecimal _bid
    cdef LastDecimal _bid_size
    cdef LastDecimal _ask
    cdef LastDecimal _ask_size
    cdef readonly long long retries

    cdef int best(self, Best* found, int64_t now_mono_ns) except -1

    cdef int _read_facing(self, object side, object now_mono_ns, Cells* cells) except -1
    cdef int _read(self, object now_mono_ns, int64_t limit) except -1
    cdef int _read_at(self, int64_t now, int64_t limit) except -1
    cdef bint _ready(self) except -1
    cdef bint _remap(self) except -1
    cdef bint _moved(self) except -1
    cdef int64_t _checked_limit(self, object n) except -1
    cdef object _array(self, uint64_t side, uint64_t count)
    cdef list _decimals(self, uint64_t side, uint64_t count)
    cdef tuple _level(self, uint64_t side, uint64_t number)
    cdef tuple _raw_of_wide(self, int status)
    cdef int _check_narrow(self) except -1
