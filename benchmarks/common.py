"""What all benchmarks share: their options, the line that each prints, and medians."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.metrics import Histogram

Line = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """``runs``: how often each thing is measured, None for a benchmark's own number. ``quick``: as short as can be.

    ``span_s``: how long to measure, where a benchmark measures for some time; None for its own.
    """

    runs: int | None = None
    quick: bool = False
    span_s: float | None = None

    def times(self, usual: int) -> int:
        """How often to measure."""
        return self.runs if self.runs is not None else 1 if self.quick else usual

    def seconds(self, usual: float) -> float:
        """How long to measure."""
        if self.span_s is not None:
            return self.span_s
        return min(usual, 2.0) if self.quick else usual


def line(
    bench: str,
    ours: float | None,
    unit: str,
    peers: Mapping[str, float] | None = None,
    *,
    more_is_better: bool = False,
    **extra: Any,
) -> Line:
    """One result. A ratio above 1 says that ours is the better."""
    peers = dict(peers or {})
    ratio = {}
    if ours:
        ratio = {name: round(ours / peer if more_is_better else peer / ours, 2) for name, peer in peers.items() if peer}
    found = {"bench": bench, **extra, "ours": _rounded(ours), "unit": unit}
    return found | {"peers": {name: _rounded(peer) for name, peer in peers.items()}, "ratio": ratio}


def say(text: str) -> None:
    """Progress, for a person."""
    print(text, file=sys.stderr, flush=True)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def microseconds(histogram: Histogram, fraction: float) -> float:
    """A percentile of nanoseconds, in microseconds. Raises RuntimeError when nothing was measured."""
    found = histogram.percentile(fraction)
    if found is None:
        raise RuntimeError("nothing was measured")
    return found / 1e3


def _rounded(value: float | None) -> float | None:
    if value is None or value >= 1000:
        return value if value is None else round(value)
    return float(f"{value:.4g}")
