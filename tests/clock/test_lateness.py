"""How late what another host stamped is, of clocks that say nothing to each other and run apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import Lateness

SECOND = 1_000_000_000
apart = st.integers(-(10**15), 10**15)
delays = st.integers(0, 5 * SECOND)
ways = st.integers(0, SECOND)
rows = st.lists(st.tuples(delays, st.integers(0, 3600 * SECOND)), min_size=1, max_size=40)


def stamps(ahead: int, ppm: int, way: int, rows: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Sent, by the other's clock; arrived, by this one's; and for how long it was held up on its way."""
    found, now = [], 0
    for delay, pause in rows:
        now += pause
        found.append((ahead + now + now * ppm // 1_000_000, now + way + delay, delay))
    return found


@given(apart, st.integers(-99, 99), ways, rows)
def test_what_is_not_held_up_is_never_late(ahead: int, ppm: int, way: int, rows: list[tuple[int, int]]) -> None:
    lateness = Lateness()
    for sent, arrived, delay in stamps(ahead, ppm, way, rows):
        late = lateness.of(sent, arrived)
        assert late <= delay
        if delay == 0:
            assert late == 0


@given(apart, st.integers(-99, 99), ways, rows)
def test_what_is_held_up_is_late_but_for_the_first_delay_and_the_drift(
    ahead: int, ppm: int, way: int, rows: list[tuple[int, int]]
) -> None:
    lateness, found = Lateness(), stamps(ahead, ppm, way, [(0, 0), *rows])
    for sent, arrived, delay in found:
        assert lateness.of(sent, arrived) >= delay - (arrived - found[0][1]) * 200 // 1_000_000 - 1


def test_the_fastest_is_what_others_are_late_by() -> None:
    lateness = Lateness()
    assert [lateness.of(0, 900), lateness.of(1000, 1500), lateness.of(2000, 2900), lateness.of(3000, 3500)] == [
        0,
        0,
        400,
        0,
    ]
