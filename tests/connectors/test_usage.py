from __future__ import annotations

import pytest

from engine.connectors.errors import RateLimited, never_sent
from engine.connectors.usage import UsageBudget, UsageLimit

S = 1_000_000_000


def budget(limit: int = 100) -> UsageBudget:
    return UsageBudget({"weight": UsageLimit(limit, 60 * S)})


def test_what_would_break_a_limit_is_refused_before_it_is_sent() -> None:
    usage = budget()
    usage.admit({"weight": 90}, 0)
    with pytest.raises(RateLimited) as refused:
        usage.admit({"weight": 1}, 10 * S)
    assert refused.value.local
    assert never_sent(refused.value)
    assert refused.value.retry_after_s == pytest.approx(50)


def test_the_reserve_is_for_cancels() -> None:
    usage = budget()
    usage.admit({"weight": 90}, 0)
    usage.admit({"weight": 10}, 0, urgent=True)
    with pytest.raises(RateLimited):
        usage.admit({"weight": 1}, 0, urgent=True)


def test_a_new_window_begins_empty() -> None:
    usage = budget()
    usage.admit({"weight": 90}, 0)
    usage.settle({"weight": 90}, S)
    assert usage.used(59 * S) == {"weight": 90}
    usage.admit({"weight": 90}, 60 * S)


def test_the_venues_own_count_is_what_counts() -> None:
    usage = budget()
    usage.admit({"weight": 5}, 0)
    usage.settle({"weight": 5}, 0, {"weight": 80, "unheard_of": 3})
    assert usage.used(0) == {"weight": 80}
    with pytest.raises(RateLimited):
        usage.admit({"weight": 11}, 0)


def test_after_the_venue_said_stop_nothing_is_sent_not_even_cancels() -> None:
    usage = budget()
    usage.silence(30, 0)
    with pytest.raises(RateLimited) as refused:
        usage.admit({}, 10 * S, urgent=True)
    assert refused.value.retry_after_s == pytest.approx(20)
    usage.admit({}, 30 * S)


def test_a_shorter_silence_does_not_end_a_longer_one() -> None:
    usage = budget()
    usage.silence(30, 0)
    usage.silence(1, 0)
    with pytest.raises(RateLimited):
        usage.admit({}, 20 * S)


def test_published_limits_replace_the_assumed_ones() -> None:
    usage = budget()
    usage.admit({"weight": 50}, 0)
    usage.set_limits({"weight": UsageLimit(1000, 60 * S), "orders": UsageLimit(1, S)})
    usage.admit({"weight": 800}, 0)
    with pytest.raises(RateLimited):
        usage.admit({"orders": 1}, 0)
    usage.admit({"orders": 1}, 0, urgent=True)


def test_a_silence_may_be_for_what_counts_against_one_limit() -> None:
    usage = budget()
    usage.silence(30, 0, ("orders",))
    usage.admit({"weight": 1}, 0)
    with pytest.raises(RateLimited):
        usage.admit({"orders": 1, "weight": 1}, 0)
