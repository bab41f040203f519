"""The lease of an account: at most one holder trades, whatever is lost, late or stopped."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.orders.lease import Lease, LeaseRow, LeaseState, LeaseTerms, Look, Question, Renew, Take

S = 1_000_000_000
TERMS = LeaseTerms(ttl_ns=10 * S, renew_ns=2 * S, clock_error_ns=S // 2, look_ns=S)
HORIZON = 5 * S


def held(at: int = 0) -> Lease:
    lease = Lease("a", "seat-a", TERMS)
    lease.looked(LeaseRow(), at, at)
    lease.taken(LeaseRow(epoch=1, holder="a", seat="seat-a", ttl_ns=TERMS.ttl_ns), at, at)
    return lease


def other(epoch: int = 1, beat: int = 0, holder: str = "b") -> LeaseRow:
    return LeaseRow(epoch=epoch, beat=beat, holder=holder, seat="seat-b", ttl_ns=TERMS.ttl_ns)


def test_a_lease_that_nobody_holds_is_taken_at_once_and_counts_from_the_asking() -> None:
    lease = Lease("a", "seat-a", TERMS)
    assert lease.question(0) == Look()
    lease.looked(LeaseRow(), 0, 3 * S)
    assert lease.due_ns == 3 * S
    assert lease.question(3 * S) == Take(LeaseRow())
    lease.taken(LeaseRow(epoch=1, holder="a", seat="seat-a", ttl_ns=TERMS.ttl_ns), 3 * S, 7 * S)
    assert (lease.state, lease.epoch, lease.ends_ns) == (LeaseState.HELD, 1, 3 * S + 9 * S + S // 2)
    assert lease.due_ns == 5 * S


def test_a_holder_renews_and_signs_nothing_that_could_be_accepted_after_its_end() -> None:
    lease = held()
    assert lease.question(2 * S) == Renew(1)
    assert lease.sign_by(HORIZON) == 9 * S + S // 2 - HORIZON
    lease.renewed(True, 2 * S, 6 * S)
    assert lease.sign_by(HORIZON) == 2 * S + 9 * S + S // 2 - HORIZON


def test_a_holder_without_answers_runs_out_and_comes_back_if_nobody_took_its_place() -> None:
    lease = held()
    for second in (2, 4, 6, 8, 10, 12):
        lease.unanswered(second * S)
    assert not lease.holds(12 * S)
    assert lease.state is LeaseState.HELD
    assert lease.question(13 * S) == Renew(1)
    lease.renewed(True, 13 * S, 14 * S)
    assert lease.holds(14 * S)


def test_a_holder_that_was_superseded_never_holds_again() -> None:
    lease = held()
    lease.renewed(False, 2 * S, 2 * S)
    assert (lease.state, lease.holds(2 * S), lease.sign_by(0), lease.question(2 * S)) == (
        LeaseState.LOST,
        False,
        0,
        None,
    )
    lease.renewed(True, 3 * S, 3 * S)
    assert lease.state is LeaseState.LOST


def test_a_candidate_waits_from_the_answer_on_and_begins_anew_with_each_beat() -> None:
    lease = Lease("a", "seat-a", TERMS)
    lease.looked(other(beat=3), 0, 2 * S)
    assert lease.question(12 * S) == Look()
    lease.looked(other(beat=4), 11 * S, 12 * S)
    lease.looked(other(beat=4), 21 * S, 22 * S)
    assert lease.question(22 * S) == Look()
    assert lease.due_ns == 22 * S + S // 2
    assert lease.question(22 * S + S // 2) == Take(other(beat=4))


def test_a_take_that_came_too_late_looks_again() -> None:
    lease = Lease("a", "seat-a", TERMS)
    lease.looked(LeaseRow(), 0, 0)
    lease.taken(None, 0, S)
    assert lease.question(S) == Look()
    lease.looked(other(), S, S)
    assert lease.state is LeaseState.WAITING


def test_a_take_whose_answer_was_lost_counts_from_the_renewal_after_it() -> None:
    lease = Lease("a", "seat-a", TERMS)
    lease.looked(LeaseRow(), 0, 0)
    lease.unanswered(S)
    lease.looked(LeaseRow(epoch=1, holder="a", seat="seat-a", ttl_ns=TERMS.ttl_ns), 2 * S, 2 * S)
    assert lease.state is LeaseState.HELD
    assert not lease.holds(2 * S)
    lease.renewed(True, 2 * S, 3 * S)
    assert lease.ends_ns == 11 * S + S // 2


def test_whoever_sits_on_the_same_seat_knows_that_the_last_holder_is_dead() -> None:
    lease = Lease("a", "seat-b", TERMS)
    lease.looked(other(), 0, 0)
    assert lease.question(0) == Take(other())


@pytest.mark.parametrize("wrong", [{"renew_ns": 5 * S}, {"renew_ns": 0}, {"clock_error_ns": -1}, {"look_ns": 0}])
def test_terms_that_nobody_could_trade_on_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        LeaseTerms(**{"ttl_ns": 10 * S, "renew_ns": 2 * S, **wrong})


# ------------------------------------------------------------------------------------------------------ histories


class Arbiter:
    """The row, and everything that ever held it: (true time, epoch)."""

    def __init__(self) -> None:
        self.row = LeaseRow()
        self.taken: dict[int, int] = {}

    def carry_out(self, asker: Lease, question: Question, now: int) -> LeaseRow | bool | None:
        row = self.row
        match question:
            case Look():
                return row
            case Take(seen):
                if (row.epoch, row.beat) != (seen.epoch, seen.beat):
                    return None
                self.row = LeaseRow(
                    epoch=row.epoch + 1, holder=asker.holder, seat=asker.seat, ttl_ns=asker.terms.ttl_ns
                )
                self.taken[self.row.epoch] = now
                return self.row
            case Renew(epoch):
                if row.epoch != epoch:
                    return False
                self.row = LeaseRow(epoch=epoch, beat=row.beat + 1, holder=row.holder, seat=row.seat, ttl_ns=row.ttl_ns)
                return True


@dataclass
class Host:
    """A process on a host whose clock runs a little wrong and began somewhere."""

    lease: Lease
    offset: int
    rate: float
    asked: tuple[Question, int] | None = None
    stopped_until: int = 0
    signed: list[tuple[int, int]] = field(default_factory=list)
    """Epoch, and the true time until which the venue accepts it."""

    def clock(self, now: int) -> int:
        return self.offset + round(now * self.rate)


def history(seed: int, fenced: bool = True) -> tuple[Arbiter, list[Host]]:
    """Ten minutes of three processes; messages are late or lost, processes are stopped, between check and send too."""
    rng = random.Random(seed)
    arbiter = Arbiter()
    drift = 0.01
    hosts = [
        Host(Lease(name, f"seat-{name}", TERMS), rng.randrange(10**15), 1 + rng.uniform(-drift, drift))
        for name in "abc"
    ]
    under_way: list[tuple[int, int, Host, Question, int]] = []
    answers: list[tuple[int, Host, Question, LeaseRow | bool | None, int]] = []
    step = S // 5
    for now in range(0, 600 * S, step):
        for entry in [entry for entry in under_way if entry[0] <= now]:
            under_way.remove(entry)
            _, _, host, question, asked = entry
            answer = arbiter.carry_out(host.lease, question, now)
            if rng.random() > 0.1:
                answers.append((now + _late(rng), host, question, answer, asked))
        for told in [told for told in answers if told[0] <= now and told[1].stopped_until <= now]:
            answers.remove(told)
            _, host, question, answer, asked = told
            if host.asked is None or host.asked[1] != asked:
                continue
            host.asked = None
            here = host.clock(now)
            match question:
                case Look():
                    assert isinstance(answer, LeaseRow)
                    host.lease.looked(answer, asked, here)
                case Take():
                    assert not isinstance(answer, bool)
                    host.lease.taken(answer, asked, here)
                case Renew():
                    host.lease.renewed(answer is True, asked, here)
        for host in hosts:
            if host.stopped_until > now:
                continue
            here = host.clock(now)
            if host.asked is not None and here - host.asked[1] > 2 * S:
                host.asked = None
                host.lease.unanswered(here)
            if host.asked is None and here >= host.lease.due_ns:
                question = host.lease.question(here)
                if question is not None:
                    host.asked = (question, here)
                    if rng.random() > 0.1:
                        under_way.append((now + _late(rng), 0, host, question, here))
            if host.lease.state is LeaseState.HELD and (not fenced or here <= host.lease.sign_by(HORIZON)):
                host.signed.append((host.lease.epoch, now + HORIZON))
            if rng.random() < 0.008:
                host.stopped_until = now + rng.randrange(40 * S)
    return arbiter, hosts


def _late(rng: random.Random) -> int:
    return rng.randrange(S // 2) if rng.random() < 0.9 else rng.randrange(20 * S)


def late_orders(arbiter: Arbiter, hosts: list[Host]) -> int:
    """What a venue could still accept of a holder after the next one had taken its place."""
    return sum(
        valid_until > arbiter.taken.get(epoch + 1, valid_until) for host in hosts for epoch, valid_until in host.signed
    )


@given(st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_nothing_that_a_holder_signed_is_valid_once_another_has_taken_its_place(seed: int) -> None:
    arbiter, hosts = history(seed)
    assert late_orders(arbiter, hosts) == 0
    assert any(host.signed for host in hosts)


def test_histories_have_many_holders_and_find_a_holder_that_does_not_look_at_its_lease() -> None:
    found = [history(seed, fenced=False) for seed in range(5)]
    assert all(len(arbiter.taken) >= 3 for arbiter, _ in found)
    assert all(late_orders(arbiter, hosts) for arbiter, hosts in found)
