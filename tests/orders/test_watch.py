"""Which order is asked about next, whatever became of the others meanwhile."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Order, OrderState, OrderType, Side
from engine.orders.order import TrackedOrder
from engine.orders.watch import Timing, Watch

SECOND = 1_000_000_000


def tracked(number: int, state: OrderState = OrderState.PENDING_CREATE) -> TrackedOrder:
    order = Order(
        client_order_id=f"e-{number}",
        strategy="s",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal(1),
        price=Decimal(1),
        state=state,
        created_ns=number,
    )
    return TrackedOrder(order=order, send_by_ns=number * SECOND)


def moved(order: TrackedOrder, state: OrderState) -> TrackedOrder:
    order.order = msgspec.structs.replace(order.order, state=state)
    return order


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([*OrderState, "hurry", "due"]), st.integers(0, 3 * SECOND)),
    max_size=40,
)


@given(STEPS)
def test_the_next_question_is_the_soonest_of_all_and_is_asked_then(
    steps: list[tuple[int, OrderState | str, int]],
) -> None:
    watch, now = Watch(Timing(), 5 * SECOND), 0
    orders = [tracked(number) for number in range(6)]
    due_at: dict[str, int] = {}
    for number, what, later in steps:
        now += later
        order = orders[number]
        if what == "hurry":
            watch.hurry(order, now)
        elif what == "due":
            soonest = watch.next_due()
            asked = watch.due(now)
            assert bool(asked) == (soonest is not None and soonest <= now)
            assert all(due_at[each.id] <= now for each in asked)
        else:
            watch.update(moved(order, OrderState(what)), now)
        due_at = {each.id: watch.at(each.id) for each in orders if each.id in watch}
        assert watch.next_due() == min(due_at.values(), default=None)


def test_the_agenda_does_not_grow_with_the_orders_that_ended() -> None:
    watch = Watch(Timing(), 5 * SECOND)
    for number in range(20_000):
        order = tracked(number)
        watch.update(order, 0)
        watch.update(moved(order, OrderState.CANCELLED), 0)
        assert watch.next_due() is None
    living = [tracked(number) for number in range(10)]
    for number in range(20_000):
        order = living[number % 10]
        watch.update(moved(order, OrderState.OPEN), number)
        watch.update(moved(order, OrderState.PENDING_CANCEL), number)
    assert len(watch) == 10
    assert watch.planned < 400


def test_what_was_asked_in_vain_is_asked_at_once_when_the_venue_is_back() -> None:
    watch, now = Watch(Timing(), 5 * SECOND), 100 * SECOND
    waiting, fresh = tracked(1, OrderState.UNKNOWN), tracked(1000)
    watch.update(waiting, now)
    watch.update(fresh, now)
    for _ in range(8):
        now = max(now, watch.at(waiting.id))
        assert waiting in watch.due(now)
    assert watch.at(waiting.id) > now + 20 * SECOND
    unasked = watch.at(fresh.id)
    watch.press(now)
    assert watch.due(now) == [waiting]
    assert watch.at(waiting.id) == now + SECOND
    assert watch.at(fresh.id) == unasked
