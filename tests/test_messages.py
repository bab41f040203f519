"""The vocabulary: every message survives MessagePack, exactly, and old readers read new messages."""

from decimal import Decimal
from typing import get_args

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import messages
from engine.messages import (
    AnyMessage,
    Balance,
    BalanceEvent,
    Fill,
    Message,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderState,
    OrderType,
    PlaceOrder,
    Side,
    StreamPosition,
    Tick,
    TickDone,
)

ALL = get_args(AnyMessage)
DECODER = msgspec.msgpack.Decoder(AnyMessage)
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=None)
COUNTS = st.integers(min_value=-(2**63), max_value=2**64 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | COUNTS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)

st.register_type_strategy(Decimal, AMOUNTS)


def values(kind):
    """A strategy for a field's type."""
    origin, args = getattr(kind, "__origin__", None), get_args(kind)
    if kind is Decimal:
        return AMOUNTS
    if kind is int:
        return COUNTS
    if kind is messages.Any:
        return PLAIN
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return structs(kind)
    if origin is list:
        return st.lists(values(args[0]), max_size=2)
    if origin is tuple and ... not in args:
        return st.tuples(*map(values, args))
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if args:
        return st.one_of(*map(values, args))
    return st.from_type(kind)


def structs(kind):
    """A strategy for a message, or for a part of one."""
    fields = {field.name: values(field.type) for field in msgspec.structs.fields(kind)}
    return st.fixed_dictionaries(fields).map(lambda found: kind(**found))


def test_every_message_of_the_module_is_in_the_vocabulary():
    defined = {
        found
        for found in vars(messages).values()
        if isinstance(found, type) and issubclass(found, Message) and found is not Message
    }
    assert defined == set(ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_message_comes_back_as_it_was_and_what_a_newer_sender_added_is_ignored(kind):
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(structs(kind))
    def comes_back(message):
        packed = msgspec.msgpack.encode(message)
        read = DECODER.decode(packed)
        assert type(read) is kind
        assert read == message
        plain = msgpack.unpackb(packed, strict_map_key=False)
        assert plain["type"] == kind.__name__
        plain["a_field_of_the_future"] = {"deep": [1, 2]}
        assert DECODER.decode(msgpack.packb(plain)) == message

    comes_back()


def test_a_message_that_is_not_known_is_an_error():
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgpack.packb({"type": "FromTheFuture"}))


@pytest.mark.parametrize("text", ["0", "0.10", "1E-8", "-0.000000000000000001", "123456789012345678901234567890.12"])
def test_an_amount_keeps_every_digit_and_its_trailing_zeros(text):
    sent = BalanceEvent(
        connector="c", account="a", balances={"X": Balance(total=Decimal(text), available=Decimal(text))}, time_ns=1
    )
    found = DECODER.decode(msgspec.msgpack.encode(sent)).balances["X"].total
    assert (found.as_tuple(), str(found)) == (Decimal(text).as_tuple(), str(Decimal(text)))


def test_an_amount_travels_as_a_string():
    sent = PlaceOrder(
        client_order_id="e-1",
        strategy="s",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal("0.1"),
        price=Decimal("60000.50"),
    )
    read = msgpack.unpackb(msgspec.msgpack.encode(sent))
    assert (read["size"], read["price"]) == ("0.1", "60000.50")


def test_an_event_with_its_order_and_fill_comes_back():
    fill = Fill(
        trade_id="1",
        price=Decimal("1.5"),
        size=Decimal(2),
        fee=Decimal("0.1"),
        fee_asset="BNB",
        is_maker=True,
        time_ns=5,
    )
    order = Order(
        client_order_id="e-1",
        strategy="s",
        pair="BTC-USDT",
        side=Side.SELL,
        order_type=OrderType.LIMIT_MAKER,
        size=Decimal(2),
        price=Decimal("1.5"),
        state=OrderState.FILLED,
        filled=Decimal(2),
    )
    event = OrderEvent(number=7, connector="c", account="a", kind=OrderEventKind.FILL, order=order, fill=fill)
    assert DECODER.decode(msgspec.msgpack.encode(event)) == event


def test_fields_at_their_default_take_no_room():
    tick_done = TickDone(actor="a", incarnation=1, n=2, lateness_ns=3, duration_ns=4)
    assert set(msgpack.unpackb(msgspec.msgpack.encode(tick_done))) == {
        "type",
        "actor",
        "incarnation",
        "n",
        "lateness_ns",
        "duration_ns",
    }


def test_defaults_are_not_shared():
    first = TickDone(actor="a", incarnation=1, n=2, lateness_ns=3, duration_ns=4)
    first.streams["s"] = StreamPosition(incarnation=1, number=1)
    assert TickDone(actor="a", incarnation=1, n=2, lateness_ns=3, duration_ns=4).streams == {}


def test_a_message_cannot_be_changed():
    tick = Tick(n=1, time_ns=2, interval_ns=3, sent_mono_ns=4)
    with pytest.raises(AttributeError):
        tick.n = 2


def test_final_states_are_the_four_ends():
    assert {state for state in OrderState if state.is_final} == {
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.EXPIRED,
        OrderState.FAILED,
    }
