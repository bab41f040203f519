import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bus import wire
from engine.messages import LogLine, Tick

LIMIT = 1000


def frames_of(payloads):
    return b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.data())
def test_any_chunking_gives_the_same_frames(payloads, data):
    stream = frames_of(payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    splitter, got = wire.FrameSplitter(LIMIT), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += splitter.feed(stream[start:stop])
    assert got == payloads
    assert splitter.error is None


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.sampled_from([0, LIMIT + 1]), st.data())
def test_frames_before_a_bad_length_are_given_and_none_after(payloads, bad, data):
    stream = frames_of(payloads) + struct.pack("<I", bad) + frames_of([b"after"])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter, got = wire.FrameSplitter(LIMIT), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += splitter.feed(stream[start:stop])
    assert got == payloads
    assert f"{bad} bytes" in splitter.error


def test_a_large_frame_in_small_chunks_is_not_copied_again_for_each():
    splitter = wire.FrameSplitter(1 << 24)
    frame = frames_of([bytes(1 << 22)])
    got = []
    for start in range(0, len(frame), 1 << 10):
        got += splitter.feed(frame[start : start + (1 << 10)])
    assert [len(payload) for payload in got] == [1 << 22]


@given(st.integers(-(2**63), 2**64 - 1), st.integers(0, 2**63), st.text(max_size=40))
def test_an_event_built_by_hand_is_what_the_decoder_reads(subscription, number, text):
    message = LogLine(actor=text, level="info", event=text, time_ns=number)
    tail = wire.event_tail(number, wire.encode_body(message))
    (frame,) = wire.FrameSplitter(LIMIT).feed(wire.event_frame(wire.event_prefix(subscription), tail))
    event = wire.decode_envelope(frame)
    assert (event.id, event.number) == (subscription, number)
    assert wire.decode_body(event.body) == message


ENVELOPES = [
    wire.Hello("e", "a", 3, host="h", mono_ns=4),
    wire.Rejected("no"),
    wire.Subscribe(1, "s", ["k"], 2, 3),
    wire.SetKeys(1, None),
    wire.Unsubscribe(1),
    wire.Probe(1),
    wire.Request(1, msgspec.Raw(b"\x01")),
    wire.Command(1, "c", None, 5, 6, msgspec.Raw(b"\x01"), 4),
    wire.Tell(msgspec.Raw(b"\x01")),
    wire.Subscribed(1, 2, 3, True, False, 4, (1, 2)),
    wire.Event(1, 2, msgspec.Raw(b"\x01")),
    wire.Skipped(1, 2, 3),
    wire.Head(1, 2),
    wire.StreamClosed(1),
    wire.Reply(1, msgspec.Raw(b"\x01")),
    wire.Failure(1, "e"),
    wire.ClockMoved(1),
    wire.ClockReads(1),
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=lambda envelope: type(envelope).__name__)
def test_envelopes_survive_the_wire_and_may_grow(envelope):
    encoded = wire.encode_frame(envelope)[4:]
    assert wire.decode_envelope(encoded) == envelope
    assert encoded[0] & 0xF0 == 0x90
    grown = bytes([encoded[0] + 1]) + encoded[1:] + b"\xa5later"
    assert wire.decode_envelope(grown) == envelope


@pytest.mark.parametrize("frame", [b"\xc1", b"\x91\xcc\xff", b"\x92\x0c", b"\x80", b"\x93\x0c\xa1x\x01"])
def test_what_is_no_envelope_is_refused(frame):
    with pytest.raises(msgspec.DecodeError):
        wire.decode_envelope(frame)


def test_a_body_of_an_unknown_type_is_refused_where_it_is_decoded():
    body = msgspec.msgpack.encode({"type": "FromTheFuture"})
    with pytest.raises(msgspec.DecodeError, match="FromTheFuture"):
        wire.decode_body(body)


def test_unknown_fields_of_a_body_are_ignored():
    tick = Tick(n=1, time_ns=2, interval_ns=3, sent_mono_ns=4)
    known = msgspec.msgpack.decode(wire.encode_body(tick))
    assert wire.decode_body(msgspec.msgpack.encode(known | {"later": 1})) == tick
