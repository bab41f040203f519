"""What a venue says of a pair's book, in the engine's own words: the input of :class:`engine.book.BookSync`.

Levels are (price, size) pairs of the venue's decimal strings, never turned into floats on the way; anything a
venue adds behind them (counts, times) is ignored. A size of zero removes the level.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

Levels = Sequence[Sequence[str]]
"""Pairs of (price, size), each a tuple or a list of decimal strings."""


class DepthSnapshot(msgspec.Struct, frozen=True, gc=False):
    """The whole book, or its best part, as of ``update_id``. ``time_ns`` is the venue's, 0 if it does not
    say.

    ``checksum``: what the venue says that the book sums up to, None where it says nothing. ``depth``: how many
    levels a side the subscription keeps, and so the book may; 0: all.
    """

    pair: str
    update_id: int
    bids: Levels
    asks: Levels
    time_ns: int = 0
    checksum: int | None = None
    depth: int = 0


class DepthDiff(msgspec.Struct, frozen=True, gc=False):
    """The levels that changed in the updates ``first_id`` to ``last_id``, with their new sizes.

    ``previous_id`` is the last id of the diff before, where a venue says so. Venues with a single number per
    message give it as both ``first_id`` and ``last_id``, those without numbers give 0. ``checksum``: of the
    book with this diff in it, None where the venue says nothing.
    """

    pair: str
    first_id: int
    last_id: int
    previous_id: int | None = None
    bids: Levels = ()
    asks: Levels = ()
    time_ns: int = 0
    checksum: int | None = None


class BestQuote(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask as of ``update_id``, against which a book at that very id is checked."""

    pair: str
    update_id: int
    bid: str
    bid_size: str
    ask: str
    ask_size: str
