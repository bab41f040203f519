"""The user-stream actor: an account's private events, passed on as they come. It keeps nothing."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from engine.actors.base import Actor, ActorContext
from engine.actors.settings import connector_of
from engine.bus import Overload
from engine.connectors.base import (
    ConnectionPlan,
    Send,
    UserDataProtocol,
    UserRefused,
    UserSubscribed,
    UserTerminated,
    VenueNotice,
)
from engine.connectors.errors import MalformedFrame
from engine.connectors.reconnecting import ReconnectingWebSocket
from engine.connectors.websocket import WebSocketOptions
from engine.messages import (
    NetworkStatus,
    StopActor,
    Tick,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)

ANSWER_WITHIN_S: Final = 9.0
"""A subscription that the venue has not answered by then is asked for on another connection. Less than a connection has
to last to count as stable, so that a venue which never answers is asked ever more seldom.
"""


class UserStreamActor(Actor):
    """Holds the private subscription of one account and publishes what it brings on the ``events`` stream.

    :class:`UserStreamState` says when the subscription came up (the moment to reconcile) or went down, and is repeated
    with every tick for listeners that came later. A listener too slow for the stream is cut off and reconciles.

    Params: ``settings``.
    """

    kind: ClassVar[str] = "user_stream"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.connector = connector_of(context.params)
        self.client = self.connector.public(self.clock)
        self.events = context.bus.open_stream("events", overload=Overload.CLOSE, queue=10_000)
        self.protocol: UserDataProtocol | None = None
        self.subscribed = False
        self.closing = False
        self.session = context.incarnation
        habits = self.connector.user_data()
        self.socket = ReconnectingWebSocket(
            self._plan,
            self,
            options=WebSocketOptions(ca=self.connector.settings.options.get("ca"), ping_every_s=20.0),
            silence_s=habits.silence_after_s,
            keepalive=habits.keepalive,
            on_failed=self._failed,
            monotonic_ns=self.clock.monotonic_ns,
        )

    async def start(self) -> dict[str, Any]:
        self.metrics.network = NetworkStatus.CONNECTING
        self.socket.start()
        return {}

    async def stop(self, order: StopActor) -> None:
        self.closing = True
        await self.socket.close()
        await self.client.close()

    async def dead_man(self, grace_s: float) -> None:
        await self.stop(StopActor(grace_ns=0))

    def on_tick(self, tick: Tick) -> None:
        self._tell_state("")

    def collect(self) -> None:
        self.metrics.counters["connects"] = self.socket.connects

    async def _plan(self) -> ConnectionPlan:
        """A fresh protocol and a fresh signature for each connection, dated on the venue's clock. While the venue wants
        silence there is none.
        """
        await self.client.start()
        await self.client.admit_stream()
        self.protocol = self.connector.user_data()
        opening = self.protocol.opening(self.client.time.now_ms())
        return ConnectionPlan(url=self.protocol.url, opening=tuple(opening))

    def _failed(self, error: str, delay_s: float) -> None:
        self.metrics.network = NetworkStatus.DOWN
        self.metrics.count("connect_failures")
        self.log.warning("user stream not connected", error=error, again_in_s=round(delay_s, 2))

    # --------------------------------------------------------------------------------------- what the socket brings

    def on_open(self) -> None:
        self.log.info("user stream open: subscribing")
        self.context.run(self._expect_answer(self.socket.connects), "subscription")

    async def _expect_answer(self, connection: int) -> None:
        """A venue that takes a connection and answers its keep-alive, but not the subscription, is left for another
        connection: nothing else would show that no event will come.
        """
        await asyncio.sleep(ANSWER_WITHIN_S)
        if self.subscribed or not self.socket.is_open or self.socket.connects != connection:
            return
        self.log.warning("the venue does not answer the subscription", after_s=ANSWER_WITHIN_S)
        self.socket.restart("no answer to the subscription")

    def on_close(self, reason: str) -> None:
        if self.closing:
            return
        self.metrics.network = NetworkStatus.DOWN
        self.log.warning("user stream closed", reason=reason)
        self.subscribed = False
        self._tell_state(reason)

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        assert self.protocol is not None
        try:
            events = self.protocol.feed(data)
        except MalformedFrame as error:
            self.metrics.count("unparsed")
            self.log.error("a frame of the user stream could not be read: starting over", error=str(error))
            self.socket.restart("malformed frame")
            return
        for event in events:
            self._handle(event)

    def _handle(self, event: Any) -> None:
        match event:
            case VenueOrderUpdate() | VenueBalanceUpdate():
                self.metrics.count("events")
                self.events.publish(event)
            case UserSubscribed():
                self.subscribed = True
                self.session += 1
                self.metrics.network = NetworkStatus.CONNECTED
                self.log.info("user stream subscribed", session=self.session)
                self._tell_state("")
            case UserRefused(reason=reason, clock=clock, silence_s=silence_s):
                self.log.error("the venue refused the user stream", reason=reason)
                if clock:
                    self.client.time.forget()
                if silence_s:
                    self.client.silence(silence_s)
                self.socket.restart(f"refused: {reason}")
            case UserTerminated(reason=reason):
                self.socket.restart(f"terminated by the venue: {reason}")
            case Send(text=text):
                self.socket.send(text)
            case VenueNotice(code=code, text=text, reconnect=reconnect):
                self.log.warning("the venue says", code=code, text=text)
                if reconnect:
                    self.socket.restart(text)

    def _tell_state(self, detail: str) -> None:
        self.events.publish(UserStreamState(connected=self.subscribed, session=self.session, detail=detail))
