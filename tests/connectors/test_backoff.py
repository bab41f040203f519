from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.backoff import Backoff


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(),
    jitter=st.floats(0, 1),
    factor=st.floats(1, 10),
    attempts=st.integers(1, 200),
)
def test_every_delay_lies_within_its_bounds(seed: int, jitter: float, factor: float, attempts: int) -> None:
    backoff = Backoff(base_s=0.1, factor=factor, max_s=30, jitter=jitter, seed=seed)
    for number in range(attempts):
        ceiling = 30.0 if number >= 64 else min(30.0, 0.1 * factor**number)
        assert ceiling * (1 - jitter) * 0.999 <= backoff.next() <= ceiling


def test_the_same_seed_gives_the_same_delays() -> None:
    first, second = Backoff(seed=7), Backoff(seed=7)
    assert [first.next() for _ in range(20)] == [second.next() for _ in range(20)]


def test_a_reset_begins_anew() -> None:
    backoff = Backoff(base_s=1, factor=2, jitter=0)
    assert [backoff.next() for _ in range(4)] == [1, 2, 4, 8]
    backoff.reset()
    assert backoff.attempt == 0
    assert backoff.next() == 1


@pytest.mark.parametrize("wrong", [{"base_s": 0}, {"factor": 0.5}, {"max_s": 0.01}, {"jitter": 2}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="back-off"):
        Backoff(**wrong)
