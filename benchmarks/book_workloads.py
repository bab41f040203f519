"""The input of the books' benchmarks: a snapshot, and raw Binance depth frames that follow it.

``synthetic`` is made up, from a seed: as many levels a side as wanted, about 10 changes a side in a frame, their
distances from the mid exponential with a mean of 12 ticks, 30 % of them deletions. ``uniform`` spreads the same
changes over the whole book, which is the worst case for arrays. ``recorded`` is a capture of ETH-USDT of 2024,
depth frames alone, where it is beside the checkout.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import msgspec

from engine.captures import read_capture
from engine.messages import TradingRule

CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "captures" / "binance_spot_ethusdt_2024.jsonl.gz"
LEVELS = 1000
CHANGES = 10
MEAN_DISTANCE = 12
DELETIONS = 0.3
MID = 6_000_000


class Workload(msgspec.Struct, frozen=True):
    """``first`` is the REST snapshot's body; each of ``frames`` continues the one before."""

    name: str
    rule: TradingRule
    first: bytes
    frames: list[bytes]


def synthetic(count: int, *, levels: int = LEVELS, uniform: bool = False) -> Workload:
    rng = random.Random(7)
    bids = [[price_text(MID - 1 - n), size_text(rng)] for n in range(levels)]
    asks = [[price_text(MID + 1 + n), size_text(rng)] for n in range(levels)]
    first = json.dumps({"lastUpdateId": 1, "bids": bids, "asks": asks}).encode()
    frames = [_frame(rng, number + 2, levels if uniform else 0) for number in range(count)]
    return Workload("uniform" if uniform else "synthetic", rule_of("BTC-USDT", "0.00001"), first, frames)


def recorded(count: int) -> Workload | None:
    """None where there is no capture."""
    if not CAPTURE.exists():
        return None
    first, last, frames = b"", 0, []
    for record in read_capture(CAPTURE):
        if record.kind == "http" and "/depth?" in record.url:
            first, last = record.payload, json.loads(record.payload)["lastUpdateId"]
        elif record.kind == "ws_in" and b'"depthUpdate"' in record.payload:
            frames.append(record.payload)
    following = [frame for frame in frames if json.loads(frame)["data"]["u"] > last]
    return Workload("ETH-USDT 2024", rule_of("ETH-USDT", "0.0001"), first, following[:count])


def rule_of(pair: str, size_increment: str) -> TradingRule:
    base, quote = pair.split("-")
    return TradingRule(
        pair=pair,
        symbol=base + quote,
        base=base,
        quote=quote,
        price_increment=Decimal("0.01"),
        size_increment=Decimal(size_increment),
    )


def price_text(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02d}000000"


def size_text(rng: random.Random) -> str:
    return f"{rng.randrange(1, 400_000) / 100_000:.5f}000"


def _frame(rng: random.Random, number: int, spread: int) -> bytes:
    def changes(sign: int) -> list[list[str]]:
        if spread:
            distances = {rng.randrange(1, 1 + spread) for _ in range(CHANGES)}
        else:
            distances = {1 + int(rng.expovariate(1 / MEAN_DISTANCE)) for _ in range(CHANGES + 2)}
        return [
            [price_text(MID + sign * far), "0.00000000" if rng.random() < DELETIONS else size_text(rng)]
            for far in sorted(distances)
        ]

    event = {"e": "depthUpdate", "E": 1_700_000_000_000 + number, "s": "BTCUSDT", "U": number, "u": number}
    event |= {"b": changes(-1), "a": changes(1)}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": event}, separators=(",", ":")).encode()
