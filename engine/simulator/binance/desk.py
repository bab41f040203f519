"""The counter where requests arrive: authentication, faults, the operation, and the commit before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from engine.simulator.binance import auth
from engine.simulator.binance.api import Api, Call, Operation
from engine.simulator.binance.errors import ApiError, missing, rejected
from engine.simulator.binance.streams import Hub
from engine.simulator.binance.users import Users
from engine.simulator.faults import Fault, Faults


@dataclass(slots=True)
class Desk:
    """What the front ends share. ``flush`` commits to the ledger and then tells the outbox; ``clock`` gives ns."""

    api: Api
    hub: Hub
    users: Users
    faults: Faults
    clock: Callable[[], int]
    flush: Callable[[], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    closed: str = ""
    """Why no orders are taken; "" when they are."""
    requests: int = 0

    def serve(
        self,
        operation: Operation,
        params: Mapping[str, str],
        caller: str,
        identify: Callable[[int], str],
    ) -> object:
        """One request from its identity to its committed result; raises ApiError.

        ``identify`` gives the account at the current time or raises. Whatever the outcome, what changed is on disk
        before this returns.
        """
        now_ns = self.clock()
        self.requests += 1
        account = identify(now_ns) if operation.signed or operation.keyed else ""
        if operation.places and self.closed:
            raise rejected(self.closed)
        try:
            return self.api.perform(operation, Call(params, now_ns, account), caller)
        finally:
            self.flush()

    def identify(self, params: Mapping[str, str], api_key: str | None, payload: str, now_ns: int) -> str:
        """The account of a signed request."""
        secret = auth.check_key(api_key, self.api.secrets)
        if not params.get("timestamp"):
            raise missing("timestamp")
        signature = params.get("signature")
        if not signature:
            raise missing("signature")
        auth.check_signature(secret, payload, signature)
        auth.check_time(params, now_ns)
        return self.api.account_of_key[api_key or ""]

    def identify_by_key(self, api_key: str | None) -> str:
        """The account of a request that needs a key and no signature."""
        auth.check_key(api_key, self.api.secrets)
        return self.api.account_of_key[api_key or ""]

    async def befall(self, request: str) -> Fault | None:
        """Let the armed faults strike this request: wait out a latency, and return what else befalls it."""
        delay = self.faults.latency_ms(request)
        if delay:
            await self.sleep(delay / 1000)
        return self.faults.strike(request)


def refusal_of(fault: Fault | None) -> ApiError | None:
    """The reply of a ``reject`` fault."""
    if fault is None or fault.kind != "reject":
        return None
    return ApiError(fault.code, fault.msg, status=fault.status, retry_after=fault.retry_after_s or None)
