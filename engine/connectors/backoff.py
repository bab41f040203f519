"""How long to wait before the next attempt."""

from __future__ import annotations

import random


class Backoff:
    """Growing delays with jitter, the same for the same seed.

    The n-th delay lies between ``(1 - jitter)`` and 1 times ``min(max_s, base_s * factor**n)`` seconds, so
    that many clients cut off at one instant do not come back at one instant.
    """

    __slots__ = ("_attempt", "_base_s", "_factor", "_jitter", "_max_s", "_random")

    def __init__(
        self,
        *,
        base_s: float = 0.1,
        factor: float = 2.0,
        max_s: float = 30.0,
        jitter: float = 0.5,
        seed: int | None = None,
    ) -> None:
        if base_s <= 0 or factor < 1 or max_s < base_s or not 0 <= jitter <= 1:
            raise ValueError("a back-off needs 0 < base_s <= max_s, factor >= 1 and 0 <= jitter <= 1")
        self._base_s = base_s
        self._factor = factor
        self._max_s = max_s
        self._jitter = jitter
        # Unseeded ones go by the process's own generator, which a simulation seeds.
        self._random = random.Random(random.getrandbits(64) if seed is None else seed)
        self._attempt = 0

    @property
    def attempt(self) -> int:
        """How many delays were given since the last reset."""
        return self._attempt

    def next(self) -> float:
        """The next delay, in seconds."""
        ceiling = self._max_s
        # Beyond 64 doublings the power is past any ceiling, and would overflow in the end.
        if self._attempt < 64:
            ceiling = min(self._max_s, self._base_s * self._factor**self._attempt)
        self._attempt += 1
        return ceiling * (1 - self._jitter * self._random.random())

    def reset(self) -> None:
        """Begin anew: the last attempt lasted."""
        self._attempt = 0
