"""Two hosts that may trade one account, under faults from a seed: never two at once, and the fence sees to it."""

import os

import pytest

from engine.simulation.__main__ import Mode, shared
from engine.simulation.fencing import FAULTS, run_seed

SEEDS = 10
MIN_ORDERS = 20


@pytest.mark.timeout(300)
def test_no_order_is_accepted_of_a_host_after_another_has_taken_its_place_and_both_ledgers_agree():
    struck, epochs = set(), 0
    for outcome in shared(range(1, 1 + SEEDS), os.cpu_count() or 1, Mode.FENCING):
        assert not outcome.broken, f"seed {outcome.seed}: {outcome.broken}"
        assert outcome.orders >= MIN_ORDERS
        struck |= outcome.faults.keys()
        epochs += outcome.faults["epochs"]
    assert struck >= set(FAULTS)
    assert epochs >= 2 * SEEDS


@pytest.mark.timeout(200)
def test_the_fence_switched_off_is_found():
    outcomes = [run_seed(seed, fenced=False) for seed in range(1, 3)]
    told = [text for outcome in outcomes for text in outcome.broken]
    assert any("began on another host" in text for text in told), told


def test_a_seed_is_the_same_again():
    assert run_seed(3).digest == run_seed(3).digest
