from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef class LimitCells:
    cdef uint64_t *_words
    cdef uint64_t _mark

    cdef uint64_t *_entry(self, int entry) except NULL
    cpdef int claim(self, uint64_t key) except -1
    cpdef int64_t charge(self, int entry, uint32_t cost, uint32_t limit, int64_t window, int64_t bucket) except -3
    cpdef void refund(self, int entry, uint32_t cost, uint32_t window, int64_t bucket)
    cpdef void report(self, int entry, uint32_t window, uint32_t used)
    cpdef uint32_t used(self, int entry, int64_t window)
    cpdef uint32_t remembered(self, int entry, int64_t bucket)
    cpdef int64_t room_from(self, int entry, int64_t bucket, uint32_t room)
    cpdef int64_t silent_until(self, int entry)
    cpdef void silence(self, int entry, int64_t until_ns)
