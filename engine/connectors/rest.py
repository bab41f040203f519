"""HTTP requests to a venue: bounded in time, counted against its limits, and with errors that say what is
known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from yarl import URL

from engine.connectors.backoff import Backoff
from engine.connectors.errors import RateLimited, TransportError, UnknownOutcome
from engine.connectors.throttler import Priority, Throttler
from engine.connectors.tls import client_context
from engine.errors import VenueError

if TYPE_CHECKING:
    from engine.connectors.base import Clock, OnSent

Classifier = Callable[[int, Mapping[str, str], bytes], VenueError]
"""Makes the error of a reply that is none of success: status, headers, body."""

UsageReader = Callable[[Mapping[str, str]], dict[str, int]]
"""Reads the venue's own usage counts from a reply's headers, by the names of the throttler's limits."""

_READ_ATTEMPTS = 3


class RestReply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply of success, and when its request began (local wall and monotonic clock, ns)."""

    status: int
    body: bytes
    requested_ns: int
    requested_mono_ns: int


class RestClient:
    """One venue's REST interface over one session of kept-alive connections.

    Safe requests (:meth:`read`) are tried again on transport errors, a bounded number of times; everything
    else (:meth:`send`) goes out at most once. Proxies of the environment are not used; redirects are not
    followed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        classify: Classifier,
        throttler: Throttler,
        read_usage: UsageReader,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        ca: str | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._classify = classify
        self._throttler = throttler
        self._read_usage = read_usage
        self._headers = dict(headers or {})
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_s, connect=timeout_s, sock_connect=timeout_s, sock_read=timeout_s
        )
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the session; connections are opened by the first requests. May be called more than once."""
        if self._session is not None:
            return
        tls = client_context(self._ca) if self._base_url.startswith("https") else False
        # Names by the event loop: a resolver with a thread of its own has no place on virtual time.
        resolver = aiohttp.ThreadedResolver()
        connector = aiohttp.TCPConnector(
            ssl=tls, keepalive_timeout=60.0, ttl_dns_cache=300, limit=32, resolver=resolver
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trust_env=False,
            trace_configs=[_trace(self._clock)],
        )

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def read(
        self,
        path: str,
        query: str | Callable[[], str] = "",
        *,
        costs: Mapping[str, int] | None = None,
        priority: Priority = Priority.POLL,
        until_mono_ns: int | None = None,
    ) -> RestReply:
        """GET, again after a transport error or a server's own failure. ``query`` may be made anew for each
        try.
        """
        backoff = Backoff(base_s=0.1, max_s=1.0)
        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                return await self.send("GET", path, query, costs=costs, priority=priority, until_mono_ns=until_mono_ns)
            except (TransportError, UnknownOutcome):
                if attempt == _READ_ATTEMPTS:
                    raise
            await asyncio.sleep(backoff.next())
        raise AssertionError("the loop returns or raises")

    async def send(
        self,
        method: str,
        path: str,
        query: str | Callable[[], str] = "",
        *,
        costs: Mapping[str, int] | None = None,
        priority: Priority = Priority.POLL,
        until_mono_ns: int | None = None,
        on_sent: OnSent | None = None,
    ) -> RestReply:
        """One request, sent at most once. ``query`` is percent-encoded and goes out as it is; it may be made (and
        signed) at the instant at which the request may go.

        Where the venue's limits leave no room it waits up to ``until_mono_ns``, or not at all. Raises RateLimited
        before sending where room comes too late, TransportError where the connection failed, UnknownOutcome where no
        answer came in time, and else what the venue's answer amounts to.
        """
        if self._session is None:
            raise TransportError(f"{method} {path}: the client is not started", sent=False)
        grant = await self._throttler.acquire(costs or {}, priority, until_mono_ns)
        requested_ns = self._clock.time_ns()
        requested_mono_ns = self._clock.monotonic_ns()
        try:
            written = query() if callable(query) else query
            status, headers, body = await self._exchange(method, path, written, on_sent)
        except TransportError as error:
            if not error.sent:
                self._throttler.refund(grant)
            raise
        self._throttler.report(grant, self._read_usage(headers))
        if 200 <= status < 300:
            return RestReply(status=status, body=body, requested_ns=requested_ns, requested_mono_ns=requested_mono_ns)
        refused = self._classify(status, headers, body)
        if isinstance(refused, RateLimited):
            self._throttler.silence(refused.retry_after_s, refused.limits)
        raise refused

    async def _exchange(
        self, method: str, path: str, query: str, on_sent: OnSent | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            raise TransportError(f"{method} {path}: the client is not started", sent=False)
        url = URL(f"{self._base_url}{path}?{query}" if query else self._base_url + path, encoded=True)
        progress = _Progress(method, on_sent)
        try:
            async with self._session.request(
                method, url, allow_redirects=False, trace_request_ctx=progress
            ) as response:
                return response.status, response.headers, await response.read()
        # The library's errors may hold the address with its signed query, hence ``from None``.
        except TimeoutError:
            if progress.sent:
                raise UnknownOutcome(f"{method} {path}: no answer in time") from None
            raise TransportError(f"{method} {path}: no connection in time", sent=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(
                f"{method} {path}: {type(error).__name__} ({_brief(error)})", sent=progress.sent
            ) from None


class _Progress:
    """How far one request came, told by the session's trace."""

    __slots__ = ("method", "on_sent", "sent")

    def __init__(self, method: str, on_sent: OnSent | None) -> None:
        self.method = method
        self.on_sent = on_sent
        self.sent = False


def _trace(clock: Clock) -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    async def headers_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
        # Called when a connection is there and the request is about to be written to it.
        progress: _Progress = context.trace_request_ctx
        if progress.sent and progress.method != "GET":
            # The library repeats some methods when a kept connection turns out dead; that is ours to decide.
            raise aiohttp.ServerDisconnectedError("the connection closed before an answer")
        progress.sent = True
        if progress.on_sent is not None:
            progress.on_sent(clock.monotonic_ns())

    config.on_request_headers_sent.append(headers_sent)
    return config


def _brief(error: BaseException) -> str:
    """What happened, without the request's address."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return "the connection broke" if isinstance(error, aiohttp.ClientConnectionError) else "the reply broke off"
