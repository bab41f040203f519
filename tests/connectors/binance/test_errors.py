from __future__ import annotations

import json

import pytest

from engine.connectors import errors
from engine.connectors.binance.errors import classify, from_code, reject_reason
from engine.errors import VenueError
from engine.messages import Reason


def body(code: int, text: str) -> bytes:
    return json.dumps({"code": code, "msg": text}).encode()


@pytest.mark.parametrize(
    ("code", "text", "kind", "reason"),
    [
        (-2013, "Order does not exist.", errors.OrderNotFound, Reason.NOT_FOUND),
        (-2011, "Unknown order sent.", errors.OrderNotFound, Reason.NOT_FOUND),
        (-2026, "Order was archived.", errors.OrderNotFound, Reason.NOT_FOUND),
        (-2011, "Market is closed.", errors.VenueRefused, Reason.VENUE_REFUSED),
        (
            -2010,
            "Account has insufficient balance for requested action.",
            errors.InsufficientBalance,
            Reason.INSUFFICIENT_BALANCE,
        ),
        (-2010, "Duplicate order sent.", errors.DuplicateOrderId, Reason.DUPLICATE_ID),
        (-2010, "Order would immediately match and take.", errors.WouldCross, Reason.WOULD_CROSS),
        (-2010, "Market is closed.", errors.VenueRefused, Reason.VENUE_REFUSED),
        (-1013, "Filter failure: NOTIONAL", errors.FilterFailure, Reason.VENUE_REFUSED),
        (-1013, "Filter failure: MIN_NOTIONAL", errors.FilterFailure, Reason.BELOW_MIN_NOTIONAL),
        (-1013, "Filter failure: LOT_SIZE", errors.FilterFailure, Reason.VENUE_REFUSED),
        (-1111, "Parameter 'price' has too much precision.", errors.FilterFailure, Reason.VENUE_REFUSED),
        (-1121, "Invalid symbol.", errors.VenueRefused, Reason.UNKNOWN_PAIR),
        (-1021, "Timestamp for this request is outside of the recvWindow.", errors.ClockError, Reason.VENUE_REFUSED),
        (-1022, "Signature for this request is not valid.", errors.AuthError, Reason.VENUE_REFUSED),
        (-2014, "API-key format invalid.", errors.AuthError, Reason.VENUE_REFUSED),
        (-2015, "Invalid API-key, IP, or permissions for action.", errors.AuthError, Reason.VENUE_REFUSED),
        (-1102, "Mandatory parameter missing.", errors.VenueRefused, Reason.VENUE_REFUSED),
    ],
)
def test_refusals(code: int, text: str, kind: type[errors.VenueRefused], reason: Reason) -> None:
    error = classify(400, {}, body(code, text))
    assert type(error) is kind
    assert isinstance(error, errors.VenueRefused)
    assert (error.code, error.text, error.reason) == (code, text, reason)
    assert errors.was_refused(error)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (503, body(-1008, "Server is currently overloaded")),
        (503, b"Unknown error, please check your request or try again later."),
        (500, body(-1000, "An unknown error occurred while processing the request.")),
        (502, b"<html>bad gateway</html>"),
        (504, b""),
        (400, body(-1006, "An unexpected response was received from the message bus. Execution status unknown.")),
        (400, body(-1007, "Timeout waiting for response from backend server.")),
        (400, body(-1001, "Internal error; unable to process your request.")),
        (408, b""),
        (408, body(-1007, "Timeout waiting for response from backend server.")),
    ],
)
def test_W1_F24_what_leaves_the_outcome_open(status: int, answer: bytes) -> None:
    error = classify(status, {}, answer)
    assert type(error) is errors.UnknownOutcome
    assert not errors.was_refused(error)


@pytest.mark.parametrize(
    ("status", "headers", "answer", "kind", "wait"),
    [
        (429, {"Retry-After": "7"}, body(-1003, "Too many requests"), errors.RateLimited, 7),
        (429, {}, body(-1015, "Too many new orders"), errors.RateLimited, 10),
        (429, {"Retry-After": "soon"}, b"", errors.RateLimited, 10),
        (429, {"Retry-After": "inf"}, b"", errors.RateLimited, 10),
        (429, {"Retry-After": "0"}, b"", errors.RateLimited, 10),
        (418, {"Retry-After": "-1"}, b"", errors.Banned, 120),
        (400, {}, body(-1015, "Too many new orders"), errors.RateLimited, 10),
        (418, {"Retry-After": "300"}, body(-1003, "Way too many requests"), errors.Banned, 300),
        (418, {}, b"", errors.Banned, 120),
        (403, {}, b"<html>", errors.RateLimited, 60),
    ],
)
def test_being_told_to_slow_down(
    status: int, headers: dict[str, str], answer: bytes, kind: type[errors.RateLimited], wait: float
) -> None:
    error = classify(status, headers, answer)
    assert type(error) is kind
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after_s == wait
    assert not error.local


def test_too_many_orders_silence_orders_alone() -> None:
    error = classify(429, {}, body(-1015, "Too many new orders"))
    assert isinstance(error, errors.RateLimited)
    assert error.limits == ("ORDERS_10S", "ORDERS_1D")


def test_answers_that_are_none_of_these() -> None:
    assert type(classify(404, {}, b"<html>")) is errors.VenueRefused
    assert type(classify(307, {}, b"")) is errors.MalformedReply
    assert isinstance(from_code(-9999, "new"), VenueError)


def test_reasons_of_rejected_orders() -> None:
    assert reject_reason("WOULD_MATCH_IMMEDIATELY") is Reason.WOULD_CROSS
    assert reject_reason("INSUFFICIENT_BALANCES") is Reason.INSUFFICIENT_BALANCE
    assert reject_reason("SOMETHING_NEW") is Reason.VENUE_REFUSED


def test_a_status_without_a_word_is_named_once() -> None:
    assert str(classify(502, {}, b"<html>bad gateway</html>")) == "HTTP 502"
    assert str(classify(503, {}, body(-1008, "overloaded"))) == "HTTP 503: overloaded"
