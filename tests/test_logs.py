"""Logs: what is written where, that no secret gets out, and that nothing waits for a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from engine import logs
from engine.messages import LogLine

SECRET = "xK9/very+secret=value"


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logs.forget_secrets()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture
def actor(tmp_path: Path) -> Iterator[Any]:
    """A configured log: its lines as read back, and what was told to the supervisor."""

    class Configured:
        path = tmp_path / "logs" / "exchange.binance.main.jsonl"

        def __init__(self) -> None:
            self.told: list[LogLine] = []
            self.log = logs.configure_actor_logging(tmp_path, "exchange.binance.main", 3, self.told.append)

        def lines(self) -> list[dict[str, Any]]:
            return [json.loads(line) for line in self.path.read_text().splitlines()]

    configured = Configured()
    yield configured
    configured.log.close()


def test_an_event_is_one_json_line_in_the_actors_file(actor: Any) -> None:
    structlog.get_logger().info("order placed", pair="BTC-USDT", size=1)
    (line,) = actor.lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "actor": "exchange.binance.main",
        "pid": os.getpid(),
        "incarnation": 3,
        "event": "order placed",
        "pair": "BTC-USDT",
        "size": 1,
    }
    assert actor.path.stat().st_mode & 0o777 == 0o600


def test_warnings_are_told_to_the_supervisor_and_info_is_not(actor: Any) -> None:
    log = structlog.get_logger()
    log.debug("unseen")
    log.info("quiet")
    log.warning("loud", reason="x")
    try:
        raise ValueError("no\nway")
    except ValueError:
        log.exception("failed")
    assert [(line.level, line.event) for line in actor.told] == [("warning", "loud"), ("error", "failed")]
    assert actor.told[0].fields == {"reason": "x"}
    assert actor.told[1].fields == {"exception": "way"}
    assert [line["event"] for line in actor.lines()] == ["quiet", "loud", "failed"]
    assert "Traceback" in actor.lines()[2]["exception"]
    msgspec.msgpack.encode(actor.told)


def test_stdlib_warnings_and_uncaught_errors_come_here_too(actor: Any) -> None:
    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").info("unseen")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    first, second, third = actor.lines()
    assert (first["event"], first["logger"], first["level"]) == ("slow callback", "asyncio", "warning")
    assert (second["event"], second["level"]) == ("uncaught exception", "critical")
    assert third["thread"] == "worker"
    assert "ZeroDivisionError" in third["exception"]


def test_fields_named_like_the_logs_own_do_not_replace_them(actor: Any) -> None:
    structlog.get_logger().warning("x", actor="other", time=5, pid=1, incarnation=3)
    (line,) = actor.lines()
    assert (line["actor"], line["actor_"], line["time_"], line["pid_"]) == ("exchange.binance.main", "other", 5, 1)
    assert "incarnation_" not in line


def test_what_cannot_be_encoded_never_raises(actor: Any) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: dict[str, Any] = {}
    loop["self"] = loop
    log = structlog.get_logger()
    log.info("odd", big=2**80, raw=b"\xff\x00", nan=float("nan"), kind=int, many={1, 2}, none=None)
    log.info("rude", it=Rude())
    log.info("loop", it=loop)
    log.info("bad surrogate \ud800")
    assert len(actor.lines()) == 4
    assert actor.lines()[0]["big"] == str(2**80)
    assert "unreadable_fields" in actor.lines()[1]


# ---------------------------------------------------------------------------------------- redaction


def secrets_of_a_request() -> list[Any]:
    return [
        {"api_key": SECRET},
        {"headers": {"X-MBX-APIKEY": SECRET}},
        {"headers": [("X-MBX-APIKEY", "other-key-value")]},
        {"nested": [{"deep": {"Passphrase": "other-key-value"}}]},
        {"url": "https://api/x?symbol=A&signature=other-key-value&timestamp=1"},
        {"text": f"the venue said {SECRET}!"},
        {"body": '{"apiKey": "other-key-value", "secretKey":"other-key-value"}'},
        {"text": "Authorization: Bearer other-key-value"},
        {"text": "<CIMultiDict('X-MBX-APIKEY': 'other-key-value')>"},
        {"raw": SECRET.encode()},
        {"url": "https://api/x?k=xK9%2Fvery%2Bsecret%3Dvalue"},
        {"error": ValueError(f"bad key {SECRET}")},
        {SECRET: 1},
    ]


@pytest.mark.parametrize("fields", secrets_of_a_request())
def test_secrets_leave_through_no_field(actor: Any, fields: dict[str, Any]) -> None:
    logs.register_secret(SECRET)
    structlog.get_logger().warning("request failed", data=fields)
    for text in (actor.path.read_text(), repr(actor.told)):
        assert SECRET not in text
        assert "other-key-value" not in text
        assert "very%2Bsecret" not in text
        assert logs.REDACTED in text


def test_secrets_leave_through_no_event_text_and_no_traceback(actor: Any) -> None:
    logs.register_secret(SECRET)
    log = structlog.get_logger()
    log.warning(f"with {SECRET}")
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError("signature=abcdef1234") from error
    except RuntimeError:
        log.exception("failed")
    logging.getLogger("x").error("GET /x?signature=%s", "abcdef1234")
    text = actor.path.read_text() + repr(actor.told)
    assert SECRET not in text
    assert "abcdef1234" not in text


def test_what_is_no_secret_is_left_alone() -> None:
    text = "order BTC-USDT signed=1 tokens are 5: assign=3 design: ok"
    assert logs.redact_text(text) == text
    assert logs.redact({"client_order_id": "a-1", "api_key": None, "size": 3}) == {
        "client_order_id": "a-1",
        "api_key": None,
        "size": 3,
    }


def test_a_redacted_text_stays_as_it_is() -> None:
    once = logs.redact_text("signature=abc&x=1 apiKey: 'abc'")
    assert logs.redact_text(once) == once


def test_an_engines_secrets_are_kept_as_long_as_it_is() -> None:
    logs.register_secret("mine-from-before")
    with logs.own_secrets():
        logs.register_secret("only-in-between")
        assert "between" not in logs.redact_text("only-in-between and mine-from-before")
    assert logs.redact_text("only-in-between and mine-from-before") == f"only-in-between and {logs.REDACTED}"


def test_a_secret_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        logs.register_secret("abc")


# ------------------------------------------------------------------------------------------- the file


def test_a_file_that_grew_too_large_is_replaced_and_one_is_kept(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROTATE_BYTES", 2000)
    for number in range(50):
        structlog.get_logger().info("line", number=number)
    kept = actor.path.with_name(f"{actor.path.name}.1")
    old = [json.loads(line)["number"] for line in kept.read_text().splitlines()]
    new = [line["number"] for line in actor.lines()]
    assert old + new == list(range(old[0], 50))
    assert actor.path.stat().st_size <= 2000
    assert sorted(path.name for path in actor.path.parent.iterdir()) == [actor.path.name, kept.name]


def test_lines_that_cannot_be_written_are_counted(actor: Any) -> None:
    actor.log.close()
    structlog.get_logger().warning("lost")
    assert actor.log.lines_lost == 1
    assert [line.event for line in actor.told] == ["lost"]


# --------------------------------------------------------------------------------------- the terminal


def line(event: str = "order refused", level: str = "warning", **fields: Any) -> LogLine:
    return LogLine(
        actor="exchange.binance.main", level=level, event=event, time_ns=1_700_000_000_123_456_789, fields=fields
    )


def test_a_line_for_people() -> None:
    text = logs.format_line(line(pair="BTC-USDT", reason="halted"))
    clock, rest = text[:12], text[12:]
    assert clock.endswith(".123")
    assert rest == " WARN  exchange.binance.main  order refused  pair=BTC-USDT  reason=halted"
    assert "\x1b[33mWARN" in logs.format_line(line(), colour=True)


def test_a_line_for_people_is_one_line_and_no_command_to_the_terminal() -> None:
    text = logs.format_line(line("a\nb\x1b[2J", x="\r\x07", y=[1, {"z": "\x9b"}]))
    assert text.isprintable()


def test_the_terminal_gets_every_line_in_order() -> None:
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w") as stream:
        terminal = logs.configure_terminal_logging(stream)
        for number in range(100):
            terminal.show(line(str(number)))
        terminal.close()
        stream.close()
        assert [text.split()[3] for text in reader.read().splitlines()] == [str(n) for n in range(100)]


def test_a_stopped_terminal_holds_up_nobody_and_what_was_dropped_is_said() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as stream:
        terminal = logs.TerminalLog(stream, colour=False, limit=10)
        for number in range(2000):
            terminal.show(line(f"event-{number}"))
        terminal.close(timeout=0.05)
        seen = b""
        while b"lines were not shown" not in seen:
            seen += reader.read1(4096)
        terminal.close()
        assert b"event-0 " in seen or b"event-0\n" in seen


def test_a_stream_without_a_descriptor_is_refused() -> None:
    with pytest.raises(io.UnsupportedOperation):
        logs.configure_terminal_logging(io.StringIO())
