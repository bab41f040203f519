"""From a configuration to its actors."""

import msgspec
import pytest

from engine.actors.plan import id_prefix, plan, plan_strategy, with_endpoint
from engine.config import StrategyConfig, parse_config
from engine.connectors.settings import ConnectorSettings
from engine.errors import ConfigError

RUN_ID = 1_700_000_000_000_000_000
MAKER = "engine.strategies.market_maker:MarketMaker"
BASE = {
    "name": "my-engine",
    "venue": {"pairs": ["BTC-USDT", {"pair": "ETH-USDT", "price": "3000.50"}], "balances": {"USDT": "10.50"}},
    "connectors": {"binance": {"at": "venue", "pairs": ["BTC-USDT", "ETH-USDT"]}},
    "strategies": {"maker": {"strategy": MAKER, "pairs": ["binance/BTC-USDT"], "params": {"size": "0.1"}}},
}


def planned(tmp_path, **changes):
    config = parse_config({**BASE, **changes})
    return {actor.name: actor for actor in plan(config, RUN_ID, tmp_path)}


def settings(actor):
    return msgspec.convert(actor.params["settings"], ConnectorSettings)


def test_the_actors_of_a_box_with_one_strategy(tmp_path):
    actors = planned(tmp_path)
    found = [(actor.name, actor.kind, actor.connector, actor.box) for actor in actors.values()]
    wanted = [
        ("venue", "venue", "", ""),
        ("clock", "clock", "", ""),
        ("order_book.binance.0", "order_book", "binance", "venue"),
        ("user_stream.binance.main", "user_stream", "binance", "venue"),
        ("exchange.binance.main", "exchange", "binance", "venue"),
        ("risk", "risk", "", ""),
        ("strategy.maker", "strategy", "", ""),
    ]
    assert [actor for actor in found if actor in wanted] == wanted


def test_params_are_plain_data_that_messagepack_can_hold(tmp_path):
    for actor in planned(tmp_path).values():
        packed = msgspec.msgpack.encode(actor.params)
        assert msgspec.msgpack.encode(msgspec.msgpack.decode(packed)) == packed
        assert actor.params["dead_man_grace_s"] == 5.0


def test_the_exchange_and_its_user_stream_belong_together(tmp_path):
    actors = planned(
        tmp_path, connectors={"binance": {"at": "venue", "pairs": ["BTC-USDT"], "account": "second"}}, strategies={}
    )
    exchange = actors["exchange.binance.second"]
    assert exchange.params["user_stream"] in actors
    assert exchange.params["account"] == settings(exchange).account == "second"
    assert exchange.params["run_id"] == str(RUN_ID)
    assert exchange.params["keep_orders"] is False


def test_orders_are_kept_if_the_configuration_says_so(tmp_path):
    actors = planned(tmp_path, stop={"open_orders": "keep"})
    assert actors["exchange.binance.main"].params["keep_orders"] is True


def test_a_connector_that_does_not_trade_has_books_alone(tmp_path):
    actors = planned(tmp_path, connectors={"binance": {"at": "venue", "pairs": ["BTC-USDT"], "trade": False}})
    assert {"venue", "clock", "order_book.binance.0", "strategy.maker"} <= set(actors)
    assert not {"exchange", "user_stream", "risk"} & {actor.kind for actor in actors.values()}
    assert actors["strategy.maker"].params["strategy"]["markets"]["binance"]["exchange"] == ""


@pytest.mark.parametrize(
    ("count", "changes", "seconds"),
    [
        (1, {}, 0.005),
        (4, {}, 0.02),
        (40, {}, 0.2),
        (40, {"books": {"keep_warm": 0.01}}, 0.4),
        (8, {"books": {"keep_warm": 0}}, 0.0),
        (8, {"runtime": "inline"}, 0.0),
    ],
)
def test_many_connectors_of_a_place_keep_it_warm_together(tmp_path, count, changes, seconds):
    connectors = {
        f"c{n}": {"venue": "binance", "at": "venue", "pairs": ["BTC-USDT"], "trade": False} for n in range(count)
    }
    actors = planned(tmp_path, connectors=connectors, strategies={}, **changes)
    found = [actor.params["keep_warm_s"] for actor in actors.values() if actor.kind == "order_book"]
    assert found == pytest.approx([seconds] * count)


def test_a_strategy_knows_its_markets(tmp_path):
    strategy = planned(tmp_path, books={"stale_after": 0.25})["strategy.maker"].params["strategy"]
    assert strategy["markets"] == {
        "binance": {"order_book": "order_book.binance.0", "exchange": "exchange.binance.main"}
    }
    assert (strategy["name"], strategy["strategy"], strategy["pairs"]) == ("maker", MAKER, ["binance/BTC-USDT"])
    assert (strategy["params"], strategy["stale_after_ns"]) == ({"size": "0.1"}, 250_000_000)


def test_a_strategy_that_joins_is_planned_like_one_of_the_configuration(tmp_path):
    config = parse_config(BASE)
    joined = plan_strategy(config, StrategyConfig(name="maker", **BASE["strategies"]["maker"]))
    assert joined == planned(tmp_path)["strategy.maker"]


@pytest.mark.parametrize(
    ("name", "prefix"), [("engine", "engine-"), ("my-engine", "myengi-"), ("a_1", "a1-"), ("e", "e-")]
)
def test_the_prefix_of_order_ids(name, prefix):
    assert id_prefix(parse_config({**BASE, "name": name})) == prefix


def test_a_box_is_described_with_exact_amounts(tmp_path):
    box = planned(tmp_path)["venue"].params["box"]
    assert box["balances"] == {"USDT": "10.50"}
    markets = {market["pair"]: market for market in box["pairs"]}
    assert markets["ETH-USDT"]["price"] == "3000.50"
    assert markets["BTC-USDT"]["price"]
    assert box["state_dir"] == str(tmp_path / "venues" / "venue")


def test_each_box_has_a_folder_and_connectors_of_its_own(tmp_path):
    actors = planned(
        tmp_path,
        venue=None,
        venues={"one": {"pairs": ["BTC-USDT"]}, "two": {"pairs": ["BTC-USDT"], "port": 4000, "seed": 3}},
        connectors={
            "binance": {"at": "one", "pairs": ["BTC-USDT"]},
            "binance:us": {"at": "two", "pairs": ["BTC-USDT"]},
        },
        strategies={},
    )
    boxes = [actors["venue.one"].params["box"], actors["venue.two"].params["box"]]
    assert len({box["state_dir"] for box in boxes}) == 2
    assert (boxes[1]["port"], boxes[1]["seed"]) == (4000, 3)
    assert actors["exchange.binance:us.main"].box == "venue.two"
    assert settings(actors["exchange.binance:us.main"]).domain == "us"


def test_a_box_has_no_price_for_a_pair_that_it_does_not_know(tmp_path):
    config = parse_config({**BASE, "strategies": {}})
    entry = config.venue.pairs[0].model_copy(update={"pair": "FOO-BAR", "price": None})
    venue = config.venue.model_copy(update={"pairs": [entry]})
    with pytest.raises(ConfigError, match="FOO-BAR"):
        plan(config.model_copy(update={"venue": venue}), RUN_ID, tmp_path)


def test_an_actor_at_a_box_is_given_its_address_and_key(tmp_path):
    exchange = planned(tmp_path)["exchange.binance.main"]
    info = {"rest": "http://h", "ws": "ws://h", "ws_api": "ws://h/a", "api_key": "kkkk", "api_secret": "ssss"}
    told = with_endpoint(exchange, info)
    assert (told.name, told.kind, told.connector, told.box) == (
        exchange.name,
        exchange.kind,
        exchange.connector,
        exchange.box,
    )
    assert settings(told).endpoints.rest == "http://h"
    assert settings(told).credentials.api_secret == "ssss"
    assert settings(exchange).credentials is None
    assert {**told.params, "settings": 0} == {**exchange.params, "settings": 0}
    assert "ssss" not in repr(told)


def test_a_real_venue_takes_its_keys_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BINANCE_US_API_KEY", "thekey")
    monkeypatch.setenv("BINANCE_US_API_SECRET", "thesecret")
    connectors = {"us": {"venue": "binance:us", "pairs": ["BTC-USDT"], "options": {"recv_window_ms": 100}}}
    actors = planned(tmp_path, venue=None, connectors=connectors, strategies={})
    found = settings(actors["exchange.us.main"])
    assert (found.credentials.api_key, found.credentials.api_secret) == ("thekey", "thesecret")
    assert (found.venue, found.domain, found.endpoints) == ("binance", "us", None)
    assert found.options == {"recv_window_ms": 100}
    assert all(actor.box == "" for actor in actors.values())
    assert all("thesecret" not in repr(actor) for actor in actors.values())


# --------------------------------------------------------------------------------------------- places in a cluster

JOURNAL = "postgresql://engine@db/desk"
MOVES = ["tokyo", "osaka"]


def moving(tmp_path, **strategy):
    return planned(
        tmp_path,
        runtime="cluster",
        venue={**BASE["venue"], "place": "osaka"},
        connectors={"binance": {"at": "venue", "pairs": ["BTC-USDT"], "place": MOVES, "journal": JOURNAL}},
        strategies={"maker": {**BASE["strategies"]["maker"], **strategy}},
    )


def test_all_of_an_account_that_may_move_share_its_places_and_a_cell_and_its_box_stays(tmp_path):
    actors = moving(tmp_path)
    account = [actor for actor in actors.values() if actor.connector == "binance"]
    assert {(actor.place, actor.cell) for actor in account} == {(("tokyo", "osaka"), "tokyo_osaka")}
    assert (actors["venue"].place, actors["venue"].cell) == (("osaka",), "osaka")
    assert actors["venue"].params["for_other_hosts"] is True


def test_a_box_beside_all_who_work_at_it_listens_for_nobody_else(tmp_path):
    assert planned(tmp_path)["venue"].params["for_other_hosts"] is False


def test_a_strategy_that_may_move_has_its_checkpoint_where_its_accounts_journal_is(tmp_path):
    maker = moving(tmp_path, place=MOVES)["strategy.maker"].params["strategy"]
    assert maker["checkpoint"] == {"address": JOURNAL, "schema": "strategy.my-engine.maker"}
    assert maker["markets"]["binance"]["order_book"] == "order_book.binance.0"
    stays = moving(tmp_path, place="tokyo")["strategy.maker"].params["strategy"]
    assert "checkpoint" not in stays
    assert stays["markets"]["binance"] == {
        "order_book": "mirror.binance.tokyo",
        "exchange": "exchange.binance.main",
        "at": "tokyo",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connectors": {"binance": {**BASE["connectors"]["binance"], "place": MOVES}}}, "journal must be in Postgre"),
        (
            {"connectors": {"binance": {**BASE["connectors"]["binance"], "place": MOVES, "journal": JOURNAL}}},
            "give that a place of its own",
        ),
        (
            {"strategies": {"maker": {**BASE["strategies"]["maker"], "place": MOVES}}},
            "checkpoint must be in PostgreSQL",
        ),
        ({"venue": {**BASE["venue"], "place": MOVES}}, "at most 1"),
    ],
)
def test_several_places_that_would_lose_what_was_written_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        parse_config({**BASE, "runtime": "cluster", **changes})


def at(place, **fields):
    return {**BASE["strategies"]["maker"], "place": place, **fields}


@pytest.mark.parametrize(
    ("strategies", "said"),
    [
        ({"maker": at("home")}, "at place home and the engine's own actors at no place would share the cell home"),
        ({"maker": at("tokyo.1"), "other": at("tokyo-1")}, "place tokyo.1 would share the cell tokyo-1"),
        (
            {"maker": at("tokyo"), "tokyo": at((), own_cell=True)},
            "strategy.tokyo at no place and .* share the cell tokyo",
        ),
        ({"maker": at("t" * 40, own_cell=True)}, "choose a shorter name"),
    ],
    ids=["the home's name", "alike but for a sign", "a strategy named like a place", "too long"],
)
def test_what_would_end_up_in_another_places_cell_is_refused(tmp_path, strategies, said):
    """It ran on whichever host the first of them named."""
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, runtime="cluster", strategies=strategies)
    assert planned(tmp_path, strategies=strategies), "on one host a place means nothing"
