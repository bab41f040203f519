"""The venue's clock as seen from here, and how far it may be off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from engine.errors import VenueError

if TYPE_CHECKING:
    from engine.connectors.base import Clock

MILLISECOND_NS = 1_000_000
UNSYNCED_ERROR_NS = 10_000_000_000
"""The error that is assumed as long as the venue was never asked."""

_DRIFT_PPM = 100
_KEPT = 16


class TimeSample(msgspec.Struct, frozen=True):
    """One reading: the venue's clock read ``offset_ns`` more than our monotonic clock, give or take
    ``error_ns``.
    """

    offset_ns: int
    error_ns: int
    taken_mono_ns: int


class TimeSynchronizer:
    """Follows the venue's clock by asking for its time.

    Every answer was made between the request's start and the reply's arrival; its best guess is the
    midpoint, wrong by half of the round trip at most (plus the venue's resolution). The sample with the
    smallest possible error counts, where a sample's error grows by 100 ppm of its age. The offset is to the
    monotonic clock, so a step of the local wall clock changes nothing.

    ``ask``: gives the venue's time in milliseconds.
    """

    def __init__(self, clock: Clock, ask: Callable[[], Awaitable[int]]) -> None:
        self.clock = clock
        self.failures = 0
        self._ask = ask
        self._samples: deque[TimeSample] = deque(maxlen=_KEPT)
        self._best: TimeSample | None = None
        self._offset_ns: int | None = None
        self._lock = asyncio.Lock()
        self._distrusted = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        """True once there is a sample."""
        return self._best is not None

    @property
    def error_ns(self) -> int:
        """How far :meth:`now_ns` may be off."""
        return UNSYNCED_ERROR_NS if self._best is None else self._error_of(self._best)

    @property
    def lead_ns(self) -> int:
        """How far the venue's clock is ahead of the local wall clock (0 before the first sample)."""
        return self.now_ns() - self.clock.time_ns()

    def now_ns(self) -> int:
        """The venue's time; the local wall clock's before the first sample.

        After samples were forgotten it goes on by the last of them: wrong by what the venue found wrong, where the
        wall clock may be wrong by hours.
        """
        if self._offset_ns is None:
            return self.clock.time_ns()
        return self.clock.monotonic_ns() + self._offset_ns

    def now_ms(self) -> int:
        """The venue's time in whole milliseconds, rounded down."""
        return self.now_ns() // MILLISECOND_NS

    def at(self, mono_ns: int) -> int:
        """The venue's time at an instant of the local monotonic clock."""
        return self.now_ns() - (self.clock.monotonic_ns() - mono_ns)

    def add(self, sent_mono_ns: int, received_mono_ns: int, server_ms: int) -> None:
        """Take in one answer: when it was asked for, when it arrived, what it said."""
        half = max(0, received_mono_ns - sent_mono_ns) // 2
        # A reading in whole milliseconds stands for the millisecond that it begins.
        server_ns = server_ms * MILLISECOND_NS + MILLISECOND_NS // 2
        offset = server_ns - (sent_mono_ns + half)
        self._samples.append(TimeSample(offset, half + MILLISECOND_NS // 2, received_mono_ns))
        # All errors grow alike with time, so which is the smallest changes only here.
        self._best = min(self._samples, key=self._error_of)
        self._offset_ns = self._best.offset_ns

    def forget(self) -> None:
        """Trust no sample any more: the venue said that they are wrong."""
        self._samples.clear()
        self._best = None

    async def sample(self) -> None:
        """Ask the venue once. Raises what the request raises."""
        sent = self.clock.monotonic_ns()
        server_ms = await self._ask()
        self.add(sent, self.clock.monotonic_ns(), server_ms)

    async def keep(self, every_s: float) -> None:
        """Ask again every so many seconds, until cancelled, and start over at once when the time is distrusted.

        ``failures`` counts the times it did not work.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._distrusted.wait()
            distrusted = self._distrusted.is_set()
            self._distrusted.clear()
            try:
                await (self.resync() if distrusted else self.sample())
            except VenueError:
                self.failures += 1

    def distrust(self) -> None:
        """The venue refused a timestamp: whoever keeps the time starts over, and nobody waits for it here."""
        self._distrusted.set()

    async def ensure(self, samples: int = 3) -> None:
        """Have at least one sample; asks ``samples`` times if there is none. Callers at once share the
        asking.
        """
        if self._samples:
            return
        async with self._lock:
            if not self._samples:
                for _ in range(samples):
                    await self.sample()

    async def resync(self) -> None:
        """Start over after the venue refused a timestamp. Callers at once share the asking."""
        before = self._samples[-1] if self._samples else None
        async with self._lock:
            if self._samples and self._samples[-1] is not before:
                return
            self.forget()
            await self.sample()

    def _error_of(self, sample: TimeSample) -> int:
        age = max(0, self.clock.monotonic_ns() - sample.taken_mono_ns)
        return sample.error_ns + age * _DRIFT_PPM // 1_000_000
