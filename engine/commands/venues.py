"""``engine venues`` and ``engine markets``: what there is to connect to, and what is traded there."""

from __future__ import annotations

import argparse
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.common import CommandError, Subparsers, add_command, new_table, print_json, print_tables

if TYPE_CHECKING:
    from engine.messages import TradingRule


def register(subparsers: Subparsers) -> None:
    """Add the commands to the parser."""
    add_command(subparsers, "venues", _venues, "list the venues that connectors exist for", json_output=True)
    markets = add_command(
        subparsers, "markets", _markets, "ask a venue for its pairs and the rules of their orders", json_output=True
    )
    markets.add_argument("venue", metavar="VENUE", help="as in engine venues")
    markets.add_argument("--find", default="", metavar="TEXT", help="only pairs or symbols that have this in them")
    markets.add_argument("--rest", type=_address, metavar="URL", help="where it is, as engine simulate prints it")
    markets.add_argument("--ca", type=Path, metavar="FILE", help="the certificates to trust instead of the system's")


def _venues(args: argparse.Namespace) -> int:
    from engine.connectors.credentials import variable_name
    from engine.connectors.registry import connector_class, split_venue, venues

    rows: list[dict[str, Any]] = []
    for name in venues():
        venue, domain = split_venue(name)
        cls = connector_class(venue)
        endpoints = cls.domains[domain]
        rows.append(
            {
                "venue": name,
                "can": list(cls.capabilities),
                "rest": endpoints.rest,
                "ws": endpoints.ws,
                "keys": [variable_name(name, key) for key in cls.key_names] if cls.needs_credentials else [],
                "client_order_id_limit": cls.client_order_id_limit,
            }
        )
    if args.json:
        print_json(rows)
        return 0
    table = new_table("", ["venue", "can", "rest", "ws", "keys in the environment"])
    for row in rows:
        can = " and ".join(row["can"]) if len(row["can"]) > 1 else f"{row['can'][0]} only"
        table.add_row(row["venue"], can, row["rest"], row["ws"], ", ".join(row["keys"]))
    print_tables(table)
    return 0


def _markets(args: argparse.Namespace) -> int:
    import asyncio

    rules = asyncio.run(_ask(args.venue, args.rest, args.ca))
    found = [rule for rule in rules if _is_meant(rule, args.find)]
    if not found:
        raise CommandError(f"{args.venue} lists {len(rules)} pairs, none with {args.find!r} in it")
    if args.json:
        print_json([_row(rule) for rule in found])
        return 0
    right = ["price step", "size step", "least size", "most", "least value"]
    table = new_table("", ["pair", "symbol", *right, "orders", ""], right)
    for rule in found:
        kinds = ", ".join(kind.value for kind in rule.order_types)
        state = "" if rule.is_trading else "not traded now"
        table.add_row(rule.pair, rule.symbol, *_limits(rule), kinds, state)
    print_tables(table)
    print(f"{len(found)} pairs" + (f" of {len(rules)}" if len(found) < len(rules) else ""))
    return 0


async def _ask(venue: str, rest: str | None, ca: Path | None) -> list[TradingRule]:
    """The venue's rules, by pair; VenueError if it cannot be asked."""
    from engine.clock import WallClock
    from engine.connectors.registry import connector_class, create, split_venue
    from engine.connectors.settings import ConnectorSettings, Endpoints

    name, domain = split_venue(venue)
    known = connector_class(name).domains[domain]
    endpoints = Endpoints(rest=rest, ws=known.ws, ws_api=known.ws_api) if rest else known
    options = {"ca": str(ca)} if ca else {}
    connector = create(ConnectorSettings(connector=venue, venue=venue, endpoints=endpoints, options=options))
    connector.check_options()
    client = connector.books(WallClock())
    try:
        await client.start()
        return sorted((await client.trading_rules()).values(), key=lambda rule: rule.pair)
    finally:
        await client.close()


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write http://HOST:PORT")
    return text.rstrip("/")


def _is_meant(rule: TradingRule, text: str) -> bool:
    return text.upper() in rule.pair.upper() or text.upper() in rule.symbol.upper()


def _limits(rule: TradingRule) -> list[str]:
    steps = (rule.price_increment, rule.size_increment, rule.min_size, rule.max_size)
    value = max(rule.min_notional, rule.min_order_value)
    return [_shown(limit) for limit in steps] + [f"{_shown(value)} {rule.quote}" if value else ""]


def _shown(limit: Decimal | None) -> str:
    return f"{limit:f}" if limit else ""


def _row(rule: TradingRule) -> dict[str, Any]:
    """All of a rule; decimals as exact strings."""
    row = {name: getattr(rule, name) for name in rule.__struct_fields__}
    numbers = {name: f"{value:f}" for name, value in row.items() if isinstance(value, Decimal)}
    return row | numbers | {"order_types": [kind.value for kind in rule.order_types]}
