from libc.stdint cimport int64_t, uint64_t

from engine.book.ladder cimport Ladder, Level

cdef extern from *:
    """
    #include <stdint.h>
    #define load_acquire(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
    #define load_relaxed(word) __atomic_load_n((word), __ATOMIC_RELAXED)
    #define store_release(word, value) __atomic_store_n((word), (value), __ATOMIC_RELEASE)
    #define store_relaxed(word, value) __atomic_store_n((word), (value), __ATOMIC_RELAXED)
    #define fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    #define fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
    """
    uint64_t load_acquire(const uint64_t* word) nogil
    uint64_t load_relaxed(const uint64_t* word) nogil
    void store_release(uint64_t* word, uint64_t value) nogil
    void store_relaxed(uint64_t* word, uint64_t value) nogil
    void fence_acquire() nogil
    void fence_release() nogil

cdef enum:
    MAGIC = 0
    VERSION = 1
    FILE_SIZE = 2
    SLOT_SIZE = 3
    DEPTH = 4
    WRITER_PID = 5
    PAIR = 8
    INCARNATION = 16
    RETIRED = 17
    HEARTBEAT = 24
    HEADER_WORDS = 32

cdef enum:
    SEQUENCE = 0
    UPDATE_ID = 1
    EVENT_TIME = 2
    RECEIVED = 3
    STATE = 4
    PRICE_EXPONENT = 5
    SIZE_EXPONENT = 6
    BID_COUNT = 7
    ASK_COUNT = 8
    BID_TOTAL = 9
    ASK_TOTAL = 10
    WIDE = 11
    LEVELS = 16

cdef struct Mapping:
    uint64_t* words
    size_t size
    uint64_t depth
    uint64_t slot_words
    uint64_t incarnation
    uint64_t device
    uint64_t inode

cdef enum:
    VERSION_VALUE = 2
    DEEPEST = 10_000
    PAIR_BYTES = 64

cdef uint64_t MAGIC_VALUE

cdef uint64_t slot_words_of(uint64_t depth) noexcept nogil
cdef size_t file_size_of(uint64_t depth) noexcept nogil
cdef int map_file(str path, bint writable, Mapping* mapped) except -1
cdef int map_descriptor(int descriptor, size_t size, bint writable, Mapping* mapped) except -1
cdef void unmap(Mapping* mapped) noexcept nogil
cdef str pair_of(const Mapping* mapped)

cdef uint64_t store_side(uint64_t* target, uint64_t* high, const Ladder* ladder, uint64_t depth) noexcept nogil
cdef uint64_t* newest_of(uint64_t* first, uint64_t one, uint64_t* second, uint64_t two) noexcept nogil
cdef bint copy_slot(const uint64_t* slot, uint64_t* target, uint64_t depth, uint64_t limit) noexcept nogil
cdef bint copy_newest(const Mapping* mapped, uint64_t* target, uint64_t limit, long long* retries) noexcept nogil
