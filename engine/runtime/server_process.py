"""One fork server's process, as the runtime that started it sees it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from engine.runtime.processes import TOKEN_VARIABLE
from engine.runtime.protocol import Configure, ToRuntime, ToServer, receive_report, send

_KEPT: Final = frozenset(
    {
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LANG",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "NO_PROXY",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
_KEPT_PREFIXES: Final = ("LC_", "MALLOC_", "PYTHON")
_ONE_THREAD: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ServerProcess:
    """A started fork server: its process, its link and its pidfd. ``ready`` once it said so. ``returncode``, once it is
    closed: how it ended, below 0 if by a signal.

    It leads a session of its own, so that a terminal's signals pass it by, and knows of the environment only
    what is on a list: actors get their credentials in their specs, and nobody finds them in ``/proc``.
    """

    def __init__(self, configured: Configure, output: Path, extra_environment: Mapping[str, str]) -> None:
        self.token = secrets.token_hex(8)
        self.output = output
        self.ready = False
        self.returncode = 0
        self._alive = True
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own_pidfd = os.pidfd_open(os.getpid())
        try:
            self._process = self._start(theirs.fileno(), own_pidfd, extra_environment)
        except OSError:
            self.link.close()
            raise
        finally:
            theirs.close()
            os.close(own_pidfd)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.link.setblocking(False)
        self.send(configured)

    def send(self, message: ToServer, descriptors: tuple[int, ...] = ()) -> None:
        """Raises BlockingIOError when the link is full; a server that is dead shows by its pidfd alone."""
        try:
            send(self.link, message, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reports(self) -> Iterator[tuple[ToRuntime, list[int]] | None]:
        """What has arrived by now; None, as the last, at the end of the link."""
        while True:
            try:
                received = receive_report(self.link)
            except BlockingIOError:
                return
            yield received
            if received is None:
                return

    def kill(self) -> None:
        """End it at once; harms no actor."""
        if self._alive:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Reap the dead server and let go of it."""
        self.returncode = self._process.wait()
        self._alive = False
        os.close(self.pidfd)
        self.link.close()

    def _start(self, command: int, supervisor: int, extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
        descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.runtime.fork_server", str(command), str(supervisor)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=(command, supervisor),
                start_new_session=True,
                env={**_environment(), **extra, TOKEN_VARIABLE: self.token},
            )
        finally:
            os.close(descriptor)


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    for variable in _ONE_THREAD:
        kept[variable] = os.environ.get(variable, "1")
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
    return kept
