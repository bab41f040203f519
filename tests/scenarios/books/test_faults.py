"""What goes wrong between a venue and its books: W2 to W5, W8.

In each, the book ends as the venue's own, no reading that said it was fresh ever differed from the venue's book at that
id, and the other pair never noticed.
"""

from __future__ import annotations

import pytest

from engine.connectors.binance import constants
from engine.simulator.binance import commands
from engine.simulator.faults import DEPTH_KINDS


def test_W2_a_lost_diff_costs_that_pair_a_resync(books):
    async def body(stage):
        stage.inflict("skip_depth")
        await stage.until(lambda: stage.counted("resyncs"))
        assert not stage.is_fresh(stage.struck)
        await stage.settle()
        stage.check_other()
        assert stage.watchers[stage.struck].statuses[-3:] == ["fresh", "unsynced", "fresh"]
        assert (stage.counted("gaps"), stage.counted("resyncs")) == (1, 1)
        assert stage.problems() == {"gap": 1}

    logs = books(body)
    told = [line for line in logs if line["event"] == "market data problem"]
    assert [(line["kind"], line["pair"]) for line in told] == [("gap", "BTC-USDT")]


def test_W2_diffs_that_stop_while_quotes_go_on_are_missed_without_a_next_one(books):
    async def body(stage):
        began_ns = stage.clock.monotonic_ns()
        stage.inflict("skip_depth", count=60)
        await stage.until(lambda: stage.counted("resyncs"))
        protocol = stage.actor.feed.protocol
        assert stage.struck_faults["skip_depth"] < 60, "no diff came that could have shown the loss"
        assert stage.clock.monotonic_ns() - began_ns < protocol.silence_after_s * 1e9 / 2
        assert not stage.is_fresh(stage.struck)
        await stage.until(lambda: stage.struck_faults["skip_depth"] == 60)
        await stage.settle()
        stage.check_other()

    logs = books(body)
    told = [line for line in logs if line["event"] == "market data problem"]
    assert "no diff came" in told[0]["detail"]


def test_W2_diffs_told_twice_change_nothing(books):
    async def body(stage):
        stage.inflict("duplicate_depth", count=10)
        await stage.until(lambda: stage.struck_faults.get("duplicate_depth") == 10)
        await stage.settle()
        stage.check_other()
        assert stage.counted("resyncs") == 0
        assert stage.counted("dropped") >= 10
        assert stage.problems() == {}
        assert stage.watchers[stage.struck].statuses.count("fresh") == 1

    books(body)


def test_W2_diffs_in_the_wrong_order_are_a_gap_and_then_old(books):
    async def body(stage):
        stage.inflict("reorder_depth")
        await stage.until(lambda: stage.counted("resyncs"))
        await stage.settle()
        stage.check_other()
        assert stage.counted("gaps") == 1

    books(body)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_W2_late_diffs_are_a_gap_and_old_when_they_come(books, count):
    async def body(stage):
        stage.inflict("late_depth", count=count, ms=700)
        await stage.until(lambda: stage.struck_faults.get("late_depth") == count)
        await stage.passes(1.0)
        await stage.settle()
        stage.check_other()
        assert stage.counted("gaps") >= 1

    books(body)


def test_W3_a_snapshot_older_than_the_buffer_is_not_taken(books):
    async def body(stage):
        stage.inflict("old_snapshot", count=2)
        await stage.passes(0.5)
        stage.inflict("skip_depth")
        await stage.until(lambda: stage.problems().get("snapshot_too_old") == 2)
        assert not stage.is_fresh(stage.struck)
        await stage.settle()
        stage.check_other()
        assert (stage.counted("resyncs"), stage.problems()) == (1, {"gap": 1, "snapshot_too_old": 2})

    books(body)


def test_W3_a_snapshot_newer_than_all_that_is_buffered_is_taken(books):
    async def body(stage):
        stage.inflict("skip_depth")
        stage.inflict("late_depth", count=30, ms=2500)
        await stage.until(lambda: stage.struck_faults.get("late_depth") == 30)
        await stage.passes(3.0)
        await stage.settle()
        stage.check_other()
        assert stage.counted("snapshots") >= 2

    books(body)


@pytest.mark.parametrize("kind", ["late_reply", "latency"])
def test_W3_more_than_32_diffs_while_the_snapshot_is_under_way(books, kind):
    """``late_reply``: it is of before all of them. ``latency``: of after all of them."""

    async def body(stage):
        stage.inflict(kind, match="GET /api/v3/depth", ms=5000)
        stage.inflict("skip_depth")
        await stage.until(lambda: stage.actor.feed.books[stage.struck].buffered > 40)
        assert not stage.is_fresh(stage.struck)
        applied = stage.counted("updates")
        await stage.until(lambda: stage.is_fresh(stage.struck))
        assert (stage.counted("updates") - applied > 40) is (kind == "late_reply")
        await stage.settle()
        stage.check_other()
        assert (stage.counted("gaps"), stage.counted("resyncs"), stage.counted("overflows")) == (1, 1, 0)

    books(body, timeout_s=9.0)


def test_W4_a_reconnection_makes_every_book_anew(books):
    async def body(stage):
        stage.inflict("disconnect_streams")
        await stage.until(lambda: stage.counted("resyncs"))
        assert not stage.is_fresh(stage.struck)
        assert not stage.is_fresh(stage.other)
        await stage.settle()
        for pair in (stage.struck, stage.other):
            assert [stage.counted(name, pair) for name in ("resyncs", "gaps", "snapshots")] == [1, 0, 2]
            assert stage.watchers[pair].statuses[-3:] == ["fresh", "unsynced", "fresh"]

    books(body)


def test_W4_connections_that_keep_breaking_while_snapshots_are_late(books):
    async def body(stage):
        for _ in range(4):
            stage.inflict("latency", match="GET /api/v3/depth", ms=400, count=2)
            stage.inflict("disconnect_streams")
            await stage.passes(0.9)
        await stage.settle()
        assert stage.counted("gaps") == 0

    books(body)


def test_W4_a_book_whose_subscription_is_refused_is_not_fresh_until_it_is_granted(books, monkeypatch):
    """Streams are subscribed to by messages, one for each pair; the venue refuses one of them for two minutes."""
    monkeypatch.setattr(constants, "MAX_URL", 0)
    monkeypatch.setattr(constants, "SUBSCRIBE_CHUNK", 3)
    carry_out = commands._carry_out
    refusals = []
    refusing = False

    def grudging(request, listener, hub):
        if refusing and b"btcusdt@depth@100ms" in b"".join(map(bytes, request.params)):
            refusals.append(request)
            raise ValueError("not now")
        return carry_out(request, listener, hub)

    monkeypatch.setattr(commands, "_carry_out", grudging)

    async def body(stage):
        nonlocal refusing
        refusing = True
        stage.inflict("disconnect_streams")
        await stage.until(lambda: refusals)
        for _ in range(1200):
            await stage.passes(0.1)
            assert not stage.is_fresh(stage.struck)
        assert 5 < len(refusals) < 20, "ever more seldom"
        refusing = False
        await stage.until(lambda: stage.is_fresh(stage.struck))
        await stage.settle()
        assert stage.problems()["notice"] == len(refusals)

    logs = books(body)
    told = [line for line in logs if line["event"] == "market data problem" and line["kind"] == "notice"]
    assert told[0]["detail"] == "2 Invalid request: not now"


def test_W5_a_stray_crossing_diff_wipes_nothing(books):
    async def body(stage):
        stage.inflict("cross_depth")
        await stage.until(lambda: stage.counted("crossed"))
        assert not stage.is_fresh(stage.struck)
        await stage.settle()
        stage.check_other()
        assert (stage.counted("crossed"), stage.counted("resyncs"), stage.counted("gaps")) == (1, 1, 0)
        assert stage.problems() == {"crossed": 1}

    books(body)


def test_W8_a_silent_socket_that_still_answers_pings_is_found_out(books):
    async def body(stage):
        stood = {pair: stage.counted("updates", pair) for pair in (stage.struck, stage.other)}
        began_ns = stage.clock.monotonic_ns()
        stage.inflict("mute_streams")
        await stage.until(lambda: not stage.is_fresh(stage.struck), within_s=120)
        protocol = stage.actor.feed.protocol
        silent_s = (stage.clock.monotonic_ns() - began_ns) / 1e9
        assert protocol.silence_after_s - 1 < silent_s < protocol.silence_after_s + 1
        assert protocol.silence_after_s > 3 * protocol.ping_every_s, "pings must have been answered meanwhile"
        assert all(stage.counted("updates", pair) <= count + 1 for pair, count in stood.items())
        await stage.settle()
        assert stage.watchers[stage.struck].statuses[-3:] == ["fresh", "unsynced", "fresh"]

    logs = books(body)
    (told,) = [line for line in logs if line["event"] == "market stream closed"]
    assert told["reason"].startswith("silent for")


def test_a_storm_of_all_of_it(books):
    async def body(stage):
        for round_ in range(12):
            for kind in (*sorted(DEPTH_KINDS), "old_snapshot"):
                stage.inflict(kind, count=1 + round_ % 3, ms=150 * (round_ % 5))
            stage.inflict(
                ("latency", "late_reply", "http_status")[round_ % 3], match="/api/v3/depth", ms=300, status=502
            )
            if round_ % 5 == 4:
                stage.inflict("disconnect_streams")
            await stage.passes(1.3)
        await stage.settle()
        assert stage.counted("resyncs") >= 2
        assert set(stage.struck_faults) >= {*DEPTH_KINDS, "old_snapshot", "latency", "late_reply", "disconnect_streams"}
        assert [stage.counted(name, stage.other) for name in ("gaps", "crossed", "old_runs")] == [0, 0, 0]

    books(body)
