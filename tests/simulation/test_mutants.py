"""The simulation sees each safeguard: without it, recorded seeds end with a broken invariant; with it, they do not."""

from __future__ import annotations

import json
import warnings
from itertools import count, islice
from pathlib import Path

import pytest

from engine.simulation.run import run_seed
from tests.simulation.mutant_search import SEEDS, hunt, likely, main, read_record
from tests.simulation.mutants import MUTANTS

MORE_LOOKS = 30
"""So many other seeds are tried where the recorded ones show nothing any more."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_an_engine_without_a_safeguard_breaks_an_invariant_and_with_it_none(name: str) -> None:
    recorded = read_record()[name]
    assert recorded
    assert min(recorded) <= SEEDS
    seed = next((seed for seed in recorded if hunt(name, seed)), None)
    if seed is None:
        warnings.warn(f"the recorded seeds of {name} have moved: make simulate-mutants MUTANT={name}", stacklevel=1)
        others = islice((seed for seed in likely(MUTANTS[name], count(1)) if seed not in recorded), MORE_LOOKS)
        seed = next((seed for seed in others if hunt(name, seed)), None)
    assert seed is not None, f"no seed shows {name} any more; look for some: make simulate-mutants MUTANT={name}"
    assert not run_seed(seed).broken


def test_the_record_has_every_mutant_and_no_other() -> None:
    assert list(read_record()) == list(MUTANTS)
    assert all(mutant.stands_for for mutant in MUTANTS.values())


def test_the_search_finds_tells_and_keeps_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "found.json"
    options = ["--mutant", "order_sent_again", "--keep", "1", "--seeds", "20", "--record", str(record)]
    assert main(options) == 0
    said = capsys.readouterr().out.splitlines()
    last = json.loads(said[-1])
    seed = last["mutants"]["order_sent_again"]
    assert last["missed"] == 0
    assert last["seconds"] > 0
    assert read_record(record)["order_sent_again"].keys() == {seed}
    assert "is sent for the 2. time" in said[-2]


def test_a_search_that_misses_says_so_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutant = MUTANTS["halt_spares_what_is_under_way"]
    without = next(seed for seed in count(1) if not list(likely(mutant, [seed])))
    options = [
        "--mutant",
        mutant.name,
        "--from",
        str(without),
        "--seeds",
        "1",
        "--record",
        str(tmp_path / "found.json"),
    ]
    assert main(options) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["mutants"], last["missed"]) == ({mutant.name: None}, 1)
