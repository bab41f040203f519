"""An exchange actor in a process of its own, that stops itself between its look at the lease and the wire when told to.

``python fenced_host.py TRIGGER`` with the actor's spec as MessagePack on standard input. The first order that is about
to be written once the file TRIGGER is there stops the process, as SIGSTOP from outside would at that very instant.
"""

import os
import signal
import sys
from pathlib import Path

import msgspec

from engine.actors.process import main
from engine.connectors.reconnecting import ReconnectingWebSocket
from engine.runtime.base import ActorSpec
from engine.runtime.watch import PIDFD_VARIABLE

TRIGGER = Path(sys.argv[1])
write = ReconnectingWebSocket.send


def stopped_before(self: ReconnectingWebSocket, text: str) -> None:
    if '"order.place"' in text and TRIGGER.exists():
        TRIGGER.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
    write(self, text)


ReconnectingWebSocket.send = stopped_before  # type: ignore[method-assign]
os.environ[PIDFD_VARIABLE] = str(os.pidfd_open(os.getppid()))
sys.exit(main(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ActorSpec)))
