"""Order books in shared memory: one writer, any number of readers, no locks.

A book is a file under ``/dev/shm``, mapped by all. Everything is in 64-bit words of the machine's byte order
(little-endian on every platform the engine runs on); signed ones are two's complement. Any language that can map a
file and load a word atomically can read it.

Header, 256 bytes; in all versions these words keep their places::

    byte  word
       0     0  magic: the ASCII bytes "ENGBOOK" and a zero
       8     1  layout version: 2
      16     2  size of the file in bytes
      24     3  size of a slot in bytes
      32     4  depth: levels of each side that a slot has room for
      40     5  process id of the writer, for people
      64     8  pair, UTF-8, padded with zeros to 64 bytes
     128    16  incarnation of the writer                             (atomic)
     136    17  retired: not 0 once another file has taken its place  (atomic)
     192    24  heartbeat: the writer's CLOCK_MONOTONIC, ns           (atomic)
     256        slot 0, and behind it slot 1

Slot, ``slot size`` bytes::

       0     0  sequence: odd while the slot is being written, 0 if it never was  (atomic)
       8     1  update id of the venue
      16     2  time of the venue's event, ns since 1970, 0 if it does not say
      24     3  CLOCK_MONOTONIC when its message was received, ns
      32     4  state: 0 unsynced, 1 buffering, 2 synced
      40     5  price exponent e: a price is its mantissa × 10**e
      48     6  size exponent, likewise
      56     7  bids in this slot          64   8  asks in this slot
      72     9  bids in the whole book     80  10  asks in the whole book
      88    11  wide: 1 if sizes have high words, which are then to be added, otherwise 0
     128    16  bids, best first: price mantissa, size mantissa; room for ``depth`` of them
      …         asks, likewise, from word 16 + 2 × depth
      …         of a wide book: high words of the bids' sizes, from word 16 + 4 × depth
      …         likewise of the asks' sizes, from word 16 + 5 × depth

A size is its mantissa × 10**e; in a wide slot it is (high word × 10**18 + mantissa) × 10**e.

Reading: load both sequences (acquire); take the slot with the larger even one; copy it; acquire fence; load its
sequence again: if it has not changed the copy is whole, otherwise start over, a bounded number of times. The writer
fills the slot that is not the newest: sets its sequence to an odd number, release fence, words, and (release) the next
even number, above that of any slot. So a writer that dies in the middle of a write leaves the other slot whole.

Trust: a copy is fit for use only if its state is 2 and the heartbeat is recent. When ``retired`` is set or the
incarnation is not the one seen at mapping, map the path again. Files are never shortened, only replaced by renaming.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from engine.book.decimals cimport MAX_EXPONENT, MIN_EXPONENT

import contextlib
import os

from engine.errors import BookError

LAYOUT_VERSION = VERSION_VALUE
MAX_DEPTH = DEEPEST

cdef int TRIES = 32
cdef uint64_t MAGIC_VALUE
memcpy(&MAGIC_VALUE, b"ENGBOOK\0", 8)


cdef uint64_t slot_words_of(uint64_t depth) noexcept nogil:
    """Words of a slot, up to a whole cache line."""
    return (LEVELS + 6 * depth + 7) // 8 * 8


cdef size_t file_size_of(uint64_t depth) noexcept nogil:
    return (HEADER_WORDS + 2 * slot_words_of(depth)) * 8


cdef int map_file(str path, bint writable, Mapping* mapped) except -1:
    """Maps the file at ``path`` if it is a complete book; leaves ``mapped`` empty if it is not, or there is none."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
    with naming(path):
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            return 0
        try:
            size = os.fstat(descriptor).st_size
            if size < HEADER_WORDS * 8:
                return 0
            map_descriptor(descriptor, size, writable, mapped)
        finally:
            os.close(descriptor)
    if mapped.words[MAGIC] != MAGIC_VALUE:
        unmap(mapped)
        return 0
    if mapped.words[VERSION] != VERSION_VALUE and not writable:
        version = mapped.words[VERSION]
        unmap(mapped)
        raise BookError(f"{path} has layout version {version}, this engine reads {VERSION_VALUE}: use one version")
    if mapped.words[VERSION] == VERSION_VALUE and is_whole(mapped):
        mapped.depth = mapped.words[DEPTH]
        mapped.slot_words = mapped.words[SLOT_SIZE] // 8
    elif not writable:
        unmap(mapped)
        return 0
    mapped.incarnation = load_acquire(mapped.words + INCARNATION)
    return 0


cdef bint is_whole(const Mapping* mapped) noexcept nogil:
    """Whether the header's sizes agree with each other and with the file's."""
    cdef uint64_t depth = mapped.words[DEPTH]
    return (
        1 <= depth <= DEEPEST
        and mapped.words[SLOT_SIZE] == slot_words_of(depth) * 8
        and mapped.words[FILE_SIZE] == file_size_of(depth)
        and mapped.size >= file_size_of(depth)
    )


cdef int map_descriptor(int descriptor, size_t size, bint writable, Mapping* mapped) except -1:
    cdef void* address = mmap(
        NULL, size, PROT_READ | PROT_WRITE if writable else PROT_READ, MAP_SHARED, descriptor, 0
    )
    if address == MAP_FAILED:
        raise OSError(f"{size} bytes cannot be mapped")
    found = os.fstat(descriptor)
    memset(mapped, 0, sizeof(Mapping))
    mapped.words = <uint64_t*>address
    mapped.size = size
    mapped.inode = found.st_ino
    mapped.device = found.st_dev
    return 0


cdef void unmap(Mapping* mapped) noexcept nogil:
    if mapped.words != NULL:
        munmap(mapped.words, mapped.size)
    memset(mapped, 0, sizeof(Mapping))


cdef str pair_of(const Mapping* mapped):
    cdef const char* name = <const char*>(mapped.words + PAIR)
    return name[:PAIR_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace")


@contextlib.contextmanager
def naming(path):
    """Failures of the file system as BookError, with the path."""
    try:
        yield
    except OSError as error:
        raise BookError(f"{path}: {error.strerror or error}; check the folder, its owner and its space") from error


# ------------------------------------------------------------------------------------------------------ slots


cdef uint64_t store_side(uint64_t* target, uint64_t* high, const Ladder* ladder, uint64_t depth) noexcept nogil:
    """Writes up to ``depth`` levels of a side, best first, of a wide book also to ``high``; answers how many."""
    cdef uint64_t count = min(<uint64_t>ladder.count, depth)
    cdef const Level* level = ladder.levels + ladder.count
    cdef uint64_t i
    for i in range(count):
        level -= 1
        store_relaxed(target + 2 * i, <uint64_t>(level.key * ladder.direction))
        store_relaxed(target + 2 * i + 1, <uint64_t>level.size)
    if ladder.high != NULL:
        for i in range(count):
            store_relaxed(high + i, <uint64_t>ladder.high[<uint64_t>ladder.count - 1 - i])
    return count


cdef uint64_t* newest_of(uint64_t* first, uint64_t one, uint64_t* second, uint64_t two) noexcept nogil:
    """The slot with the larger even sequence, NULL if there is none."""
    if one & 1 or one == 0:
        one = 0
    if two & 1 or two == 0:
        two = 0
    if one == 0 and two == 0:
        return NULL
    return first if one > two else second


cdef bint copy_newest(const Mapping* mapped, uint64_t* target, uint64_t limit, long long* retries) noexcept nogil:
    """Copies the newest complete slot, up to ``limit`` levels a side; false if none was found within ``TRIES``.

    ``retries`` counts the tries that came to nothing.
    """
    cdef uint64_t* first = mapped.words + HEADER_WORDS
    cdef uint64_t* second = first + mapped.slot_words
    cdef uint64_t* slot
    cdef uint64_t one, two, sequence
    cdef int attempt
    for attempt in range(TRIES):
        one = load_acquire(first + SEQUENCE)
        two = load_acquire(second + SEQUENCE)
        slot = newest_of(first, one, second, two)
        if slot == NULL:
            retries[0] += 1
            continue
        sequence = one if slot == first else two
        if not copy_slot(slot, target, mapped.depth, limit):
            retries[0] += 1
            continue
        fence_acquire()
        if load_relaxed(slot + SEQUENCE) == sequence:
            return True
        retries[0] += 1
    return False


cdef bint copy_slot(const uint64_t* slot, uint64_t* target, uint64_t depth, uint64_t limit) noexcept nogil:
    """Copies a slot's head and the best of its levels; false if its counts cannot be."""
    cdef uint64_t i
    cdef uint64_t head = LEVELS
    cdef uint64_t asks = head + 2 * depth
    for i in range(head):
        target[i] = load_relaxed(slot + i)
    if target[BID_COUNT] > depth or target[ASK_COUNT] > depth or not plausible(target):
        return False
    target[BID_COUNT] = min(target[BID_COUNT], limit)
    target[ASK_COUNT] = min(target[ASK_COUNT], limit)
    for i in range(2 * target[BID_COUNT]):
        target[LEVELS + i] = load_relaxed(slot + LEVELS + i)
    for i in range(2 * target[ASK_COUNT]):
        target[asks + i] = load_relaxed(slot + asks + i)
    if target[WIDE]:
        for i in range(target[BID_COUNT]):
            target[head + 4 * depth + i] = load_relaxed(slot + head + 4 * depth + i)
        for i in range(target[ASK_COUNT]):
            target[head + 5 * depth + i] = load_relaxed(slot + head + 5 * depth + i)
    return True


cdef bint plausible(const uint64_t* slot) noexcept nogil:
    """Whether the exponents are such that a value can be written out."""
    cdef int64_t price = <int64_t>slot[PRICE_EXPONENT], size = <int64_t>slot[SIZE_EXPONENT]
    return MIN_EXPONENT <= price <= MAX_EXPONENT and MIN_EXPONENT <= size <= MAX_EXPONENT
