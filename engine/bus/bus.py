"""The bus as an actor sees it: streams out, subscriptions in, requests, commands and tells both ways."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from engine.bus.context import Context, Limits, PeerEvent, Timer
from engine.bus.endpoints import Directory, Endpoint
from engine.bus.link import Link
from engine.bus.peer import Peer, PeerLoop
from engine.bus.serving import Handler, Server, ServerSession
from engine.bus.streams import History, KeyOf, Overload, Stream
from engine.bus.subscription import EventHandler, StateHandler, Subscription
from engine.clock import Clock
from engine.errors import BusError
from engine.messages import Message, StreamPosition

ANSWER_GRACE = 1.0
"""How much longer than a command's expiry its sender waits for the answer, in seconds."""


class Bus(ABC):
    """One actor's end of the bus. All of it belongs to one event loop.

    Order holds within a stream, and within what one actor asks and tells another; not between the two.
    """

    def __init__(
        self,
        name: str,
        incarnation: int,
        directory: Directory,
        *,
        clock: Clock,
        engine_id: str,
        host: str,
        limits: Limits,
        rng: random.Random,
    ) -> None:
        self._context = Context(
            name=name,
            incarnation=incarnation,
            engine_id=engine_id,
            host=host,
            clock=clock,
            limits=limits,
            rng=rng,
            call_soon=_call_soon,
            call_later=_call_later,
        )
        self._directory = directory
        self._server = Server(self._context)
        self._peers: dict[str, PeerLoop] = {}
        self._links: dict[Link, None] = {}
        self._unwatch: Callable[[], None] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self._context.name

    @property
    def incarnation(self) -> int:
        return self._context.incarnation

    @property
    def addresses(self) -> tuple[str, str]:
        """Where it listens for its own host, a path, and for others, HOST:PORT; empty where it does not."""
        return "", ""

    async def start(self) -> None:
        """Take the name and listen under it. Raises NameTaken when another living actor holds it."""
        await self._listen()

    async def close(self) -> None:
        """Let peers take what was written, close everything and give the name back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._stop_listening()
        if self._unwatch is not None:
            self._unwatch()
        await self._server.close()
        for session in list(self._server.sessions):
            session.end()
        await asyncio.gather(*(loop.close() for loop in self._peers.values()))
        await self._settle()
        await self._release()

    # ------------------------------------------------------------------------------------------------ streams

    def open_stream(
        self,
        name: str,
        *,
        overload: Overload,
        queue: int = 1024,
        history: History | None = None,
        incarnation: int | None = None,
        key_of: KeyOf | None = None,
    ) -> Stream:
        """Begin a stream; ``queue`` bounds what waits for each slow reader, in events.

        With ``history`` the stream goes on from its last number, usually under the journal's own
        ``incarnation`` (default: the bus's). ``key_of`` finds the key of an event, also of a replayed one.
        Subscribers that asked before it was open get it now. Raises ValueError when a stream of that name is
        open.
        """
        stream = Stream(
            self._context,
            name,
            overload=overload,
            queue=queue,
            history=history,
            incarnation=self.incarnation if incarnation is None else incarnation,
            key_of=key_of,
        )
        self._server.opened(stream)
        return stream

    def close_stream(self, stream: Stream) -> None:
        """End a stream. Its readers go Down, and Up again when one of its name is opened."""
        self._server.closed(stream)

    def positions(self) -> dict[str, StreamPosition]:
        """Where each open stream stands, for the answer to a tick."""
        return {name: stream.position for name, stream in self._server.streams.items()}

    def subscribe(
        self,
        peer: str,
        stream: str,
        handler: EventHandler,
        keys: Iterable[str] | None = None,
        position: StreamPosition | None = None,
        on_state: StateHandler | None = None,
    ) -> Subscription:
        """Read ``stream`` of ``peer`` until the subscription is closed, through any number of its lives.

        ``handler(message, number)`` is called for each event; ``keys`` are filtered at the publisher. Reading
        begins now, or after ``position`` as far as the stream keeps history; incarnation 0 in it stands for
        whichever the publisher has. ``on_state`` is told :class:`Up`, :class:`Down` and :class:`Gap`. Raises
        ConfigError for a peer that can never be reached.
        """
        return self._peer(peer).subscribe(stream, handler, keys, position, on_state)

    # ----------------------------------------------------------------------------------------------- messages

    async def request(self, peer: str, message: Message, timeout: float = 1.0) -> Message:
        """Ask, and wait for the answer.

        Raises PeerLost when the link ended before it or the peer could not be reached, RequestTimeout when no
        answer came in ``timeout`` seconds, RemoteError when the peer could not answer, ProtocolMismatch when
        the two do not speak the same protocol.
        """
        return await self._peer(peer).request(message, timeout)

    async def command(
        self,
        peer: str,
        message: Message,
        *,
        command_id: str,
        expires_in: float = 1.0,
        to_incarnation: int | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Ask for something that must not be done late, or by another incarnation than ``to_incarnation``.

        The answer is the peer's, or ``Refused`` by its bus (EXPIRED, OTHER_INCARNATION, OVERLOADED,
        NOT_READY) or by this one (NOT_SENT, OVERLOADED): then it was not done and never will be. Raises like
        :meth:`request`, and then nothing is known: ask for the fate of ``command_id``. ``timeout`` is by
        default one second longer than ``expires_in``.
        """
        if timeout is None:
            timeout = expires_in + ANSWER_GRACE
        return await self._peer(peer).command(message, command_id, expires_in, to_incarnation, timeout)

    def command_soon(
        self,
        peer: str,
        message: Message,
        settle: Callable[[Message | BusError], None],
        *,
        command_id: str,
        expires_in: float = 1.0,
        to_incarnation: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """The same in this very call, without a task: ``settle`` is called once, later, with the answer or the error.

        It must not raise. What stands in the way from the start is raised here.
        """
        if timeout is None:
            timeout = expires_in + ANSWER_GRACE
        self._peer(peer).command_soon(message, command_id, expires_in, to_incarnation, timeout, settle)

    def tell(self, peer: str, message: Message) -> bool:
        """Send and forget. False when it was dropped: too many wait for that peer, or this bus is closed."""
        if self._closed:
            self._context.stats.dropped_tells += 1
            return False
        return self._peer(peer).tell(message)

    def serve(self, handler: Handler) -> None:
        """Answer requests, commands and tells with ``handler(caller, message)``.

        It returns the answer, an awaitable of it, or None for a tell. An exception is logged, and RemoteError
        at the caller.
        """
        self._server.handler = handler

    # -------------------------------------------------------------------------------------------------- peers

    def on_peer(self, callback: Callable[[PeerEvent], None]) -> None:
        """Be told when an incarnation of any actor connects, in either direction, or its last link closes."""
        self._context.registry.on_event(callback)

    def peer_incarnation(self, name: str) -> int | None:
        """The incarnation of ``name`` that connected last; None when no link with it is up."""
        return self._context.registry.incarnation(name)

    def stats(self) -> dict[str, int]:
        """Counters since the start: frames and bytes both ways, and all that was dropped or refused."""
        return self._context.stats.as_dict()

    # ---------------------------------------------------------------------------------------- for a transport

    @abstractmethod
    async def _listen(self) -> None: ...

    @abstractmethod
    async def _stop_listening(self) -> None: ...

    @abstractmethod
    async def _release(self) -> None:
        """Give the name back, after all links are closed."""

    @abstractmethod
    async def _connect(self, endpoint: Endpoint, make: Callable[[], Link]) -> Link:
        """Raises OSError when nobody answers there."""

    def _accept(self) -> Link:
        """The link of a new caller."""
        return Link(ServerSession(self._server), self._context, self._track)

    # ------------------------------------------------------------------------------------------------ private

    def _track(self, link: Link) -> None:
        """A caller's connection is there. One that was taken just before the bus closed is there after it: whoever
        called must not wait for streams that this bus will never open.
        """
        self._links[link] = None
        link.done.add_done_callback(lambda _: self._links.pop(link, None))
        if self._closed:
            link.abort("the bus is closed")

    async def _settle(self) -> None:
        """Wait for callers to take what was written; cut off those that do not."""
        if not self._links:
            return
        _, late = await asyncio.wait([link.done for link in self._links], timeout=self._context.limits.close_grace)
        if late:
            links = list(self._links)
            for link in links:
                link.abort("closed by this side")
            await asyncio.wait([link.done for link in links])

    def _peer(self, name: str) -> Peer:
        if self._closed:
            raise BusError(f"bus {self.name!r} is closed")
        loop = self._peers.get(name)
        if loop is None:
            if self._unwatch is None:
                self._unwatch = self._directory.watch(self._changed)
            loop = self._peers[name] = PeerLoop(self._context, name, self._directory, self._connect)
        return loop.peer

    def _changed(self, name: str) -> None:
        loop = self._peers.get(name)
        if loop is not None:
            loop.changed()


def _call_soon(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(callback)


def _call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, callback)
