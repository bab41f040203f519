"""What a box is made of: its pairs, balances, fees and pace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from engine.errors import ConfigError
from engine.simulator.amounts import ONE, parse_amount


class PairConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One market. All amounts are decimal strings; ``price`` is where its mid starts."""

    pair: str
    price: str
    price_increment: str = "0.01"
    size_increment: str = "0.00001"
    min_notional: str = "5"
    max_size: str = "9000"
    typical_size: str = ""
    """The size of a usual order of the other traders; by default worth 400 times ``min_notional``."""
    volatility: str = "2"
    """Standard deviation of the mid's moves, basis points in one second."""
    levels: int = 250
    """Levels a side that the other traders keep populated."""


DEFAULT_PAIRS: tuple[PairConfig, ...] = (
    PairConfig(pair="BTC-USDT", price="60000"),
    PairConfig(pair="ETH-USDT", price="3000", size_increment="0.0001"),
    PairConfig(
        pair="ETH-BTC",
        price="0.05",
        price_increment="0.00001",
        size_increment="0.0001",
        min_notional="0.0001",
        levels=220,
    ),
    PairConfig(pair="BNB-USDT", price="600", size_increment="0.001"),
    PairConfig(pair="SOL-USDT", price="150", size_increment="0.001", max_size="90000"),
    PairConfig(pair="XRP-USDT", price="0.6", price_increment="0.0001", size_increment="0.1", max_size="900000"),
    PairConfig(
        pair="LTC-BTC", price="0.0013", price_increment="0.000001", size_increment="0.001", min_notional="0.0001"
    ),
)

DEFAULT_BALANCES: Mapping[str, str] = {
    "USDT": "100000",
    "BTC": "2",
    "ETH": "30",
    "BNB": "50",
    "SOL": "200",
    "XRP": "50000",
    "LTC": "100",
}


class AccountConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client account; key and secret are made up where none are given."""

    name: str = "main"
    api_key: str = ""
    api_secret: str = ""
    balances: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(DEFAULT_BALANCES))


class BoxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A venue in a box.

    ``activity``: events of the other traders per second and pair. ``state_dir``: where the ledger lives; without one it
    lives in a temporary folder that a clean stop removes. ``capture``: serve this recording instead of a market, at
    ``speed`` times its pace (0: as fast as clients read). ``accounts`` replaces the single account that ``balances``
    describes.
    """

    name: str = "venue"
    venue: str = "binance"
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    state_dir: str | None = None
    pairs: Sequence[PairConfig] = DEFAULT_PAIRS
    balances: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(DEFAULT_BALANCES))
    accounts: Sequence[AccountConfig] = ()
    maker_fee: str = "0.001"
    taker_fee: str = "0.001"
    activity: float = 20.0
    capture: str | None = None
    speed: float = 1.0
    tls: bool = False
    depth_interval_ms: int = 100
    enforce_limits: bool = True
    weight_limit: int = 6000
    order_limit_10s: int = 100
    order_limit_1d: int = 200_000

    def all_accounts(self) -> Sequence[AccountConfig]:
        return self.accounts or (AccountConfig(balances=self.balances),)


class BoxInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a running box listens; ``ca`` is the certificate to trust when it speaks TLS."""

    venue: str
    rest: str
    ws: str
    ws_api: str
    admin: str
    api_key: str
    api_secret: str
    port: int
    state: str = ""
    ca: str = ""


@dataclass(slots=True, frozen=True)
class Pair:
    """A market's rules as integers in units of 10^-8."""

    name: str
    base: str
    quote: str
    start_price: int
    tick: int
    step: int
    min_notional: int
    max_size: int
    typical_size: int
    volatility: float
    levels: int

    @classmethod
    def of(cls, config: PairConfig) -> Pair:
        """Check and convert; :class:`ConfigError` names the pair and the value."""
        base, dash, quote = config.pair.partition("-")
        if not (base and dash and quote):
            raise ConfigError(f"pair {config.pair!r} is not of the form BASE-QUOTE")
        price = _positive(config.pair, "price", config.price)
        tick = _positive(config.pair, "price_increment", config.price_increment)
        step = _positive(config.pair, "size_increment", config.size_increment)
        minimum = _positive(config.pair, "min_notional", config.min_notional)
        typical = minimum * 400 * ONE // price
        if config.typical_size:
            typical = _positive(config.pair, "typical_size", config.typical_size)
        if price % tick:
            within = f"price_increment {config.price_increment}"
            raise ConfigError(f"pair {config.pair}: price {config.price} is no multiple of its {within}")
        maximum = _positive(config.pair, "max_size", config.max_size)
        volatility = float(config.volatility)
        return cls(
            config.pair,
            base,
            quote,
            price,
            tick,
            step,
            minimum,
            maximum,
            max(step, typical - typical % step),
            volatility,
            config.levels,
        )


def fee_rate(text: str) -> int:
    """``"0.001"`` → units of 10^-8."""
    try:
        rate = parse_amount(text)
    except ValueError as error:
        raise ConfigError(f"fee {text!r} is not a decimal number") from error
    if rate >= ONE:
        raise ConfigError(f"fee {text} is not below 1")
    return rate


def _positive(pair: str, field: str, text: str) -> int:
    try:
        amount = parse_amount(text)
    except ValueError as error:
        raise ConfigError(f"pair {pair}: {field} {text!r}: {error}") from error
    if amount <= 0:
        raise ConfigError(f"pair {pair}: {field} must be more than 0, not {text}")
    return amount
