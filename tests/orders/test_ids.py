"""Client order ids: never twice, and known by their prefix."""

from __future__ import annotations

import pytest

from engine.clock import VirtualClock
from engine.orders.ids import MAX_LENGTH, ClientOrderIds, is_own, is_valid, made_ns

START = 1_700_000_000 * 10**9


def test_ids_grow_while_time_stands_still_and_while_it_passes() -> None:
    clock = VirtualClock(START)
    ids = ClientOrderIds("e-", "maker", 1, clock)
    made = [ids.next() for _ in range(50)]
    clock.advance(10**9)
    made += [ids.next() for _ in range(50)]
    assert made == sorted(set(made))


def test_an_id_tells_when_it_was_made() -> None:
    clock = VirtualClock(START)
    ids = ClientOrderIds("e-", "maker", 1, clock)
    assert made_ns(ids.next()) == START
    clock.advance(1_234_567_890)
    assert made_ns(ids.next()) == START + 1_234_567_000


def test_strategies_and_incarnations_at_one_instant_make_different_ids() -> None:
    makers = [
        ClientOrderIds("e-", name, incarnation, VirtualClock(START))
        for name in ("maker", "taker", "Strategie-ä", "1/maker")
        for incarnation in range(5)
    ]
    made = [maker.next() for maker in makers for _ in range(20)]
    assert len(made) == len(set(made))


def test_every_id_is_one_that_venues_take_and_is_known_as_own() -> None:
    made = ClientOrderIds("engine-0001", "a strategy with a long name, spaces and ü", 2**63, VirtualClock(START)).next()
    assert len(made) <= MAX_LENGTH
    assert is_valid(made)
    assert is_own(made, "engine-0001")
    assert not is_own(made, "other")
    assert not is_own("web_123", "engine-0001")


@pytest.mark.parametrize("prefix", ["", "a prefix", "ü", "x" * 12])
def test_a_prefix_that_venues_refuse_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        ClientOrderIds(prefix, "maker", 1, VirtualClock(START))


@pytest.mark.parametrize("wrong", ["", "x" * 33, "a b", "ä", "e-1\n"])
def test_an_id_that_some_venue_refuses_is_not_valid(wrong: str) -> None:
    assert not is_valid(wrong)
