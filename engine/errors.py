"""The engine's error tree.

::

    EngineError
    ├── ConfigError               the configuration or command line is wrong (exit code 2)
    ├── BusError
    │   ├── PeerLost              the other end is gone; nothing is known about what was in flight
    │   ├── RequestTimeout        no answer in time; nothing is known about what was asked
    │   ├── RemoteError           the other end answered with an error
    │   ├── ProtocolMismatch      a newer major version, or not this engine
    │   └── NameTaken             another process holds the actor's name
    ├── RuntimeFailure            a process could not be started, watched or ended
    │   └── NoHost                no host that an actor may run on is there, for now
    ├── JournalError              an account's journal could not be opened, read or written
    ├── BookError                 an order book was asked for something it cannot answer exactly
    ├── StrategyError             a strategy did what no handler may do
    └── VenueError                what a venue said, or did not say (see ``engine.connectors.errors``)

Each message says what was wrong, with which value, and what to do about it.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class ConfigError(EngineError):
    """The configuration or the command line is wrong; the engine did not start."""


class BusError(EngineError):
    """Base of the errors of talking to another actor."""


class PeerLost(BusError):
    """The connection to the peer closed before it answered."""


class RequestTimeout(BusError):
    """The peer did not answer in time. What was asked may or may not have been done."""


class RemoteError(BusError):
    """The peer handled the request and answered with an error."""


class ProtocolMismatch(BusError):
    """The peer speaks a newer major version of the protocol or belongs to another engine."""


class NameTaken(BusError):
    """Another living process holds this actor's name."""


class RuntimeFailure(EngineError):
    """A process could not be started, watched or ended."""


class NoHost(RuntimeFailure):
    """No host that the actor may run on is a living part of the cluster. One may come back."""


class JournalError(EngineError):
    """A journal could not be opened, read or written."""


class BookError(EngineError):
    """A book was asked for something it cannot answer exactly."""


class StrategyError(EngineError):
    """A strategy did what no handler may do."""


class VenueError(EngineError):
    """What a venue said, or did not say."""
