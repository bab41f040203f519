"""How far another host's clock is, told from questions and answers whose ways take any time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import ClockOffset, TimeExchange

US = 1_000
SECOND = 1_000_000_000
walls = st.integers(-(10**18), 10**18)
ways = st.integers(0, 3 * SECOND)
trips = st.lists(st.tuples(ways, ways, st.integers(0, SECOND), st.integers(0, 60 * SECOND)), min_size=1, max_size=40)


def exchange(ahead_ns: int, asked_ns: int, there_ns: int, held_ns: int, back_ns: int) -> TimeExchange:
    """What is stamped when the other's wall clock reads ``ahead_ns`` more than this monotonic clock."""
    received_ns = asked_ns + there_ns
    answered_ns = received_ns + held_ns
    return TimeExchange(asked_ns, received_ns + ahead_ns, answered_ns + ahead_ns, answered_ns + back_ns)


@given(walls, ways, ways, st.integers(0, SECOND))
def test_an_exchange_is_wrong_by_half_of_its_way_at_most(ahead: int, there: int, back: int, held: int) -> None:
    found = exchange(ahead, 5, there, held, back)
    assert found.round_trip_ns == there + back
    assert abs(found.offset_ns - ahead) <= found.error_ns <= (there + back) // 2 + 1


@given(walls, st.integers(-50, 50), trips)
def test_the_truth_is_within_the_error_while_clocks_drift_apart(
    ahead: int, ppm: int, rows: list[tuple[int, ...]]
) -> None:
    offset, now = ClockOffset(), 0
    for there, back, held, pause in rows:
        drifted = ahead + now * ppm // 1_000_000
        asked, now = now, now + there + held + back
        offset.add(exchange(drifted, asked, there, held, back))
        now += pause
        true_ns = ahead + now * ppm // 1_000_000
        # What the clocks drift within one exchange, of up to seven seconds, is beside what a sample says.
        assert abs(offset.lead_ns(wall_ns=now, mono_ns=now) - true_ns) <= offset.error_ns(now) + 7_000 * US


@given(walls, st.lists(st.tuples(ways, ways), min_size=1, max_size=16))
def test_the_exchange_with_the_shortest_way_counts(ahead: int, rows: list[tuple[int, int]]) -> None:
    offset = ClockOffset()
    for there, back in rows:
        offset.add(exchange(ahead, 0, there, 0, back))
    end = max(there + back for there, back in rows)
    assert offset.error_ns(0) == min(there + back for there, back in rows) // 2 + 1
    assert offset.error_ns(end) >= offset.error_ns(0)


@given(walls, st.lists(st.tuples(ways, ways), min_size=1, max_size=16), ways, ways, st.integers(20, 10**6))
def test_a_clock_that_was_set_is_followed_at_once(
    ahead: int, rows: list[tuple[int, int]], there: int, back: int, by_s: int
) -> None:
    offset = ClockOffset()
    for way in rows:
        offset.add(exchange(ahead, 0, way[0], 0, way[1]))
    offset.add(exchange(ahead + by_s * SECOND, 0, there, 0, back))
    now = there + back
    assert abs(offset.lead_ns(now, now) - ahead - by_s * SECOND) <= offset.error_ns(now) == now // 2 + 1


@given(walls, ways, ways, st.integers(0, 10**18))
def test_a_step_of_this_hosts_own_wall_clock_shows_in_the_lead_alone(
    ahead: int, there: int, back: int, step: int
) -> None:
    offset = ClockOffset()
    offset.add(exchange(ahead, 0, there, 0, back))
    before = offset.lead_ns(wall_ns=50, mono_ns=0)
    assert offset.lead_ns(wall_ns=50 + step, mono_ns=0) == before - step


def test_a_clock_that_was_set_between_question_and_answer_says_nothing() -> None:
    offset = ClockOffset()
    assert not offset.known
    offset.add(exchange(0, 0, 5, 5, 5))
    assert offset.known
    offset.add(TimeExchange(100, 1_000, 5_000, 110))
    assert not offset.known
    assert (offset.lead_ns(7, 3), offset.error_ns(3)) == (0, 0)
