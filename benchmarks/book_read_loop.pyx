# cython: language_level=3, boundscheck=False, wraparound=False
"""Reads of a shared book from compiled code, as a compiled strategy makes them."""

from libc.stdint cimport int64_t

from engine.book.shared cimport Best, BookReader

import time


def read_many(BookReader reader not None, int64_t count):
    """``count`` reads of the best: (seconds of CPU, reads that were not FRESH, torn reads).

    The writer makes both best sizes its update id, so that any mixture of two updates shows.
    """
    cdef Best found
    cdef int64_t i, other = 0, torn = 0
    began = time.thread_time_ns()
    for i in range(count):
        if reader.best(&found, 0) != 0:
            other += 1
        elif found.bid_size != found.update_id or found.ask_size != found.update_id:
            torn += 1
    return (time.thread_time_ns() - began) / 1e9, other, torn
