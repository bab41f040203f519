"""What can come of speaking to a venue.

::

    VenueError                        what a venue said, or did not say
    ├── TransportError                the connection failed; ``sent`` is False only if nothing ever left
    ├── UnknownOutcome                the venue may or may not have done what was asked
    │   └── MalformedReply            it answered something that cannot be read
    ├── MalformedFrame                a frame of a stream that cannot be read (its connection lives on)
    └── VenueRefused                  the venue said no: what was asked was not done and never will be
        ├── RateLimited               too many requests; nothing is sent before ``retry_after_s``
        │   └── Banned                the venue shut this address out for ``retry_after_s``
        ├── ClockError                the request's timestamp was outside of the venue's window
        ├── OrderNotFound             no such order
        ├── InsufficientBalance       the account does not hold enough
        ├── WouldCross                a post-only order would have taken
        ├── DuplicateOrderId          the client order id is in use
        ├── FilterFailure             price, size or notional breaks the pair's rule
        └── AuthError                 the key, its signature or its permissions

Three questions decide what may be done next: did it leave (:attr:`TransportError.sent`), was it done
(anything but :class:`VenueRefused` leaves that open), and when may one try again (``retry_after_s``). Use
:func:`was_refused` and :func:`never_sent` to ask them of any error.
"""

from __future__ import annotations

from engine.errors import VenueError
from engine.messages import Reason

_EXCERPT = 200


class TransportError(VenueError):
    """The connection could not be made or broke.

    ``sent`` is False only when the request certainly never left this process: the venue was not reached, or
    the request was still waiting for a connection.
    """

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class UnknownOutcome(VenueError):
    """The request left, and whether the venue acted on it is not known: ask for the outcome, never send
    again.
    """

    def __init__(self, text: str, *, code: int | str = "") -> None:
        super().__init__(text)
        self.code = code


class MalformedReply(UnknownOutcome):
    """The venue answered with something other than what its documentation promises."""


class MalformedFrame(VenueError):
    """A frame of a stream that cannot be read. ``excerpt`` is its beginning."""

    def __init__(self, why: str, data: str | bytes) -> None:
        text = data if isinstance(data, str) else data[: 2 * _EXCERPT].decode("utf-8", "replace")
        self.excerpt = text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
        super().__init__(f"{why}: {self.excerpt}")


class VenueRefused(VenueError):
    """The venue refused: nothing was done. ``code`` and ``text`` are the venue's, ``reason`` is ours."""

    default_reason = Reason.VENUE_REFUSED

    def __init__(self, code: int | str, text: str, reason: Reason | None = None) -> None:
        super().__init__(f"{text} (code {code})")
        self.code = code
        self.text = text
        self.reason = self.default_reason if reason is None else reason


class RateLimited(VenueRefused):
    """Too many requests: nothing more may be sent for ``retry_after_s``.

    ``local``: refused before sending. ``limits``: the names of the limits that were passed, where only
    requests that count against these are to wait; empty for all requests.
    """

    default_reason = Reason.RATE_LIMITED

    def __init__(
        self,
        code: int | str,
        text: str,
        retry_after_s: float,
        *,
        local: bool = False,
        limits: tuple[str, ...] = (),
        reason: Reason | None = None,
    ) -> None:
        super().__init__(code, text, reason)
        self.retry_after_s = retry_after_s
        self.local = local
        self.limits = limits


class Banned(RateLimited):
    """The venue shut this address out, for going on after it had said that it was too much."""


class ClockError(VenueRefused):
    """The request's timestamp was outside of the venue's window. It was not carried out."""


class OrderNotFound(VenueRefused):
    """The venue knows no such order, now: a request still under way may yet make one."""

    default_reason = Reason.NOT_FOUND


class InsufficientBalance(VenueRefused):
    """The account does not hold what the order needs."""

    default_reason = Reason.INSUFFICIENT_BALANCE


class WouldCross(VenueRefused):
    """A post-only order would have matched at once."""

    default_reason = Reason.WOULD_CROSS


class DuplicateOrderId(VenueRefused):
    """An order with this client order id exists."""

    default_reason = Reason.DUPLICATE_ID


class FilterFailure(VenueRefused):
    """Price, size or notional breaks one of the pair's rules."""


class AuthError(VenueRefused):
    """The key is unknown, its signature wrong, or it may not do this. Trying again does not help."""


def was_refused(error: BaseException) -> bool:
    """True if what was asked certainly was not done: the venue said no, or it never left."""
    return isinstance(error, VenueRefused) or never_sent(error)


def never_sent(error: BaseException) -> bool:
    """True if the request certainly never left this process."""
    if isinstance(error, TransportError):
        return not error.sent
    return isinstance(error, RateLimited) and error.local
