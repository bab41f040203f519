"""Published streams: numbered events, and one bounded outlet per reader."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Protocol

from engine.bus.context import Channel, Context, log
from engine.bus.wire import (
    Envelope,
    Head,
    Skipped,
    Subscribe,
    Subscribed,
    decode_body,
    encode_body,
    encode_frame,
    event_frame,
    event_prefix,
    event_tail,
)
from engine.errors import BusError
from engine.messages import Message, StreamPosition

KeyOf = Callable[[Message], str | None]


class Overload(Enum):
    """What a stream does for a reader that is too slow."""

    MERGE = "merge"
    """Keep the newest event per key."""
    SKIP = "skip"
    """Drop the oldest, and tell the reader which."""
    CLOSE = "close"
    """Disconnect the reader; it comes back and replays from history."""


class History(Protocol):
    """The events that a stream keeps. An event is in it before it is published."""

    def first(self) -> int:
        """The oldest number kept; when none is kept, the number that comes next."""

    def last(self) -> int:
        """The newest number kept; 0 when there was never any."""

    def since(self, number: int, limit: int) -> list[tuple[int, bytes]]:
        """At most ``limit`` events after ``number``, ascending, each a number and an encoded body."""


class Stream:
    """A numbered stream of one publisher. Made by ``Bus.open_stream``."""

    def __init__(
        self,
        context: Context,
        name: str,
        *,
        overload: Overload,
        queue: int,
        history: History | None,
        incarnation: int,
        key_of: KeyOf | None,
    ) -> None:
        if queue < 1:
            raise ValueError(f"the queue of stream {name!r} must hold at least one event, not {queue}")
        self.name = name
        self.overload = overload
        self.queue = queue
        self.history = history
        self.incarnation = incarnation
        self.key_of = key_of
        self.last = history.last() if history is not None else 0
        self.on_readers: Callable[[], None] | None = None
        """Called when the first reader has come, and when the last has gone."""
        self._context = context
        self._outlets: dict[Outlet, None] = {}

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(incarnation=self.incarnation, number=self.last)

    @property
    def readers(self) -> int:
        return len(self._outlets)

    def publish(self, message: Message, key: str | None = None, number: int | None = None) -> int:
        """Send an event to all readers that want its key; returns its number.

        ``number`` comes from the history of a stream that keeps one, otherwise it is one above the last. A
        stream opened with ``key_of`` finds the key itself. Readers that asked for keys get events without a
        key as well. Raises ValueError for a number that does not rise and for a key that a replay could not
        tell again, BusError for a message above the frame limit.
        """
        if number is None:
            number = self.last + 1
        elif number <= self.last:
            raise ValueError(f"stream {self.name!r} is at {self.last}: it cannot publish {number}")
        if self.key_of is not None:
            key = self.key_of(message)
        elif key is not None and self.history is not None:
            raise ValueError(f"open stream {self.name!r} with key_of, so that replays filter by the same key")
        if self._outlets:
            body = encode_body(message)
            if len(body) + 64 > self._context.limits.max_frame:
                raise BusError(f"{type(message).__name__} of {len(body)} bytes is above the frame limit")
            tail = event_tail(number, body)
            self.last = number
            for outlet in list(self._outlets):
                outlet.offer(number, key, tail)
        else:
            self.last = number
        return number

    def attach(self, channel: Channel, request: Subscribe) -> Outlet:
        """Begin to serve a reader. Its ``start`` is to be sent before :meth:`Outlet.flush` is called."""
        outlet = Outlet(self._context, self, channel, request)
        self._outlets[outlet] = None
        if len(self._outlets) == 1 and self.on_readers is not None:
            self.on_readers()
        return outlet

    def detach(self, outlet: Outlet) -> None:
        known = outlet in self._outlets
        self._outlets.pop(outlet, None)
        if known and not self._outlets and self.on_readers is not None:
            self.on_readers()


class Outlet:
    """One reader of one stream: what it wants, what waits for it, and where its replay is."""

    def __init__(self, context: Context, stream: Stream, channel: Channel, request: Subscribe) -> None:
        self.id = request.id
        self.stream = stream
        self._context = context
        self._stats = context.stats
        self._channel = channel
        self._prefix = event_prefix(request.id)
        self._keys = None if request.keys is None else frozenset(request.keys)
        self._waiting: Waiting = MergedQueue(stream.queue) if stream.overload is Overload.MERGE else Queue()
        self._dropped: tuple[int, int] | None = None
        self._head_wanted = False
        self._replaying = False
        self._pump_booked = False
        self._closed = False
        self._cursor = stream.last
        self.start = self._begin(request)

    # ----------------------------------------------------------------------------------------------- position

    def _begin(self, request: Subscribe) -> Subscribed:
        stream, last = self.stream, self.stream.last
        changed = request.incarnation not in (None, 0, stream.incarnation)
        replay_from: int | None = None
        missed: tuple[int, int] | None = None
        if request.incarnation is not None:
            if changed or request.number > last:
                changed = True
                missed = (1, last) if last else None
            elif request.number < last:
                replay_from, missed = self._resume(request.number)
        if replay_from is not None:
            self._replaying = True
            self._cursor = replay_from - 1
        return Subscribed(
            id=self.id,
            incarnation=stream.incarnation,
            number=last,
            contiguous=stream.overload is not Overload.MERGE,
            incarnation_changed=changed,
            replay_from=replay_from,
            missed=missed,
        )

    def _resume(self, number: int) -> tuple[int | None, tuple[int, int] | None]:
        last, history = self.stream.last, self.stream.history
        first = history.first() if history is not None else last + 1
        missed = (number + 1, min(first - 1, last)) if first > number + 1 else None
        return (max(first, number + 1) if first <= last else None), missed

    # --------------------------------------------------------------------------------------------------- live

    def offer(self, number: int, key: str | None, tail: bytes) -> None:
        """A new event of the stream."""
        if self._replaying or (self._keys is not None and key is not None and key not in self._keys):
            return
        if self._channel.writable and not self._waiting:
            self._channel.send(event_frame(self._prefix, tail))
        else:
            self._keep(number, key, tail)

    def _keep(self, number: int, key: str | None, tail: bytes) -> None:
        stream = self.stream
        if stream.overload is Overload.MERGE:
            self._stats.merged += self._waiting.put(number, key, tail)
            return
        if len(self._waiting) >= stream.queue:
            if stream.overload is Overload.CLOSE:
                self._stats.closed_slow_readers += 1
                log.warning("slow_reader_closed", bus=self._context.name, stream=stream.name)
                stream.detach(self)
                self._channel.abort(f"too slow for stream {stream.name!r}")
                return
            dropped, _ = self._waiting.pop()
            self._stats.skipped += 1
            self._dropped = (self._dropped[0] if self._dropped else dropped, dropped)
        self._waiting.put(number, key, tail)

    def flush(self) -> None:
        """Send what waits, as far as the channel takes it."""
        channel, waiting = self._channel, self._waiting
        if self._dropped is not None and channel.writable:
            first, last = self._dropped
            self._dropped = None
            self._send(Skipped(self.id, first, last))
        while waiting and channel.writable:
            _, tail = waiting.pop()
            channel.send(event_frame(self._prefix, tail))
        if self._replaying:
            self.pump()
        elif self._head_wanted:
            self.head()

    @property
    def is_waiting(self) -> bool:
        """Whether live events wait for the reader."""
        return bool(self._waiting) or self._dropped is not None

    @property
    def keys(self) -> frozenset[str] | None:
        return self._keys

    def set_keys(self, keys: Iterable[str] | None) -> None:
        self._keys = None if keys is None else frozenset(keys)
        self.head()

    def head(self) -> None:
        """Tell, after all that waits, up to where the reader has everything it wants."""
        self._head_wanted = self._replaying or bool(self._waiting) or not self._channel.writable
        if not self._head_wanted:
            self._send(Head(self.id, self.stream.last))

    def close(self) -> None:
        """The reader is gone, or the stream has ended; the latter is for the session to tell."""
        self._closed = True
        self.stream.detach(self)

    # ------------------------------------------------------------------------------------------------- replay

    def pump(self) -> None:
        """Send the next batch of history, and book the one after it."""
        history = self.stream.history
        if history is None or not self._replaying or self._closed or not self._channel.writable:
            return
        batch = history.since(self._cursor, self._context.limits.replay_batch)
        sent_all = self._send_batch(batch)
        if self._cursor >= self.stream.last or not batch:
            self._replaying = False
            if self._head_wanted:
                self.head()
        elif sent_all and not self._pump_booked:
            self._pump_booked = True
            self._context.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pump_booked = False
        try:
            self.pump()
        except Exception:  # a history that fails costs the reader's link, and it asks again
            log.exception("replay_failed", bus=self._context.name, stream=self.stream.name)
            self._channel.abort(f"the history of {self.stream.name!r} failed")

    def _send_batch(self, batch: list[tuple[int, bytes]]) -> bool:
        last = self.stream.last
        for number, body in batch:
            if number > last:
                self._cursor = last
                break
            if not self._channel.writable:
                return False
            self._cursor = number
            if self._wants(body):
                self._stats.replayed += 1
                self._channel.send(event_frame(self._prefix, event_tail(number, body)))
        return True

    def _wants(self, body: bytes) -> bool:
        key_of = self.stream.key_of
        if self._keys is None or key_of is None:
            return True
        key = key_of(decode_body(body))
        return key is None or key in self._keys

    def _send(self, envelope: Envelope) -> None:
        self._channel.send(encode_frame(envelope))


class Waiting(Protocol):
    """Events kept for one reader, oldest first."""

    def __len__(self) -> int: ...

    def put(self, number: int, key: str | None, tail: bytes) -> int:
        """Returns how many older events gave way."""

    def pop(self) -> tuple[int, bytes]: ...


class Queue:
    """All events, as many as its user lets in."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: deque[tuple[int, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, number: int, key: str | None, tail: bytes) -> int:
        self._events.append((number, tail))
        return 0

    def pop(self) -> tuple[int, bytes]:
        return self._events.popleft()


class MergedQueue:
    """The newest event of each key, and of the ``limit`` keys that changed last."""

    __slots__ = ("_events", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: OrderedDict[str | None, tuple[int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, number: int, key: str | None, tail: bytes) -> int:
        gave_way = self._events.pop(key, None) is not None
        self._events[key] = (number, tail)
        if len(self._events) > self._limit:
            self._events.popitem(last=False)
            gave_way = True
        return int(gave_way)

    def pop(self) -> tuple[int, bytes]:
        return self._events.popitem(last=False)[1]
