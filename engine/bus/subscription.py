"""The reader's end of a stream: contiguity, position, and what it is told of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from engine.bus.context import Context, log
from engine.bus.wire import (
    Envelope,
    Event,
    Head,
    Probe,
    SetKeys,
    Skipped,
    Subscribe,
    Subscribed,
    Unsubscribe,
    decode_body,
)
from engine.messages import Message, StreamPosition


@dataclass(frozen=True, slots=True)
class Up:
    """The stream is being read.

    ``start`` is where it stood. Events follow from ``replayed_from`` if the history reaches back, else from
    after ``start``. ``missed`` (first, last) will not come. ``incarnation_changed``: the position asked for
    was of another incarnation, or ahead of the stream; state folded from the old one does not carry over.
    """

    start: StreamPosition
    replayed_from: int | None
    missed: tuple[int, int] | None
    incarnation_changed: bool


@dataclass(frozen=True, slots=True)
class Down:
    """The publisher is gone, or closed the stream; the subscription comes back by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Events ``from_`` … ``to`` of a live stream did not come and will not."""

    from_: int
    to: int


SubscriptionState = Up | Down | Gap
EventHandler = Callable[[Message, int], object]
StateHandler = Callable[[SubscriptionState], object]


class Subscription:
    """One stream of one peer, read for ever. Made by ``Bus.subscribe``."""

    def __init__(
        self,
        context: Context,
        send: Callable[[Envelope], None],
        forget: Callable[[Subscription], None],
        *,
        id: int,
        peer: str,
        stream: str,
        handler: EventHandler,
        keys: Iterable[str] | None,
        position: StreamPosition | None,
        on_state: StateHandler | None,
    ) -> None:
        self.id = id
        self.peer = peer
        self.stream = stream
        self._context = context
        self._stats = context.stats
        self._send = send
        self._forget = forget
        self._handler = handler
        self._on_state = on_state
        self._keys = None if keys is None else frozenset(keys)
        self._incarnation = None if position is None else position.incarnation
        self._number = 0 if position is None else position.number
        self._up = False
        self._contiguous = False
        self._heads_due = 0
        self._probing = False
        self._closed = False

    @property
    def position(self) -> StreamPosition | None:
        """The last event seen; None before the stream was first up."""
        if self._incarnation is None:
            return None
        return StreamPosition(incarnation=self._incarnation, number=self._number)

    @property
    def is_up(self) -> bool:
        return self._up

    def set_keys(self, keys: Iterable[str] | None) -> None:
        """Read only events of these keys, or all (None), from now on."""
        self._keys = None if keys is None else frozenset(keys)
        if not self._closed:
            self._heads_due += 1
            self._send(SetKeys(self.id, self._key_list()))

    def check(self, position: StreamPosition) -> bool:
        """Whether everything up to ``position``, as the publisher told it elsewhere, has been seen.

        When not, the publisher is asked, in order with its events: what then turns out to be lost is told as
        a :class:`Gap`.
        """
        if not self._up or self._incarnation is None:
            return False
        if position.incarnation != self._incarnation:
            return position.incarnation < self._incarnation
        if position.number <= self._number:
            return True
        if not self._probing:
            self._probing = True
            self._send(Probe(self.id))
        return False

    def close(self) -> None:
        """Read no more."""
        if not self._closed:
            self._closed = True
            self._send(Unsubscribe(self.id))
            self._forget(self)

    # ------------------------------------------------------------------------------------------- for the peer

    def request(self) -> Subscribe:
        """How to begin, or to go on, on a new link."""
        self._heads_due = 0
        self._probing = False
        return Subscribe(self.id, self.stream, self._key_list(), self._incarnation, self._number)

    def started(self, start: Subscribed) -> None:
        self._incarnation = start.incarnation
        self._number = start.number if start.replay_from is None else start.replay_from - 1
        self._contiguous = start.contiguous
        self._up = True
        self._tell(
            Up(
                StreamPosition(incarnation=start.incarnation, number=start.number),
                start.replay_from,
                start.missed,
                start.incarnation_changed,
            )
        )

    def event(self, event: Event) -> None:
        number = event.number
        if number != self._number + 1:
            if number <= self._number:
                self._stats.duplicates += 1
                return
            if self._strict():
                self._gap(self._number + 1, number - 1)
        self._number = number
        try:
            message = decode_body(event.body)
        except msgspec.DecodeError as error:
            self._stats.unknown_bodies += 1
            log.error("unknown_body", bus=self._context.name, stream=self.stream, detail=str(error))
            return
        if self._closed:
            return
        try:
            self._handler(message, number)
        except Exception:  # logged and counted: an actor that cannot go on ends itself by its context
            self._stats.handler_errors += 1
            log.exception("event_handler_failed", bus=self._context.name, stream=self.stream, number=number)

    def skipped(self, skipped: Skipped) -> None:
        if skipped.last > self._number:
            self._number = skipped.last
            self._gap(skipped.first, skipped.last)

    def head(self, head: Head) -> None:
        self._probing = False
        strict = self._strict()
        self._heads_due = max(0, self._heads_due - 1)
        if head.number > self._number:
            first, self._number = self._number + 1, head.number
            if strict:
                self._gap(first, head.number)

    def down(self, reason: str) -> None:
        if self._up:
            self._up = False
            self._tell(Down(reason))

    def rejected(self, reason: str) -> None:
        self._tell(Down(reason))

    # ------------------------------------------------------------------------------------------------ private

    def _strict(self) -> bool:
        """Whether every number must come: nothing is merged or filtered, and the publisher knows it."""
        return self._contiguous and self._keys is None and self._heads_due == 0

    def _gap(self, first: int, last: int) -> None:
        self._stats.gaps += 1
        self._tell(Gap(first, last))

    def _tell(self, state: SubscriptionState) -> None:
        if self._on_state is None or self._closed:
            return
        try:
            self._on_state(state)
        except Exception:  # logged and counted, as for an event
            self._stats.handler_errors += 1
            log.exception("state_handler_failed", bus=self._context.name, stream=self.stream)

    def _key_list(self) -> list[str] | None:
        return None if self._keys is None else sorted(self._keys)
