"""The configuration: what to run, on which venues, with which strategies.

A configuration is a YAML file (see ``configs/``). :func:`load_config` reads it, applies ``--set`` overrides
and checks everything that can be known before anything starts. What is wrong is raised as one
:class:`~engine.errors.ConfigError` of one line: ``FILE:LINE: key.path: what is wrong, what to do``.

Seconds are floats (they are never money); prices and balances are decimals, written as text.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic import model_validator as _model_validator

from engine.config_checks import check_box_markets, check_limits, check_venue_can
from engine.documents import Document, Fault, KeyPath, suggest
from engine.errors import ConfigError
from engine.orders.lease import LeaseTerms
from engine.strategies.loading import check_strategy_loads

_NAMED = frozenset({"venues", "connectors", "strategies"})


@dataclass(frozen=True)
class RunOptions:
    """What the command line of ``engine run`` adds to a configuration.

    ``seconds``: stop after so long, None for until told. ``terminal_logs``: write events to standard error as
    they happen; false while the live view has the terminal.
    """

    state_dir: Path
    seconds: float | None = None
    terminal_logs: bool = True


# ----------------------------------------------------------------------------------------------- values

SHORTEST_QUIET_S = 0.001


def _exact(value: Any) -> Any:
    if isinstance(value, float | bool):
        raise ValueError(f'is {value!r}, which is not exact; write it in quotes, as in "0.1"')
    return value


def _pair_entry(value: Any) -> Any:
    return {"pair": value} if isinstance(value, str) else value


def _place_entry(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _not_without_pause(seconds: float) -> float:
    if 0 < seconds < SHORTEST_QUIET_S:
        raise ValueError(f"is {seconds:g} s, in which an actor does little else; 0 for never, else at least 0.001")
    return seconds


_ASSET = r"^[A-Z0-9]{1,20}$"
Amount = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Pair = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{1,20}-[A-Z0-9]{1,20}$")]
Asset = Annotated[str, StringConstraints(pattern=_ASSET)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,23}$")]
ConnectorName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,23}(:[a-z0-9_]{1,12})?$")]
VenueId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,23}(:[a-z0-9_]{1,12})?$")]
BookName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_:-]{0,36}/[A-Z0-9]{1,20}-[A-Z0-9]{1,20}$")]
ClassPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]

_JOURNAL = r"^postgresql(://[^\s]+)?$"
PlaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
Place = Annotated[tuple[PlaceName, ...], BeforeValidator(_place_entry), Field(max_length=4)]

_PATTERNS = {
    _ASSET: "an asset is written in capitals, as in USDT",
    _JOURNAL: "write postgresql://USER@HOST/DATABASE, or postgresql and put the address in the environment",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$": "a place is up to 40 letters, digits, '_', '.' and '-'",
    r"^[A-Z0-9]{1,20}-[A-Z0-9]{1,20}$": "a pair is BASE-QUOTE in capitals, as in BTC-USDT",
    r"^[a-z][a-z0-9_-]{0,23}$": "a name is up to 24 small letters, digits, '-' and '_', a letter first",
    r"^[a-z][a-z0-9_-]{0,23}(:[a-z0-9_]{1,12})?$": "a connector's name is like binance or binance:us",
    r"^[a-z][a-z0-9_]{0,23}(:[a-z0-9_]{1,12})?$": "a venue is named like binance or binance:us",
    r"^[a-z][a-z0-9_:-]{0,36}/[A-Z0-9]{1,20}-[A-Z0-9]{1,20}$": "write CONNECTOR/PAIR, as in binance/BTC-USDT",
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "write package.module:Class",
    r"^[A-Za-z0-9_.\-]+:[0-9]{1,5}$": "write HOST:PORT",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --------------------------------------------------------------------------------------------- sections


class ClockConfig(_Section):
    """Ticks at wall-clock multiples of ``interval`` seconds."""

    interval: Annotated[float, Field(ge=0.01, le=60, allow_inf_nan=False)] = 1.0


class StopConfig(_Section):
    """What becomes of open orders when the engine stops."""

    open_orders: Literal["cancel", "keep"] = "cancel"


class DeadManConfig(_Section):
    """``grace``: seconds after the supervisor's death for exchange actors to cancel open orders and exit."""

    grace: Seconds = 5.0


class SupervisionConfig(_Section):
    """When an actor counts as stalled, and how it is restarted (all times in seconds).

    ``budget`` restarts are allowed within ``window``; the wait before each doubles from ``backoff_initial``
    up to ``backoff_max``.
    """

    stall: Annotated[Seconds, Field(gt=0)] = 3.0
    strategy_stall: Annotated[Seconds, Field(gt=0)] = 30.0
    budget: Annotated[int, Field(ge=0, le=1000)] = 5
    window: Annotated[Seconds, Field(gt=0)] = 60.0
    backoff_initial: Seconds = 0.05
    backoff_max: Seconds = 10.0
    start_timeout: Annotated[Seconds, Field(gt=0)] = 15.0


class BooksConfig(_Section):
    """``depth``: levels a side that readers see. ``stale_after``: seconds without a heartbeat until STALE.

    ``keep_warm``: seconds of quiet after which the way to the readers is walked with nothing to tell, so that the next
    change does not find processors asleep and caches cold; 0 for never.
    """

    depth: Annotated[int, Field(ge=1, le=5000)] = 50
    stale_after: Annotated[Seconds, Field(gt=0)] = 0.5
    keep_warm: Annotated[Seconds, AfterValidator(_not_without_pause)] = 0.005


class SimulatedPair(_Section):
    """A market of a venue in a box; what is left out has the box's own value.

    ``price`` is where the market starts; it may be left out for a pair that every box knows.
    """

    pair: Pair
    price: Amount | None = None
    price_increment: Amount | None = None
    size_increment: Amount | None = None
    min_notional: Amount | None = None


class VenueConfig(_Section):
    """A venue in a box: a simulated venue in its own process, speaking a real venue's protocol.

    ``port`` 0 takes a free one. ``capture`` serves recorded traffic at ``speed`` times its own pace instead
    of the box's market; its path is taken from the current directory, then from the configuration's folder.
    ``place``: where it runs in a cluster, by default with its connectors.
    """

    name: Name
    speaks: VenueId = "binance"
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    pairs: list[Annotated[SimulatedPair, BeforeValidator(_pair_entry)]] = []
    balances: dict[Asset, Amount] = {}
    maker_fee: Annotated[Amount, Field(lt=1)] = Decimal("0.001")
    taker_fee: Annotated[Amount, Field(lt=1)] = Decimal("0.001")
    place: Annotated[Place, Field(max_length=1)] = ()
    capture: str | None = None
    speed: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 1.0


class AccountRiskConfig(_Section):
    """Limits of one account, each checked before an order is sent; what is left out is not limited.

    See :class:`engine.orders.risk.RiskLimits` for the meaning of each.
    """

    max_order_notional: Amount | None = None
    max_open_notional: Amount | None = None
    max_position: dict[Pair, Amount] = {}
    price_collar_bps: Amount | None = None
    max_orders_per_second: Annotated[int, Field(ge=1)] | None = None
    max_open_orders: Annotated[int, Field(ge=1)] | None = None
    duplicate_window_s: Annotated[Seconds, Field(gt=0)] | None = None
    max_daily_loss: dict[Asset, Amount] = {}


class RiskConfig(_Section):
    """The kill switch over all accounts.

    ``max_loss``: of a quote asset over all accounts since midnight UTC; reaching it halts every account.
    ``halt_cancels``: a halt cancels open orders as well. ``check_balance``: an order that its account surely cannot
    pay is refused before it is sent.
    """

    max_loss: dict[Asset, Amount] = {}
    halt_cancels: bool = True
    check_balance: bool = True


class LeaseConfig(_Section):
    """Of accounts whose journal is in PostgreSQL, in seconds: who may trade one is its lease's holder.

    ``ttl``: how long a renewal lasts, which is how long a dead holder's successor waits; ``renew``: how often it is
    asked for; ``clock_error``: by how much hosts' clocks may run apart in that time. The same in all engines that may
    trade an account.
    """

    ttl: Annotated[Seconds, Field(gt=0)] = 15.0
    renew: Annotated[Seconds, Field(gt=0)] = 2.0
    clock_error: Seconds = 0.5

    def terms(self) -> LeaseTerms:
        """The same for the lease's core. Raises ConfigError for a lease that would end before it is renewed."""
        return LeaseTerms(
            ttl_ns=round(self.ttl * 1e9), renew_ns=round(self.renew * 1e9), clock_error_ns=round(self.clock_error * 1e9)
        )


class JournalConfig(_Section):
    """The accounts' journals.

    ``durability``: what an order's journaling outlives before it is sent, the death of its ``process`` or a loss of
    ``power`` as well. ``keep_days``: how long ended orders stay in the journal before they move to its archive; 0 for
    ever.
    """

    durability: Literal["process", "power"] = "process"
    keep_days: Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)] = 30.0
    lease: LeaseConfig = LeaseConfig()


class ClusterConfig(_Section):
    """The runtime ``cluster``. ``address``: HOST:PORT of an existing Ray cluster; left out, the engine starts one node.

    Where a connector (with its box, if it has one) and a strategy run is said by their ``place``: a label's value or a
    custom resource of a node, or its host name, or several of them, the best first. Those of one place share a cell,
    unless they are given an ``own_cell``. ``grace``: seconds that a cell goes on without its supervisor.
    ``stall``: of an actor with a place, at least: a short cut between hosts is no stall. ``clock_warning``: a host
    whose clock is further from the supervisor's is told of.
    """

    address: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]+:[0-9]{1,5}$")] | None = None
    grace: Annotated[Seconds, Field(gt=0)] = 90.0
    stall: Annotated[Seconds, Field(gt=0)] = 15.0
    clock_warning: Annotated[Seconds, Field(gt=0)] = 0.5


class RecorderConfig(_Section):
    """``enabled``: an actor of its own writes orders, fills, positions and balances to ``recorder.db``."""

    enabled: bool = True


class ConnectorConfig(_Section):
    """One account on one venue. ``name`` is its key in the file and its name in reports.

    ``balance_limits``: by asset, how much of the account the engine may use. ``at`` names a venue in a box;
    left out, it is the real venue, and trading takes its keys from the
    environment. ``trade`` false: market data alone, no account. ``journal``: the database that keeps the account's
    journal and lease, for an account that several hosts may trade: ``postgresql://…`` without a password, or
    ``postgresql`` for an address from the environment (:func:`journal_address`). ``place``, ``own_cell``: see
    :class:`ClusterConfig`.
    """

    name: ConnectorName
    venue: VenueId = ""
    at: Name | None = None
    pairs: Annotated[list[Pair], Field(min_length=1)]
    account: Name = "main"
    trade: bool = True
    risk: AccountRiskConfig = AccountRiskConfig()
    balance_limits: dict[Asset, Amount] = {}
    place: Place = ()
    own_cell: bool = False
    journal: Annotated[str, StringConstraints(pattern=_JOURNAL)] | None = None
    options: dict[str, Any] = {}

    @_model_validator(mode="before")
    @classmethod
    def _venue_is_the_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and "venue" not in data and isinstance(data.get("name"), str):
            return {**data, "venue": data["name"]}
        return data


class StrategyConfig(_Section):
    """A strategy actor. ``pairs`` are ``CONNECTOR/PAIR``; ``params`` go to the strategy as they are."""

    name: Name
    strategy: ClassPath
    pairs: Annotated[list[BookName], Field(min_length=1)]
    params: dict[str, Any] = {}
    on_crash: Literal["keep", "cancel"] = "keep"
    place: Place = ()
    own_cell: bool = False

    @property
    def books(self) -> list[tuple[str, str]]:
        """``pairs`` as (connector, pair)."""
        return [(connector, pair) for connector, _, pair in (entry.partition("/") for entry in self.pairs)]


class EngineConfig(_Section):
    """The whole of an engine. ``name`` marks its client order ids.

    ``scheduling``: whether actors run before everything else on their host; ``processors``: whether the host's may
    sleep; see :mod:`engine.runtime.scheduling`.
    """

    name: Name = "engine"
    scheduling: Literal["normal", "realtime"] = "normal"
    processors: Literal["normal", "awake"] = "normal"
    clock: ClockConfig = ClockConfig()
    stop: StopConfig = StopConfig()
    dead_man: DeadManConfig = DeadManConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    books: BooksConfig = BooksConfig()
    risk: RiskConfig = RiskConfig()
    journal: JournalConfig = JournalConfig()
    recorder: RecorderConfig = RecorderConfig()
    cluster: ClusterConfig = ClusterConfig()
    venue: VenueConfig | None = None
    venues: dict[Name, VenueConfig] = {}
    connectors: Annotated[dict[ConnectorName, ConnectorConfig], Field(min_length=1)]
    strategies: dict[Name, StrategyConfig] = {}
    runtime: Literal["local", "cluster", "inline"] = "local"

    @property
    def boxes(self) -> dict[str, VenueConfig]:
        """Every venue in a box by its name; the one under ``venue:`` is named "venue"."""
        return {**({"venue": self.venue} if self.venue else {}), **self.venues}

    @_model_validator(mode="before")
    @classmethod
    def _names_are_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = dict(data)
        if isinstance(data.get("venue"), dict):
            named["venue"] = {"name": "venue", **data["venue"]}
        for section in ("venues", "connectors", "strategies"):
            if isinstance(data.get(section), dict):
                named[section] = {key: _named(key, entry) for key, entry in data[section].items()}
        return named


def _named(key: Any, entry: Any) -> Any:
    return {"name": key, **entry} if isinstance(entry, dict) else entry


# ---------------------------------------------------------------------------------------------- loading


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> EngineConfig:
    """Read and check a configuration; ``overrides`` are ``dotted.key=YAML value``.

    Raises :class:`ConfigError`, of one line, for anything that would keep the engine from starting.
    """
    document = Document.read(Path(path))
    for override in overrides:
        document.override(override, _NAMED)
    return _checked(document)


def parse_config(data: Mapping[str, Any], origin: str = "configuration") -> EngineConfig:
    """The same checks for a configuration that is already in memory."""
    return _checked(Document(origin, Path.cwd(), copy.deepcopy(dict(data))))


def load_attach(path: str | Path) -> StrategyConfig:
    """Read a strategy file for ``engine attach``. Its pairs are checked by the engine that it joins."""
    document = Document.read(Path(path))
    strategy = document.validate(StrategyConfig, _PATTERNS)
    try:
        _check_strategy_class(strategy, ())
    except Fault as fault:
        raise document.error(fault) from None
    return strategy


def check_strategy(config: EngineConfig, strategy: StrategyConfig) -> None:
    """Raise :class:`ConfigError` if the engine lacks what the strategy names; its class is not imported for this."""
    try:
        _check_strategy_pairs(config, strategy, ())
    except Fault as fault:
        raise ConfigError(f"strategy {strategy.name}: {fault.describe()}") from None


def _checked(document: Document) -> EngineConfig:
    _resolve_captures(document)
    config = document.validate(EngineConfig, _PATTERNS)
    try:
        for check in (
            _check_runtime,
            _check_names,
            _check_boxes,
            _check_connectors,
            check_limits,
            _check_places,
            _check_journals,
            _check_strategies,
        ):
            check(config)
    except Fault as fault:
        raise document.error(fault) from None
    return config


def _resolve_captures(document: Document) -> None:
    venues = document.data.get("venues")
    for box in (document.data.get("venue"), *(venues.values() if isinstance(venues, dict) else ())):
        if isinstance(box, dict) and isinstance(box.get("capture"), str):
            box["capture"] = str(_find_file(box["capture"], document.folder))


def _find_file(name: str, folder: Path) -> Path:
    path = Path(name).expanduser()
    beside = folder / path
    return beside if not path.exists() and beside.exists() else path.absolute()


# --------------------------------------------------------------------------- what sections say together


def _check_runtime(config: EngineConfig) -> None:
    if config.runtime == "inline":
        real = [name for name, connector in config.connectors.items() if connector.at is None]
        if real:
            raise Fault(("connectors", real[0]), "is a real venue, which knows no virtual time; give it a box with at:")
        if config.scheduling == "realtime":
            raise Fault(("scheduling",), "is for actors in processes of their own, and the runtime inline has none")
        if config.processors == "awake":
            raise Fault(("processors",), "is for what comes at its own time; the runtime inline waits for nothing")


def _check_names(config: EngineConfig) -> None:
    for section in sorted(_NAMED):
        for key, entry in getattr(config, section).items():
            if entry.name != key:
                raise Fault((section, key, "name"), f"the key above already names it {key}; remove this line")


def _check_boxes(config: EngineConfig) -> None:
    from engine.simulator.config import DEFAULT_PAIRS

    known = {default.pair for default in DEFAULT_PAIRS}
    if config.venue and "venue" in config.venues:
        raise Fault(("venues", "venue"), "is given twice, here and under venue:; rename one")
    for name, box in config.boxes.items():
        path = ("venue",) if box is config.venue else ("venues", name)
        if box.capture is not None:
            _check_capture(box.capture, (*path, "capture"))
        elif not box.pairs:
            key = ".".join(path)
            raise Fault(path, f"has no market; list its pairs, or serve a recording with --set {key}.capture=FILE")
        pairs = [entry.pair for entry in box.pairs]
        for index, pair in enumerate(pairs):
            if pair in pairs[:index]:
                raise Fault((*path, "pairs", str(index)), f"{pair} is listed twice; remove one")
            if box.pairs[index].price is None and pair not in known:
                raise Fault((*path, "pairs", str(index)), f"a box has no {pair} of its own; give its price")
        check_box_markets(box, path)


def _check_places(config: EngineConfig) -> None:
    for name, box in config.boxes.items():
        path = ("venue",) if box is config.venue else ("venues", name)
        places = {connector.place for connector in config.connectors.values() if connector.at == name}
        if len(places) > 1 and not box.place:
            raise Fault(path, "is used by connectors of several places; give it a place of its own")
    for name, connector in config.connectors.items():
        if len(connector.place) > 1:
            _check_may_move(config, connector, ("connectors", name, "place"))


def _check_may_move(config: EngineConfig, connector: ConnectorConfig, path: KeyPath) -> None:
    if connector.trade and connector.journal is None:
        raise Fault(path, "names several places, so its journal must be in PostgreSQL")
    if connector.at is not None and not config.boxes[connector.at].place:
        raise Fault(path, f"names several places, and {connector.at} would move along; give that a place of its own")


def _check_capture(name: str, path: KeyPath) -> None:
    capture = Path(name)
    if not capture.exists():
        raise Fault(path, f"there is no file {capture}")
    if not capture.is_file() or not os.access(capture, os.R_OK):
        raise Fault(path, f"{capture} is not a file that can be read")


def _check_connectors(config: EngineConfig) -> None:
    accounts: dict[tuple[str, str], str] = {}
    for name, connector in config.connectors.items():
        path = ("connectors", name)
        _check_venue_id(connector.venue, path)
        for index, pair in enumerate(connector.pairs):
            if pair in connector.pairs[:index]:
                raise Fault((*path, "pairs", str(index)), f"{pair} is listed twice; remove one")
        if connector.at is not None:
            _check_box_of(config, connector, path)
        check_venue_can(connector, path)
        if connector.at is None and connector.trade:
            _check_credentials(connector, path)
            other = accounts.setdefault((connector.venue, connector.account), name)
            if other != name:
                raise Fault((*path, "account"), f"{other} already trades account {connector.account}; name another")


def _check_box_of(config: EngineConfig, connector: ConnectorConfig, path: KeyPath) -> None:
    box = config.boxes.get(connector.at or "")
    if box is None:
        known = suggest(connector.at or "", config.boxes) or "; add one under venue:"
        raise Fault((*path, "at"), f"there is no venue in a box named {connector.at}{known}")
    if _protocol(box.speaks) != _protocol(connector.venue):
        raise Fault((*path, "at"), f"{box.name} speaks {box.speaks}, not {connector.venue}")
    if box.capture is not None and connector.trade:
        raise Fault((*path, "trade"), f"{box.name} serves a recording, which takes no orders; set trade: false")
    if box.capture is None:
        offered = [entry.pair for entry in box.pairs]
        for index, pair in enumerate(connector.pairs):
            if pair not in offered:
                raise Fault((*path, "pairs", str(index)), f"{box.name} has no {pair}{suggest(pair, offered)}")


def _protocol(venue: str) -> str:
    return venue.partition(":")[0]


def _check_strategies(config: EngineConfig) -> None:
    for name, strategy in config.strategies.items():
        _check_strategy_pairs(config, strategy, ("strategies", name))
        _check_strategy_class(strategy, ("strategies", name))


def _check_strategy_pairs(config: EngineConfig, strategy: StrategyConfig, path: KeyPath) -> None:
    if len(strategy.place) > 1 and checkpoint_journal(config, strategy) is None:
        what = (
            "names several places, so its checkpoint must be in PostgreSQL: keep the journal of one of its connectors"
        )
        raise Fault((*path, "place"), f"{what} there")
    for index, (connector_name, pair) in enumerate(strategy.books):
        where = (*path, "pairs", str(index))
        if (connector_name, pair) in strategy.books[:index]:
            raise Fault(where, f"{connector_name}/{pair} is listed twice; remove one")
        connector = config.connectors.get(connector_name)
        if connector is None:
            raise Fault(where, f"there is no connector {connector_name}{suggest(connector_name, config.connectors)}")
        if pair not in connector.pairs:
            raise Fault(where, f"connector {connector_name} has no {pair}{suggest(pair, connector.pairs)}")


def checkpoint_journal(config: EngineConfig, strategy: StrategyConfig) -> ConnectorConfig | None:
    """The connector in whose journal's database a strategy that names several places keeps its checkpoint."""
    traded = [config.connectors[name] for name, _ in strategy.books if name in config.connectors]
    return next((connector for connector in traded if connector.trade and connector.journal is not None), None)


def _check_strategy_class(strategy: StrategyConfig, path: KeyPath) -> None:
    try:
        check_strategy_loads(strategy.strategy)
    except ConfigError as error:
        raise Fault((*path, "strategy"), str(error)) from None


# --------------------------------------------------------------------- what the connectors' folder says


def _check_venue_id(venue: str, path: KeyPath) -> None:
    try:
        from engine.connectors.registry import split_venue

        split_venue(venue)
    except ConfigError as error:
        raise Fault((*path, "venue"), str(error)) from None


def _check_credentials(connector: ConnectorConfig, path: KeyPath) -> None:
    try:
        from engine.connectors.credentials import credentials_from_environment
        from engine.connectors.registry import connector_class

        key_names = connector_class(_protocol(connector.venue)).key_names
        credentials_from_environment(connector.venue, key_names, os.environ, connector.account)
    except ConfigError as error:
        raise Fault(path, f"{error}, or set trade: false") from None


def _check_journals(config: EngineConfig) -> None:
    try:
        config.journal.lease.terms()
    except ConfigError as error:
        raise Fault(("journal", "lease"), str(error)) from None
    from engine.connectors.credentials import variable_name

    for name, connector in config.connectors.items():
        path = ("connectors", name, "journal")
        if connector.journal is None:
            continue
        if config.runtime == "inline":
            raise Fault(path, "is on a network, which virtual time does not have; leave it out")
        if urlsplit(connector.journal).password is not None or "password=" in connector.journal:
            variable = variable_name(name, "journal")
            raise Fault(path, f"has a password; write postgresql here, and put the address into {variable}")
        if importlib.util.find_spec("asyncpg") is None:
            raise Fault(path, "needs asyncpg; pip install 'engine[postgres]'")
        try:
            journal_address(connector, os.environ)
        except ConfigError as error:
            raise Fault(path, str(error)) from None


def journal_address(connector: ConnectorConfig, environ: Mapping[str, str]) -> str:
    """Where an account's journal is kept, "" for a file of this host; a secret.

    From the configuration, or from the environment (``BINANCE_US_JOURNAL`` for ``binance:us``); ConfigError if that
    lacks it.
    """
    if connector.journal != "postgresql":
        return connector.journal or ""
    from engine.connectors.credentials import variable_name

    variable = variable_name(connector.name, "journal")
    address = environ.get(variable, "").strip()
    if not address.startswith(("postgresql://", "postgres://")):
        raise ConfigError(f"set the environment variable {variable} to postgresql://USER:PASSWORD@HOST/DATABASE")
    return address
