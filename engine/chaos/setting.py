"""The engine that is put under chaos: a configuration as it is, with faster ticks and busier strategies."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from engine.config import EngineConfig, load_config
from engine.documents import Document

OVERRIDES: Final = (
    "clock.interval=0.2",
    "supervision.budget=1000",
    "supervision.window=5.0",
    "supervision.backoff_max=1.0",
    "dead_man.grace=3.0",
)
BUSY: Final = "engine.simulation.strategies:Busy"
MAKER: Final = "engine.strategies.market_maker:MarketMaker"
FOR_EVER: Final = 2**62
NOTIONAL: Final = Decimal(300)
"""About what one order of a busy strategy is worth, in the quote asset."""


def write_config(base: Path, target: Path, seed: int) -> EngineConfig:
    """The configuration ``base`` with faster ticks, and beside its strategies one for each connector, and one for all,
    that place, take and cancel at random and count every event. Written to ``target``.

    Raises :class:`~engine.errors.ConfigError`.
    """
    config = load_config(base, OVERRIDES)
    document = Document.read(base)
    for override in OVERRIDES:
        document.override(override, frozenset())
    data: dict[str, Any] = document.data
    books = {name: [f"{name}/{pair}" for pair in connector.pairs] for name, connector in config.connectors.items()}
    everywhere = [pair for pairs in books.values() for pair in pairs]
    for number, pairs in enumerate([*books.values(), everywhere]):
        sizes = {pair: _size(config, pair) for pair in pairs}
        params = {
            "seed": seed,
            "until_ns": FOR_EVER,
            "size": sizes,
            "checkpoint_every": number + 1,
            "takes": 0.35,
            "acts": 0.2,
        }
        on_crash = ("cancel", "keep")[number % 2]
        data["strategies"][f"busy_{number}"] = {
            "strategy": BUSY,
            "pairs": pairs,
            "params": params,
            "on_crash": on_crash,
        }
    target.write_text(yaml.safe_dump(data))
    return load_config(target)


def _size(config: EngineConfig, name: str) -> str:
    connector, _, pair = name.partition("/")
    box = config.boxes[config.connectors[connector].at or ""]
    price = next(market.price for market in box.pairs if market.pair == pair)
    assert price is not None
    return f"{(NOTIONAL / price).quantize(Decimal('0.0001')):f}"
