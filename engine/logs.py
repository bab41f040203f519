"""Logging: JSON lines in a file for each actor, one human line an event on the engine's terminal.

Every line passes :func:`redact` before it leaves the process, whoever wrote it. It takes out what stands
under a key that names a secret, every value given to :func:`register_secret`, and signatures and keys within
texts, tracebacks included.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import msgspec
import structlog

from engine.messages import LogLine

REDACTED = "[redacted]"
ROTATE_BYTES = 20_000_000
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SHORT = {"debug": "DEBUG", "info": "INFO ", "warning": "WARN ", "error": "ERROR", "critical": "FATAL"}
_COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "1;31"}

_log = structlog.get_logger()


def configure_actor_logging(
    state_dir: Path,
    actor: str,
    incarnation: int,
    send_line: Callable[[LogLine], None] | None,
    *,
    level: str = "info",
    send_level: str = "warning",
) -> ActorLog:
    """Send this process's structlog and stdlib logging to ``<state>/logs/<actor>.jsonl``.

    ``send_line`` is given every event of ``send_level`` and above, redacted, in the thread that logged it.
    Uncaught exceptions are logged too. May be called again, for another actor after a fork; the last call
    holds.
    """
    sink = _File(Path(state_dir) / "logs" / f"{actor}.jsonl")
    log = ActorLog(sink, actor, incarnation, send_line, _LEVELS[send_level])
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, log.process],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _route_stdlib()
    _route_uncaught()
    return log


def open_actor_log(
    state_dir: Path,
    actor: str,
    incarnation: int,
    send_line: Callable[[LogLine], None] | None,
    time_ns: Callable[[], int],
    *,
    send_level: str = "warning",
) -> ActorLog:
    """The log of one of several actors in this process; who writes to it is :func:`configure_shared_logging`'s."""
    sink = _File(Path(state_dir) / "logs" / f"{actor}.jsonl")
    return ActorLog(sink, actor, incarnation, send_line, _LEVELS[send_level], time_ns)


def configure_shared_logging(find: Callable[[], ActorLog | None], *, level: str = "info") -> None:
    """Send this process's structlog and stdlib logging to the log that ``find`` gives for whoever speaks now."""

    def process(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        log = find()
        return log.process(logger, method, event) if log is not None else ""

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, process],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _route_stdlib()


def configure_terminal_logging(stream: TextIO, *, colour: bool | None = None) -> TerminalLog:
    """A writer of human lines for ``stream``. Colour by default where the stream is a terminal."""
    if colour is None:
        colour = stream.isatty() and "NO_COLOR" not in os.environ
    return TerminalLog(stream, colour)


# -------------------------------------------------------------------------------------------- redaction

_SECRET_KEY = re.compile(
    r"api_?key|api_?secret|secret|signature|passphrase|password|passwd|token|private_?key|authorization|credential"
    r"|listen_?key|^sign$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"""(?P<key>\b(?:sign|[\w-]{0,24}(?:signature|api_?key|secret|passphrase|password|listen_?key|token|ok-access-
        |authorization)[\w-]{0,24})
        (?:["']\s*,\s*b?["']|["']?\s*[=:]\s*(?:b?["'])?)(?:(?:bearer|basic)\s+)?)
        (?!\[redacted)(?P<value>[^\s"'&,;)}\]]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_MIN_SECRET = 4
_secrets: set[str] = set()
_known_secrets: re.Pattern[str] | None = None


def register_secret(value: str) -> None:
    """Never let this value, nor its percent-encoded or escaped form, leave through a log of this process.

    Values shorter than four characters are refused with ValueError: they would blank out ordinary text.
    """
    if len(value) < _MIN_SECRET:
        raise ValueError(f"a secret has at least {_MIN_SECRET} characters; this one has {len(value)}")
    escaped = value.encode("unicode_escape").decode("ascii")
    forms = {value, value.strip(), quote(value, safe=""), quote_plus(value), escaped}
    forms |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 16}
    _know(_secrets | forms - {""})


def forget_secrets() -> None:
    """Empty the register of secrets."""
    _know(set())


@contextmanager
def own_secrets() -> Iterator[None]:
    """What is registered within is forgotten at the end: for many engines in one process, one after the other."""
    before = set(_secrets)
    try:
        yield
    finally:
        _know(before)


def _know(secrets: set[str]) -> None:
    global _known_secrets
    if secrets == _secrets:
        return
    _secrets.clear()
    _secrets.update(secrets)
    longest_first = sorted(_secrets, key=len, reverse=True)
    _known_secrets = re.compile("|".join(re.escape(secret) for secret in longest_first)) if secrets else None


def redact_text(text: str) -> str:
    """The text without registered secrets and without what follows a secret's name in it."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if _known_secrets is not None:
        text = _known_secrets.sub(REDACTED, text)
    return _SECRET_TEXT.sub(lambda match: match["key"] + REDACTED, text)


def redact(value: Any) -> Any:
    """The value as plain JSON-like data, without secrets. What is no plain data becomes its text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return redact_text(str(value))
    if isinstance(value, Mapping):
        return {redact_text(str(key)): _redact_item(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str):
        return [redact(value[0]), _redact_item(*value)]
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {name: _redact_item(name, getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes | bytearray | memoryview):
        return redact_text(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    return redact_text(str(value))


def _redact_item(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key.replace("-", "_")) and value not in (None, "", True, False):
        return REDACTED
    return redact(value)


# ------------------------------------------------------------------------------------------ actor's log


class ActorLog:
    """The end of an actor's logging: its file and the supervisor."""

    def __init__(
        self,
        sink: _File,
        actor: str,
        incarnation: int,
        send_line: Callable[[LogLine], None] | None,
        send_from: int,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sink = sink
        self._actor = actor
        self._incarnation = incarnation
        self._send_line = send_line
        self._send_from = send_from
        self._time_ns = time_ns

    @property
    def lines_lost(self) -> int:
        """Lines that could not be written (a full disk, say)."""
        return self._sink.lost

    def process(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """The last structlog processor: write the event; a logger never raises."""
        level = "error" if method == "exception" else "warning" if method == "warn" else method
        time_ns = self._time_ns()
        name, fields = _fields(event)
        line: dict[str, Any] = {
            "time": _iso(time_ns),
            "level": level,
            "actor": self._actor,
            "pid": os.getpid(),
            "incarnation": self._incarnation,
            "event": name,
        }
        for key, value in fields.items():
            if key not in line:
                line[key] = value
            elif line[key] != value:
                line[f"{key}_"] = value
        self._sink.write(msgspec.json.encode(line) + b"\n")
        if self._send_line is not None and _LEVELS[level] >= self._send_from:
            self._send_line(LogLine(actor=self._actor, level=level, event=name, time_ns=time_ns, fields=_told(fields)))
        return ""

    def close(self) -> None:
        """Close the file. Later events are lost, and counted."""
        self._sink.close()


def _fields(event: MutableMapping[str, Any]) -> tuple[str, dict[str, Any]]:
    trace = _trace(event.pop("exc_info", None))
    name = redact_text(str(event.pop("event", "")))
    try:
        fields: dict[str, Any] = redact(event)
    except Exception as error:
        fields = {"unreadable_fields": f"{sorted(event)}: {type(error).__name__}"}
    if trace:
        fields["exception"] = redact_text(trace)
    return name, fields


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they go to the supervisor: of a traceback, its last line."""
    trace = fields.get("exception")
    if not isinstance(trace, str):
        return fields
    return {**fields, "exception": trace.strip().rpartition("\n")[2].strip()}


def _trace(exc_info: Any) -> str:
    if not exc_info:
        return ""
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    return "".join(traceback.format_exception(*exc_info)) if exc_info[0] is not None else ""


def _iso(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


class _File:
    """An append-only file of lines; past :data:`ROTATE_BYTES` it becomes ``<name>.1`` and another begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._size = 0
        self.lost = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd: int | None = self._open()

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._fd is None:
                self.lost += 1
                return
            try:
                if self._size and self._size + len(line) > ROTATE_BYTES:
                    self._rotate(self._fd)
                self._size += os.write(self._fd, line)
            except OSError:
                self.lost += 1

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(fd).st_size
        return fd

    def _rotate(self, old: int) -> None:
        os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        self._fd = self._open()
        os.close(old)


# ------------------------------------------------------------------------------- other ways to speak up


class _StdlibHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as error:
            text = f"{record.msg} ({error})"
        level = "critical" if record.levelno >= 50 else "error" if record.levelno >= 40 else "warning"
        getattr(_log, level)(text, logger=record.name, exc_info=record.exc_info)


def _route_stdlib() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _StdlibHandler):
            root.removeHandler(handler)
    root.addHandler(_StdlibHandler(logging.WARNING))
    root.setLevel(logging.WARNING)


def _route_uncaught() -> None:
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        thread = args.thread.name if args.thread else ""
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        _log.critical("uncaught exception", thread=thread, exc_info=info)


# --------------------------------------------------------------------------------------------- terminal


class TerminalLog:
    """Writes lines from its own thread, through a bounded queue: a stopped terminal holds up nobody.

    What does not fit into the queue is dropped and counted, and the count is shown when lines flow again.
    """

    def __init__(self, stream: TextIO, colour: bool, limit: int = 2000) -> None:
        self._fd = stream.fileno()
        self._colour = colour
        self._queue: queue.Queue[LogLine | None] = queue.Queue(limit)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="terminal-log", daemon=True)
        self._thread.start()

    def show(self, line: LogLine) -> None:
        """Queue a line; never waits."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued, then end; gives up after ``timeout`` seconds without progress."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            text = format_line(line, self._colour)
            if dropped:
                text += f"\n  … {dropped} lines were not shown"
            try:
                self._write(f"{text}\n")
            except (OSError, ValueError):
                return

    def _write(self, text: str) -> None:
        # Past the stream's own buffer: a thread held up by a stopped terminal must not hold the buffer's
        # lock, which the interpreter takes when it exits.
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._fd, data) :]


def format_line(line: LogLine, colour: bool = False) -> str:
    """``12:01:03.123 WARN  exchange.binance.main  order refused  pair=BTC-USDT``, in local time."""
    seconds, rest = divmod(line.time_ns, 1_000_000_000)
    clock = f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{rest // 1_000_000:03d}"
    level = _SHORT.get(line.level, line.level.upper()[:5].ljust(5))
    fields = "  ".join(f"{key}={_plain(value)}" for key, value in line.fields.items() if value != "")
    if colour:
        level = f"\x1b[{_COLOURS.get(line.level, '0')}m{level}\x1b[0m"
        clock, fields = f"\x1b[2m{clock}\x1b[0m", fields and f"\x1b[2m{fields}\x1b[0m"
    text = f"{clock} {level} {line.actor}  {_plain(line.event)}"
    return f"{text}  {fields}" if fields else text


def _plain(value: Any) -> str:
    """On one line, without anything that a terminal would take as a command."""
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)
