"""The REST front end.

Source: binance-spot-api-docs ``rest-api.md`` "General API Information", "LIMITS" (2026).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from engine.simulator.binance import auth
from engine.simulator.binance import params as read
from engine.simulator.binance.api import Operation
from engine.simulator.binance.desk import Desk, refusal_of
from engine.simulator.binance.errors import ApiError
from engine.simulator.binance.routes import REST
from engine.simulator.binance.users import listen_key

_PATHS = frozenset(path for _, path in REST)
Recorded = Callable[[str, Mapping[str, str]], Awaitable[bytes | None]]
_LISTEN_KEY = "/api/v3/userDataStream"


class Rest:
    """Answers requests; :meth:`handle` is an aiohttp handler for every path that nothing else serves.

    ``recorded`` is asked first for the answer to a GET, by path and parameters.
    """

    def __init__(self, desk: Desk, recorded: Recorded | None = None) -> None:
        self._desk = desk
        self._recorded = recorded

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        body = (await request.read()).decode("utf-8", "replace")
        fault = await self._desk.befall(f"{request.method} {path}")
        if fault is not None and fault.kind == "http_status":
            return web.Response(status=fault.status, text=fault.body)
        try:
            refusal = refusal_of(fault)
            if refusal is not None:
                raise refusal
            response = await self._from_record(request, path, query)
            if response is None:
                response = self._answer(request, path, query, body)
        except ApiError as error:
            response = self._reply(request, error.body(), error.status)
            if error.retry_after is not None:
                response.headers["Retry-After"] = str(error.retry_after)
        if fault is not None and fault.kind == "drop_reply":
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("reply dropped on demand")
        if fault is not None and fault.kind == "late_reply":
            await self._desk.sleep(fault.ms / 1000)
        return response

    async def _from_record(self, request: web.Request, path: str, query: str) -> web.Response | None:
        if self._recorded is None or request.method != "GET":
            return None
        params = read.from_form(query, "")
        operation = REST.get(("GET", path))
        weight = operation.weight_of(params) if operation is not None else 1
        recorded = await self._recorded(path, params)
        if recorded is None:
            return None
        self._desk.api.limits.charge(_caller(request), weight, self._desk.clock())
        return self._reply(request, msgspec.Raw(recorded))

    def _answer(self, request: web.Request, path: str, query: str, body: str) -> web.Response:
        params = read.from_form(query, body)
        api_key = request.headers.get("X-MBX-APIKEY")
        if path == _LISTEN_KEY:
            return self._reply(request, self._listen_key(request.method, api_key, params))
        operation = REST.get((request.method, path))
        if operation is None:
            if path in _PATHS:
                raise ApiError(-1000, f"Request method '{request.method}' is not supported.", status=405)
            raise ApiError(-1000, f"Path {path} is not served here.", status=404)

        account = ""

        def identify(now_ns: int) -> str:
            nonlocal account
            account = self._desk.identify(params, api_key, auth.rest_payload(query, body), now_ns)
            return account

        result = self._desk.serve(operation, params, _caller(request), identify)
        return self._reply(request, result, headers=self._order_counts(operation, account))

    def _listen_key(self, method: str, api_key: str | None, params: Mapping[str, str]) -> object:
        """Listen keys: retired by the venue in February 2026, served here for clients that have not moved."""
        account = self._desk.api.venue.accounts[self._desk.identify_by_key(api_key)]
        key = listen_key(account.api_key, account.api_secret)
        if method == "POST":
            return {"listenKey": key}
        if method in ("PUT", "DELETE"):
            if read.required(params, "listenKey") != key:
                raise ApiError(-1125, "This listenKey does not exist.")
            return {}
        raise ApiError(-1000, f"Request method '{method}' is not supported.", status=405)

    def _order_counts(self, operation: Operation, account: str) -> dict[str, str]:
        if not operation.places or not account:
            return {}
        ten_seconds, day = self._desk.api.limits.order_counts(account, self._desk.clock())
        return {"X-MBX-ORDER-COUNT-10S": str(ten_seconds), "X-MBX-ORDER-COUNT-1D": str(day)}

    def _reply(
        self,
        request: web.Request,
        result: object,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        used = str(self._desk.api.limits.used_weight(_caller(request), self._desk.clock()))
        return web.Response(
            body=msgspec.json.encode(result),
            status=status,
            content_type="application/json",
            charset="utf-8",
            headers={"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used, **(headers or {})},
        )


def _caller(request: web.Request) -> str:
    return request.remote or ""
