"""What is counted against a venue's limits, and what is left of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.throttler_budget import ACCOUNT, Budget, Grant, Priority, RateLimit, Refusal
from engine.connectors.throttler_cells import BUCKETS, ENTRIES, LimitCells
from engine.connectors.throttler_memory import key_of, open_memory
from engine.errors import ConfigError

S = 1_000_000_000
NOON = 1_700_000_040 * S
"""A minute begins here, and a span of ten seconds."""


def budget(shared: Path | None = None, address: str = "here", account: str = "me", **limits: RateLimit) -> Budget:
    return Budget(
        limits or {"weight": RateLimit(100, 60 * S)}, open_memory(shared), {"address": address, "account": account}
    )


def take(
    of: Budget, cost: int = 1, at: float = 0.0, priority: Priority = Priority.CANCEL, limit: str = "weight"
) -> Grant | Refusal:
    """A request so many seconds after noon, by both clocks."""
    return of.charge(((limit, cost),), priority, NOON + round(at * S), round((1000 + at) * S))


def granted(outcome: Grant | Refusal) -> Grant:
    assert isinstance(outcome, Grant), outcome
    return outcome


def refused(outcome: Grant | Refusal) -> Refusal:
    assert isinstance(outcome, Refusal), outcome
    return outcome


def test_what_would_break_a_limit_is_refused_and_told_when_there_is_room() -> None:
    of = budget()
    granted(take(of, 95, at=5))
    refusal = refused(take(of, 6, at=10))
    assert refusal.limit == "weight"
    # The venue's window ends at 60 s; a whole interval after what was used it is 65 s and a part of a bucket.
    assert 55 <= refusal.wait_ns / S <= 55 + 60 / (BUCKETS - 1) + 1.1
    granted(take(of, 5, at=10))
    assert of.used(NOON + 10 * S) == {"weight": 100}


def test_a_refused_request_counts_nowhere() -> None:
    of = budget(weight=RateLimit(100, 60 * S), orders=RateLimit(1, 10 * S, ACCOUNT, reserve=0))
    costs = (("weight", 1), ("orders", 1))
    granted(of.charge(costs, Priority.PLACE, NOON, 0))
    assert refused(of.charge(costs, Priority.PLACE, NOON, 0)).limit == "orders"
    assert of.used(NOON) == {"orders": 1, "weight": 1}


def test_linked_limits_are_counted_with_what_links_them() -> None:
    of = budget(weight=RateLimit(100, 60 * S, linked=(("raw", 1),)), raw=RateLimit(2, 300 * S, reserve=0))
    granted(take(of, 20))
    granted(take(of, 20))
    assert refused(take(of, 1)).limit == "raw"
    assert of.limits_of((("weight", 1),)) == {"weight", "raw"}


def test_two_windows_requests_do_not_go_out_at_once_where_they_meet() -> None:
    of = budget()
    granted(take(of, 100, at=59.9))
    refusal = refused(take(of, 1, at=60.1))
    assert refusal.wait_ns > 58 * S
    granted(take(of, 100, at=60.1 + refusal.wait_ns / S))


def test_the_reserve_is_kept_by_priority() -> None:
    of = budget()
    left = {priority: 0 for priority in Priority}
    for priority in reversed(Priority):
        while isinstance(take(of, 1, priority=priority), Grant):
            left[priority] += 1
    assert left == {Priority.POLL: 80, Priority.PLACE: 10, Priority.QUERY: 5, Priority.CANCEL: 5}


def test_a_request_that_no_waiting_helps() -> None:
    of = budget()
    assert refused(take(of, 81, priority=Priority.POLL)).never
    assert refused(take(of, 101)).never
    granted(take(of, 100))


def test_limits_of_no_known_name_and_requests_that_cost_nothing_are_free() -> None:
    of = budget()
    for _ in range(1000):
        granted(take(of, 1, limit="unheard of"))
        granted(of.charge((), Priority.POLL, NOON, 0))
        granted(take(of, 0))


def test_the_venues_count_is_believed_where_it_is_higher() -> None:
    of = budget()
    grant = granted(take(of, 5, at=1))
    of.report(grant, {"weight": 3, "unheard of": 7}, NOON + 2 * S)
    assert of.used(NOON + 2 * S) == {"weight": 5}
    of.report(grant, {"weight": 97}, NOON + 2 * S)
    assert of.used(NOON + 2 * S) == {"weight": 97}
    refusal = refused(take(of, 4, at=3))
    assert refusal.wait_ns == 57 * S
    granted(take(of, 4, at=60))


def test_a_count_of_the_window_before_says_nothing_of_this_one() -> None:
    of = budget()
    late = granted(take(of, 1, at=59.9))
    early = granted(take(of, 1, at=60.1))
    for grant in (late, early):
        of.report(grant, {"weight": 99}, NOON + 61 * S)
    assert of.used(NOON + 61 * S) == {"weight": 1}


def test_what_was_not_sent_is_given_back() -> None:
    of = budget(weight=RateLimit(100, 60 * S), orders=RateLimit(10, 10 * S, ACCOUNT))
    costs = (("weight", 40), ("orders", 1))
    whole = granted(of.charge(costs, Priority.CANCEL, NOON, 0))
    of.refund(whole)
    assert of.used(NOON) == {"orders": 0, "weight": 0}
    part = granted(of.charge(costs, Priority.CANCEL, NOON, 0))
    of.refund(part, ("weight",))
    assert of.used(NOON) == {"orders": 1, "weight": 0}
    for _ in range(2):
        granted(of.charge((("weight", 50),), Priority.CANCEL, NOON, 0))
    of.refund(part, ("weight",))
    late = granted(take(of, 7, at=1, limit="orders"))
    of.refund(late)
    of.refund(late)
    assert of.used(NOON + 11 * S)["orders"] == 0


def test_a_silence_is_for_all_or_for_some_and_no_shorter_one_ends_it() -> None:
    of = budget(weight=RateLimit(100, 60 * S), orders=RateLimit(10, 10 * S, ACCOUNT))
    of.silence(1000 * S + 30 * S, ("orders",))
    granted(take(of, 1))
    assert refused(take(of, 1, limit="orders")).wait_ns == 30 * S
    of.silence(1000 * S + 20 * S)
    of.silence(1000 * S + 1 * S)
    assert refused(take(of, 1)).wait_ns == 20 * S
    assert refused(of.charge((), Priority.CANCEL, NOON, 1000 * S)).limit == ""
    granted(take(of, 1, at=20))
    refused(take(of, 1, at=29, limit="orders"))
    granted(take(of, 1, at=30, limit="orders"))


def test_published_limits_replace_the_assumed_ones_and_what_was_used_stays() -> None:
    of = budget()
    granted(take(of, 90))
    of.set_limits({"weight": RateLimit(1000, 60 * S)})
    granted(take(of, 900, at=1))
    assert of.used(NOON + S) == {"weight": 990}
    refused(take(of, 11, at=2))


def test_a_clock_that_is_a_little_behind_counts_in_the_window_that_others_began() -> None:
    of = budget()
    granted(of.charge((("weight", 60),), Priority.CANCEL, NOON, 1000 * S))
    granted(of.charge((("weight", 30),), Priority.CANCEL, NOON - 1_000_000, 1000 * S))
    assert of.used(NOON) == {"weight": 90}


def test_a_clock_that_is_far_off_neither_stops_nor_frees_the_others() -> None:
    of = budget()
    granted(of.charge((("weight", 60),), Priority.CANCEL, NOON + 3600 * S, 1000 * S))
    granted(of.charge((("weight", 30),), Priority.CANCEL, NOON, 1000 * S))
    assert refused(of.charge((("weight", 30),), Priority.CANCEL, NOON, 1001 * S)).limit == "weight"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.4), st.integers(1, 12), st.sampled_from(list(Priority)), st.booleans()),
        max_size=300,
    ),
    st.floats(-5, 5),
)
def test_no_interval_and_no_window_ever_holds_more_than_the_limit(
    requests: list[tuple[float, int, Priority, bool]], skew: float
) -> None:
    limit, interval = 40, 10.0
    of = budget(weight=RateLimit(limit, round(interval * S)))
    now = 0.0
    sent: list[tuple[float, int]] = []
    for pause, cost, priority, waits in requests:
        now += pause
        at = NOON + round((now + skew) * S)
        outcome = of.charge((("weight", cost),), priority, at, round(now * S))
        if isinstance(outcome, Refusal) and waits and not outcome.never:
            assert outcome.wait_ns > 0
            now += outcome.wait_ns / S
            at = NOON + round((now + skew) * S)
            outcome = granted(of.charge((("weight", cost),), priority, at, round(now * S)))
        if isinstance(outcome, Grant):
            sent.append((now, cost))
    for begin, _ in sent:
        assert sum(cost for at, cost in sent if begin <= at < begin + interval) <= limit


# ------------------------------------------------------------------------------------------------- shared memory


def test_those_of_one_address_share_and_others_do_not(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    limits = {"weight": RateLimit(100, 60 * S), "orders": RateLimit(10, 10 * S, ACCOUNT)}
    mine, partner = budget(path, **limits), budget(path, **limits)
    other_account, elsewhere = budget(path, account="you", **limits), budget(path, address="there", **limits)
    granted(take(mine, 70))
    granted(take(mine, 9, limit="orders"))
    assert [of.used(NOON)["weight"] for of in (partner, other_account, elsewhere)] == [70, 70, 0]
    assert [of.used(NOON)["orders"] for of in (partner, other_account, elsewhere)] == [9, 0, 9]
    refused(take(partner, 31))
    partner.silence(2000 * S)
    refused(take(mine))
    refused(take(other_account))
    granted(take(elsewhere))


def test_a_file_of_another_boot_or_layout_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    granted(take(budget(path), 70))
    with path.open("r+b") as file:
        file.write(b"\1" * 8)
    assert budget(path).used(NOON) == {"weight": 0}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        open_memory(tmp_path / "nowhere" / "limits")


def test_a_memory_holds_so_many_limits_and_says_so() -> None:
    cells = open_memory()
    keys = [key_of("limit", str(number)) for number in range(ENTRIES)]
    rows = [cells.claim(key) for key in keys]
    assert len(set(rows)) == ENTRIES >= 200 * 5, "two hundred connectors of five limits each"
    assert [cells.claim(key) for key in keys] == rows
    with pytest.raises(ConfigError, match="share one memory"):
        cells.claim(key_of("one more"))
    with pytest.raises(ValueError):
        cells.claim(0)


def test_a_file_that_cannot_be_mapped_is_an_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "limits", os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        with pytest.raises(PermissionError):
            LimitCells(descriptor, 1)
    finally:
        os.close(descriptor)


def test_a_memory_keeps_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    cells = open_memory(path)
    assert str(path) not in [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    cells.claim(5)
    assert open_memory(path).claim(5) == cells.claim(5)


def test_counts_do_not_pass_the_end_of_a_word() -> None:
    cells = open_memory()
    row = cells.claim(1)
    most = 0xFFFFFFFF
    assert cells.charge(row, most - 1, most, 5, 7) == 5
    assert cells.charge(row, 1, most, 5, 7) == 5
    assert cells.charge(row, 1, most, 5, 7) < 0
    assert cells.used(row, 5) == cells.remembered(row, 7) == most
    with pytest.raises(IndexError):
        cells.charge(0, 1, 1, 0, 0)


def test_a_process_that_was_stopped_and_comes_late_counts_all_the_same() -> None:
    cells = open_memory()
    row = cells.claim(1)
    for bucket in itertools.chain(range(100, 100 + BUCKETS), [100]):
        cells.charge(row, 1, 1000, 5, bucket)
    assert cells.remembered(row, 100 + BUCKETS - 1) == BUCKETS + 1


@pytest.mark.parametrize(("told", "used"), [(10**18, 2**32 - 1), (2**32, 2**32 - 1), (-3, 7), (6, 7), (8, 8)])
def test_whatever_number_a_venue_reports_counts_where_it_is_higher(told: int, used: int) -> None:
    of = budget()
    grant = granted(take(of, 7, at=20))
    of.report(grant, {"weight": told}, NOON + 21 * S)
    assert of.used(NOON + 21 * S) == {"weight": used}
