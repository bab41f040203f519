"""How late what another host stamped is, of clocks that say nothing to each other and run apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import Lateness, RecentLateness

SECOND = 1_000_000_000
MS = 1_000_000
WINDOW_NS = 30 * SECOND
clocks = st.integers(-(10**18), 10**18)
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
        assert lateness.of(sent, arrived) >= delay - (arrived - found[0][1]) * 200 // 1_000_000 - 2


def test_the_fastest_is_what_others_are_late_by() -> None:
    lateness = Lateness(drift_ppm=0)
    assert [lateness.of(sent, sent + taken) for sent, taken in ((0, 900), (1, 500), (2, 900), (3, 500))] == [
        0,
        0,
        400,
        0,
    ]
    lateness.forget()
    assert lateness.of(4, 904) == 0


# ------------------------------------------------------------------------------------------------ of late


@given(clocks, st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_lateness_is_told_from_the_fastest_whatever_the_clocks_say(ahead: int, delays_ms: list[int]) -> None:
    lateness = RecentLateness(WINDOW_NS)
    fastest = min(delays_ms)
    lateness.of(ahead, fastest * MS)
    for number, delay in enumerate(delays_ms, start=1):
        sent = number * 100 * MS
        assert lateness.of(sent + ahead, sent + delay * MS) == (delay - fastest) * MS


@given(clocks, st.integers(1_000, 30_000))
def test_what_waited_for_the_end_of_a_cut_is_late_by_as_long_as_it_waited(ahead: int, cut_ms: int) -> None:
    lateness = RecentLateness(WINDOW_NS)
    for sent in range(0, 5_000, 100):
        assert lateness.of(sent * MS + ahead, (sent + 2) * MS) == 0
    healed = 5_000 + cut_ms
    for sent in range(5_000, healed, 100):
        assert lateness.of(sent * MS + ahead, (healed + 2) * MS) == (healed - sent) * MS
    assert lateness.of(healed * MS + ahead, (healed + 2) * MS) == 0


def test_clocks_that_drift_apart_are_followed() -> None:
    """By 100 µs a second, for an hour: against a fastest of the first second all would be late by then."""
    lateness, found = RecentLateness(WINDOW_NS), []
    for second in range(3600):
        sent = second * 1000 * MS
        found.append(lateness.of(sent, sent + second * 100_000))
    assert max(found) <= 2 * WINDOW_NS // 10_000


def test_a_way_that_has_become_longer_for_good_is_late_for_two_windows_at_most() -> None:
    lateness = RecentLateness(WINDOW_NS)
    assert lateness.offset_ns == 0
    found = [lateness.of(at * SECOND, at * SECOND + (2 if at < 10 else 302) * MS) for at in range(100)]
    assert found[9:11] == [0, 300 * MS]
    assert max(at for at, late in enumerate(found) if late) <= 10 + 2 * WINDOW_NS // SECOND
    assert lateness.offset_ns == 302 * MS
