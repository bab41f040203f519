"""What can be wrong with a configuration that is right in each of its keys.

A box's markets that cannot be, options that their venue does not have, limits that could never apply.

Each check raises :class:`~engine.documents.Fault` with the path of the key that has to be changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.documents import Fault, KeyPath, suggest
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import ConnectorConfig, EngineConfig, SimulatedPair, VenueConfig

_BOX_SPEAKS: Final = "binance"


def box_market(entry: SimulatedPair) -> dict[str, Any]:
    """A box's market as :class:`~engine.simulator.config.PairConfig` takes it: what the configuration says, and the
    box's own values for a pair that it knows.

    Raises ConfigError for a pair that no box knows and that has no price.
    """
    from engine.simulator.config import DEFAULT_PAIRS

    known = next((pair for pair in DEFAULT_PAIRS if pair.pair == entry.pair), None)
    described: dict[str, Any] = msgspec.to_builtins(known) if known is not None else {"pair": entry.pair}
    given = entry.model_dump(exclude_none=True, exclude={"pair"})
    described |= {key: f"{value:f}" for key, value in given.items()}
    if "price" not in described:
        raise ConfigError(f"a box has no {entry.pair} of its own; give its price")
    return described


def check_box_markets(box: VenueConfig, path: KeyPath) -> None:
    """A box speaks one protocol so far, and a market's amounts are such as it can hold."""
    from engine.simulator.config import Pair, PairConfig

    if box.speaks.partition(":")[0] != _BOX_SPEAKS:
        raise Fault((*path, "speaks"), f"a box does not speak {box.speaks}; it speaks {_BOX_SPEAKS}")
    for index, entry in enumerate(box.pairs):
        try:
            Pair.of(msgspec.convert(box_market(entry), PairConfig))
        except ConfigError as error:
            raise Fault((*path, "pairs", str(index)), str(error)) from None


def check_venue_can(connector: ConnectorConfig, path: KeyPath) -> None:
    """The venue does what is asked of it in this version, and knows each of the options."""
    from engine.connectors.registry import connector_class, create, split_venue
    from engine.connectors.settings import ConnectorSettings

    venue, domain = split_venue(connector.venue)
    cls = connector_class(venue)
    if connector.trade and "trading" not in cls.capabilities:
        raise Fault(path, f"venue {venue} has no trading yet in this version; set trade: false to follow its books")
    for option in connector.options:
        if option not in cls.option_names:
            raise Fault((*path, "options", option), f"unknown option{suggest(option, cls.option_names)}")
    settings = ConnectorSettings(
        connector=connector.name,
        venue=venue,
        domain=domain,
        pairs=tuple(connector.pairs),
        options=dict(connector.options),
    )
    try:
        create(settings).check_options()
    except ConfigError as error:
        raise Fault((*path, "options"), str(error)) from None


def check_limits(config: EngineConfig) -> None:
    """A limit names what the engine trades; one that names anything else would silently never apply."""
    traded = [connector for connector in config.connectors.values() if connector.trade]
    quotes = {pair.partition("-")[2] for connector in traded for pair in connector.pairs}
    _known(config.risk.max_loss, quotes, ("risk", "max_loss"), "is the quote asset of no pair that is traded")
    for name, connector in config.connectors.items():
        _check_limits_of(connector, ("connectors", name))


def _check_limits_of(connector: ConnectorConfig, path: KeyPath) -> None:
    quotes = {pair.partition("-")[2] for pair in connector.pairs}
    assets = quotes | {pair.partition("-")[0] for pair in connector.pairs}
    risk = connector.risk
    _known(risk.max_position, connector.pairs, (*path, "risk", "max_position"), "is no pair of this connector")
    not_a_quote = "is the quote asset of no pair of this connector"
    _known(risk.max_daily_loss, quotes, (*path, "risk", "max_daily_loss"), not_a_quote)
    _known(connector.balance_limits, assets, (*path, "balance_limits"), "is an asset of no pair of this connector")


def _known(limits: Mapping[str, object], names: Iterable[str], path: KeyPath, otherwise: str) -> None:
    known = set(names)
    for name in limits:
        if name not in known:
            raise Fault((*path, name), f"{otherwise}, so this limit would never apply{suggest(name, known)}")
