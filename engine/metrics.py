"""Counting and timing that can be added up across actors and incarnations."""

from __future__ import annotations

from collections.abc import Mapping

_SUB_BITS = 4
_SUB = 1 << _SUB_BITS


class Histogram:
    """Counts of non-negative integers in buckets at most 1/16 (6.25 %) of their value wide.

    Values below 16 are exact. ``buckets`` maps a bucket's index to its count and is what travels in
    :class:`~engine.messages.ActorStats`; histograms add by adding buckets.
    """

    __slots__ = ("buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})

    def record(self, value: int) -> None:
        """Count one value; negative ones count as 0."""
        if value < _SUB:
            index = value if value > 0 else 0
        else:
            shift = value.bit_length() - 1 - _SUB_BITS
            index = (shift << _SUB_BITS) + (value >> shift)
        self.buckets[index] = self.buckets.get(index, 0) + 1

    def add(self, buckets: Mapping[int, int]) -> None:
        """Add another histogram's buckets."""
        for index, count in buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    def percentile(self, fraction: float) -> int | None:
        """The upper edge of the bucket in which the given fraction of all values is reached; None when empty."""
        total = self.count
        if not total:
            return None
        wanted = max(1, -(-int(total * fraction * 1_000_000) // 1_000_000))
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= wanted:
                return bucket_upper(index)
        return bucket_upper(max(self.buckets))

    @property
    def maximum(self) -> int | None:
        """The upper edge of the highest bucket in use; None when empty."""
        return bucket_upper(max(self.buckets)) if self.buckets else None


def bucket_upper(index: int) -> int:
    """The largest value that falls into the bucket."""
    if index < 2 * _SUB:
        return index
    shift = (index >> _SUB_BITS) - 1
    return (((index & (_SUB - 1)) + _SUB + 1) << shift) - 1
