from __future__ import annotations

import inspect

import pytest

from engine.connectors import errors
from engine.errors import VenueError
from engine.messages import Reason


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, VenueError)]
    drawn = (errors.__doc__ or "").split("Three questions")[0]
    for kind in kinds:
        assert kind.__name__ in drawn


@pytest.mark.parametrize(
    ("error", "refused", "unsent"),
    [
        (errors.TransportError("x", sent=False), True, True),
        (errors.TransportError("x", sent=True), False, False),
        (errors.UnknownOutcome("x"), False, False),
        (errors.MalformedReply("x"), False, False),
        (errors.OrderNotFound(-2013, "x"), True, False),
        (errors.RateLimited(429, "x", 1.0), True, False),
        (errors.RateLimited("local", "x", 1.0, local=True), True, True),
        (ValueError("x"), False, False),
    ],
)
def test_what_an_error_leaves_open(error: BaseException, refused: bool, unsent: bool) -> None:
    assert errors.was_refused(error) is refused
    assert errors.never_sent(error) is unsent


def test_reasons_follow_the_kind_unless_given() -> None:
    assert errors.WouldCross(-2010, "x").reason is Reason.WOULD_CROSS
    assert errors.FilterFailure(-1013, "x", Reason.BELOW_MIN_NOTIONAL).reason is Reason.BELOW_MIN_NOTIONAL


def test_a_frames_excerpt_is_short() -> None:
    error = errors.MalformedFrame("bad", b"\xff" + b"x" * 10_000)
    assert len(error.excerpt) <= 201
    assert len(str(error)) < 300
