"""The message bus: numbered streams, requests, commands and tells, over sockets or in memory."""

from engine.bus.bus import Bus
from engine.bus.context import Limits, PeerEvent
from engine.bus.endpoints import (
    Directory,
    Endpoint,
    MemoryEndpoint,
    RunDirectory,
    TcpEndpoint,
    UnixEndpoint,
)
from engine.bus.memory import MemoryBus, MemoryNetwork
from engine.bus.names import NameLock
from engine.bus.serving import Caller
from engine.bus.sockets import SocketBus
from engine.bus.streams import History, Overload, Stream
from engine.bus.subscription import Down, Gap, Subscription, SubscriptionState, Up

__all__ = [
    "Bus",
    "Caller",
    "Directory",
    "Down",
    "Endpoint",
    "Gap",
    "History",
    "Limits",
    "MemoryBus",
    "MemoryEndpoint",
    "MemoryNetwork",
    "NameLock",
    "Overload",
    "PeerEvent",
    "RunDirectory",
    "SocketBus",
    "Stream",
    "Subscription",
    "SubscriptionState",
    "TcpEndpoint",
    "UnixEndpoint",
    "Up",
]
