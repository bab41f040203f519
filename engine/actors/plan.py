"""From a configuration to the actors that carry it out: names, params, and who must be there first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from engine.config import (
    ConnectorConfig,
    EngineConfig,
    StrategyConfig,
    VenueConfig,
    checkpoint_journal,
    journal_address,
)
from engine.config_checks import box_market
from engine.connectors.credentials import credentials_from_environment
from engine.connectors.registry import connector_class, split_venue
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.errors import ConfigError
from engine.runtime.paths import EnginePaths

HOME = "home"
"""What the place of those is called that name none: the host of the supervisor."""


@dataclass(frozen=True)
class PlannedActor:
    """An actor to run. ``box`` names the venue in a box that must be listening before it is started.

    ``place``: where it may run, the best first; ``cell``: the group that it runs in there.
    """

    name: str
    kind: str
    connector: str = ""
    box: str = ""
    params: dict[str, Any] = field(default_factory=dict, repr=False)
    place: tuple[str, ...] = ()
    cell: str = ""


def order_book_name(connector: str) -> str:
    return f"order_book.{connector}.0"


def user_stream_name(connector: ConnectorConfig) -> str:
    return f"user_stream.{connector.name}.{connector.account}"


def exchange_name(connector: ConnectorConfig) -> str:
    return f"exchange.{connector.name}.{connector.account}"


def mirror_name(connector: str, at: str) -> str:
    return f"mirror.{connector}.{at}"


def strategy_name(name: str) -> str:
    return f"strategy.{name}"


def venue_name(name: str) -> str:
    return "venue" if name == "venue" else f"venue.{name}"


def id_prefix(config: EngineConfig) -> str:
    """What every client order id of this engine begins with: letters and digits of its name, and a dash."""
    return f"{''.join(c for c in config.name if c.isalnum())[:6]}-"


def plan(config: EngineConfig, run_id: int, state_dir: Path) -> list[PlannedActor]:
    """Every actor of the configuration: boxes first, then the clock, connectors and strategies."""
    actors = [_box(config, box, state_dir) for box in config.boxes.values()]
    actors.append(
        PlannedActor("clock", "clock", params={"interval_ns": round(config.clock.interval * 1e9), **_common(config)})
    )
    for connector in config.connectors.values():
        actors.extend(_connector(config, connector, run_id))
    trading = [connector for connector in config.connectors.values() if connector.trade]
    if trading:
        actors.append(_risk(config, trading))
    if trading and config.recorder.enabled:
        settings = {"exchanges": [exchange_name(connector) for connector in trading]}
        actors.append(PlannedActor("recorder", "recorder", params={"recorder": settings, **_common(config)}))
    strategies = list(config.strategies.values())
    actors.extend(plan_mirrors(config, strategies))
    actors.extend(plan_strategy(config, strategy) for strategy in strategies)
    check_cells(config, actors, state_dir)
    return actors


def check_cells(config: EngineConfig, actors: Iterable[PlannedActor], state_dir: Path) -> None:
    """Raises ConfigError in a cluster where actors of two places would be put into one cell, because of how the places
    or a strategy are named, and where a cell's name is too long for the sockets in its folder.
    """
    if config.runtime != "cluster":
        return
    places: dict[str, tuple[tuple[str, ...], str]] = {HOME: ((), "the engine's own actors")}
    for actor in actors:
        cell = actor.cell or HOME
        place, other = places.setdefault(cell, (actor.place, actor.name))
        if place != actor.place:
            raise ConfigError(
                f"{actor.name} at {_said(actor.place)} and {other} at {_said(place)} would share the cell {cell}: "
                "give one of the places, or what has a cell of its own, another name"
            )
        EnginePaths.for_state(state_dir, cell).socket(actor.name)


def _said(place: tuple[str, ...]) -> str:
    return f"place {', '.join(place)}" if place else "no place"


def plan_mirrors(config: EngineConfig, strategies: Iterable[StrategyConfig]) -> list[PlannedActor]:
    """A mirror for each connector at each place where its books are read and it is not: one for all readers there."""
    if config.runtime != "cluster":
        return []
    wanted: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for strategy in strategies:
        for name, pair in strategy.books:
            wanted.setdefault((name, strategy.place), {})[pair] = None
    for connector in config.connectors.values():
        if connector.trade:  # for the risk actor, which values its positions
            wanted.setdefault((connector.name, ()), {}).update(dict.fromkeys(connector.pairs))
    return [
        _mirror(config, config.connectors[name], place, list(pairs))
        for (name, place), pairs in wanted.items()
        if mirrored_at(config, name, place)
    ]


def mirrored_at(config: EngineConfig, connector: str, place: tuple[str, ...]) -> str:
    """By what the books of a connector are named for readers at a place; empty where it is there itself."""
    if config.runtime != "cluster" or config.connectors[connector].place == place:
        return ""
    return _cell_name(place) or HOME


def _mirror(config: EngineConfig, connector: ConnectorConfig, place: tuple[str, ...], pairs: list[str]) -> PlannedActor:
    at = mirrored_at(config, connector.name, place)
    settings = {
        "connector": connector.name,
        "order_book": order_book_name(connector.name),
        "pairs": pairs,
        "at": at,
        "depth": config.books.depth,
        "stale_after_ns": round(config.books.stale_after * 1e9),
    }
    name = mirror_name(connector.name, at)
    return _placed(PlannedActor(name, "mirror", params={"mirror": settings, **_common(config)}), place, "")


def plan_strategy(config: EngineConfig, strategy: StrategyConfig) -> PlannedActor:
    """The actor of one strategy."""
    markets: dict[str, Any] = {}
    for name, _ in strategy.books:
        connector = config.connectors[name]
        at = mirrored_at(config, name, strategy.place)
        markets[name] = {
            "order_book": mirror_name(name, at) if at else order_book_name(name),
            "exchange": exchange_name(connector) if connector.trade else "",
            **({"at": at} if at else {}),
        }
    settings = {
        "name": strategy.name,
        "strategy": strategy.strategy,
        "pairs": list(strategy.pairs),
        "markets": markets,
        "id_prefix": id_prefix(config),
        "params": dict(strategy.params),
        "stale_after_ns": round(config.books.stale_after * 1e9),
    }
    keeper = checkpoint_journal(config, strategy) if len(strategy.place) > 1 else None
    if keeper is not None:
        address = journal_address(keeper, os.environ)
        settings["checkpoint"] = {"address": address, "schema": f"strategy.{config.name}.{strategy.name}"}
    planned = PlannedActor(strategy_name(strategy.name), "strategy", params={"strategy": settings, **_common(config)})
    return _placed(planned, strategy.place, strategy.name if strategy.own_cell else "")


def with_endpoint(actor: PlannedActor, info: Mapping[str, Any]) -> PlannedActor:
    """The actor with the address and key of the venue in a box that it works at."""
    settings = msgspec.convert(actor.params["settings"], ConnectorSettings)
    settings = msgspec.structs.replace(
        settings,
        endpoints=Endpoints(rest=info["rest"], ws=info["ws"], ws_api=info["ws_api"]),
        credentials=Credentials(api_key=info["api_key"], api_secret=info["api_secret"]),
    )
    return replace(actor, params={**actor.params, "settings": msgspec.to_builtins(settings)})


def with_halt(actor: PlannedActor, reason: str) -> PlannedActor:
    """The exchange actor that is told of a halt at its birth: the file that says so may be on another host."""
    return replace(actor, params={**actor.params, "halted": reason}) if actor.kind == "exchange" and reason else actor


def with_shared_limits(actor: PlannedActor, shm_dir: Path) -> PlannedActor:
    """The actor with the memory in which all that use a venue from this host count their requests together."""
    settings = actor.params.get("settings")
    if settings is None:
        return actor
    options = {"shared_limits": str(shm_dir / "request.limits"), **settings.get("options", {})}
    params = {**actor.params, "settings": {**settings, "options": options}}
    return replace(actor, params=params)


def _common(config: EngineConfig) -> dict[str, Any]:
    return {"dead_man_grace_s": config.dead_man.grace}


def _risk(config: EngineConfig, trading: list[ConnectorConfig]) -> PlannedActor:
    settings = {
        "accounts": [
            {
                "exchange": exchange_name(connector),
                "connector": connector.name,
                "pairs": list(connector.pairs),
                "at": mirrored_at(config, connector.name, ()),
            }
            for connector in trading
        ],
        "max_loss": {quote: str(limit) for quote, limit in config.risk.max_loss.items()},
        "stale_after_ns": round(config.books.stale_after * 1e9),
    }
    return PlannedActor("risk", "risk", params={"risk": settings, **_common(config)})


def _box(config: EngineConfig, box: VenueConfig, state_dir: Path) -> PlannedActor:
    folder = state_dir / "venues" / box.name
    described: dict[str, Any] = {
        "name": box.name,
        "venue": box.speaks,
        "port": box.port,
        "seed": box.seed,
        "state_dir": str(folder),
        "maker_fee": f"{box.maker_fee:f}",
        "taker_fee": f"{box.taker_fee:f}",
        "capture": box.capture,
        "speed": box.speed,
    }
    if box.pairs:
        described["pairs"] = [box_market(entry) for entry in box.pairs]
    if box.balances:
        described["balances"] = {asset: str(amount) for asset, amount in box.balances.items()}
    at_it = [connector.place for connector in config.connectors.values() if connector.at == box.name]
    place = box.place or (at_it[0] if at_it else ())
    params = {"box": described, "for_other_hosts": any(other != place for other in at_it), **_common(config)}
    return _placed(PlannedActor(venue_name(box.name), "venue", params=params), place, "")


def _connector(config: EngineConfig, connector: ConnectorConfig, run_id: int) -> list[PlannedActor]:
    venue, domain = split_venue(connector.venue)
    credentials = None
    if connector.at is None and connector.trade:
        credentials = credentials_from_environment(
            connector.venue, connector_class(venue).key_names, os.environ, connector.account
        )
    settings = ConnectorSettings(
        connector=connector.name,
        venue=venue,
        domain=domain,
        account=connector.account,
        pairs=tuple(connector.pairs),
        credentials=credentials,
        options=dict(connector.options),
    )
    common = {"settings": msgspec.to_builtins(settings), **_common(config)}
    box = venue_name(connector.at) if connector.at else ""
    books = {
        **common,
        "pairs": list(connector.pairs),
        "depth": config.books.depth,
        "keep_warm_s": _keep_warm(config, connector),
    }
    actors = [PlannedActor(order_book_name(connector.name), "order_book", connector.name, box, books)]
    if connector.trade:
        account = {
            **common,
            "account": connector.account,
            "user_stream": user_stream_name(connector),
            "run_id": str(run_id),
            "id_prefix": id_prefix(config),
            "risk": connector.risk.model_dump(mode="json", exclude_none=True),
            "halt_cancels": config.risk.halt_cancels,
            "stale_after_ns": round(config.books.stale_after * 1e9),
            "journal": {
                "durability": config.journal.durability,
                "keep_days": config.journal.keep_days,
                "address": journal_address(connector, os.environ),
                "lease": msgspec.to_builtins(config.journal.lease.terms()),
            },
            "check_balance": config.risk.check_balance,
            "balance_limits": {asset: f"{limit:f}" for asset, limit in connector.balance_limits.items()},
            "keep_orders": config.stop.open_orders == "keep",
        }
        actors.append(PlannedActor(user_stream_name(connector), "user_stream", connector.name, box, common))
        actors.append(PlannedActor(exchange_name(connector), "exchange", connector.name, box, account))
    alone = connector.name if connector.own_cell else ""
    return [_placed(actor, connector.place, alone) for actor in actors]


def _keep_warm(config: EngineConfig, connector: ConnectorConfig) -> float:
    """How long a connector is quiet before it beats. Those at one place beat as often together as one alone: what is
    spent on it there is bounded, and they keep its processors awake for each other. Virtual time is never cold.
    """
    if config.runtime == "inline":
        return 0.0
    together = sum(other.place == connector.place for other in config.connectors.values())
    return config.books.keep_warm * together


def _placed(actor: PlannedActor, place: tuple[str, ...], alone: str) -> PlannedActor:
    """The actor at its place, in the cell of all that have the same one, or of its own."""
    return replace(actor, place=place, cell=_cell_name((*place, alone) if alone else place))


def _cell_name(names: Iterable[str]) -> str:
    return "_".join("".join(c if c.isalnum() or c in "_-" else "-" for c in name) for name in names)
