"""What commands ask of a running engine, and what they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from pydantic import ValidationError

from engine.actors.plan import PlannedActor, check_cells, plan_strategy, strategy_name
from engine.actors.shutdown import ENDED
from engine.attached import forget_attached, save_attached
from engine.config import StrategyConfig, check_strategy
from engine.errors import BusError, EngineError
from engine.messages import (
    AccountSnapshot,
    ActorStats,
    AskStats,
    CancelAll,
    CancelAllResult,
    ControlReply,
    ControlRequest,
    Fills,
    GetAccount,
    GetFills,
    GetOrders,
    Message,
    Orders,
    SetTrading,
)

if TYPE_CHECKING:
    from engine.actors.supervisor import Supervisor

ASK_TIMEOUT_S = 3.0
CANCEL_TIMEOUT_S = 15.0
CANCEL_SLACK_S = 5.0
STATS_TIMEOUT_S = 1.0
HALT_TIMEOUT_S = 10.0
AGAIN_S = 0.1
RISK = "risk"

Verb = Callable[[dict[str, Any]], Awaitable[Any]]
Reply = TypeVar("Reply", bound=Message)


class Control:
    """Answers :class:`~engine.messages.ControlRequest`; every verb is a method named after it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "stop": self._stop,
            "restart": self._restart,
            "attach": self._attach,
            "detach": self._detach,
            "orders": self._orders,
            "fills": self._fills,
            "balances": self._balances,
            "cancel_all": self._cancel_all,
            "halt": self._halt,
            "resume": self._resume,
        }

    async def handle(self, request: ControlRequest) -> ControlReply:
        """Carry out one request; what is wrong with it comes back as one line."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            return ControlReply(ok=False, error=f"this engine does not know the command {request.verb!r}")
        if request.verb != "stop":
            await self._supervisor.knows.wait()
        try:
            return ControlReply(ok=True, data=await verb(request.args))
        except (EngineError, OSError, KeyError, TypeError, ValueError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            return ControlReply(ok=False, error=str(text))

    async def _status(self, args: dict[str, Any]) -> Any:
        return self._supervisor.status()

    async def _stop(self, args: dict[str, Any]) -> Any:
        asyncio.get_running_loop().call_soon(self._supervisor.stop, "engine stop")
        return {}

    async def _restart(self, args: dict[str, Any]) -> Any:
        name = str(args["actor"])
        if name not in self._supervisor.planned:
            raise EngineError(f"there is no actor {name!r}; there are {', '.join(self._supervisor.planned)}")
        if self._supervisor.stopping:
            raise EngineError("the engine is stopping: nothing is started anew")
        if self._supervisor.is_detaching(name):
            raise EngineError(f"{name} is being detached")
        before = self._supervisor.observed.of(name).pid
        self._supervisor.restart(name)
        return {"actor": name, "pid_before": before}

    async def _attach(self, args: dict[str, Any]) -> Any:
        supervisor = self._supervisor
        try:
            strategy = StrategyConfig.model_validate(args)
        except ValidationError as error:
            first = error.errors()[0]
            raise EngineError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        self._check_may_join(strategy)
        check_strategy(supervisor.config, strategy)
        planned = [*supervisor.planned.values(), plan_strategy(supervisor.config, strategy)]
        check_cells(supervisor.config, planned, supervisor.paths.state)
        if lacking := await supervisor.cannot_run(plan_strategy(supervisor.config, strategy)):
            raise EngineError(lacking)
        self._check_may_join(strategy)  # once more: another host was asked meanwhile
        save_attached(supervisor.paths.state, strategy)
        supervisor.attach(strategy)
        return {"strategy": strategy.name, "actor": strategy_name(strategy.name)}

    def _check_may_join(self, strategy: StrategyConfig) -> None:
        if self._supervisor.stopping:
            raise EngineError("the engine is stopping: attach to the next one")
        if strategy.name in self._supervisor.strategies:
            raise EngineError(f"a strategy named {strategy.name!r} is running; detach it or choose another name")

    async def _detach(self, args: dict[str, Any]) -> Any:
        supervisor = self._supervisor
        name = str(args["name"])
        if name not in supervisor.strategies:
            known = ", ".join(supervisor.strategies) or "none"
            raise EngineError(f"there is no strategy {name!r}; running are: {known}")
        await supervisor.detach(name, strategy_name(name))
        was_attached = forget_attached(supervisor.paths.state, name)
        await self._hear_accounts()
        return {"strategy": name, "was_attached": was_attached}

    async def _orders(self, args: dict[str, Any]) -> Any:
        query = GetOrders(**_span(args), open_only=bool(args.get("open_only", False)))
        replies, unanswered = await self._ask_exchanges(query, Orders)
        rows = [
            {"connector": exchange.connector, **msgspec.to_builtins(order)}
            for exchange, reply in replies
            for order in reply.orders
        ]
        rows.sort(key=lambda order: order.get("created_ns", 0), reverse=True)
        return {"rows": rows, "unanswered": unanswered}

    async def _fills(self, args: dict[str, Any]) -> Any:
        replies, unanswered = await self._ask_exchanges(GetFills(**_span(args)), Fills)
        rows = [
            {"connector": exchange.connector, **msgspec.to_builtins(fill)}
            for exchange, reply in replies
            for fill in reply.fills
        ]
        rows.sort(key=lambda fill: fill["fill"]["time_ns"], reverse=True)
        return {"rows": rows, "unanswered": unanswered}

    async def _balances(self, args: dict[str, Any]) -> Any:
        replies, unanswered = await self._ask_exchanges(GetAccount(), AccountSnapshot)
        rows = {f"{reply.connector}/{reply.account}": msgspec.to_builtins(reply.balances) for _, reply in replies}
        return {"rows": rows, "unanswered": unanswered}

    async def _halt(self, args: dict[str, Any]) -> Any:
        return await self._set_trading("halted", str(args.get("reason") or "halted by hand"))

    async def _resume(self, args: dict[str, Any]) -> Any:
        return await self._set_trading("active", "")

    async def _set_trading(self, state: str, reason: str) -> Any:
        supervisor = self._supervisor
        if RISK not in supervisor.planned:
            raise EngineError("no connector of this engine trades: there is nothing to halt or resume")
        reply = await self._answer_of(RISK, SetTrading(state=state, reason=reason), HALT_TIMEOUT_S)
        await self._hear_accounts()
        return reply.data if isinstance(reply, ControlReply) else None

    async def _cancel_all(self, args: dict[str, Any]) -> Any:
        within_s = float(args.get("within_s") or 0.0)
        command, timeout = CancelAll(within_ns=round(within_s * 1e9)), within_s + CANCEL_SLACK_S
        replies, unanswered = await self._ask_exchanges(
            command, CancelAllResult, timeout if within_s else CANCEL_TIMEOUT_S
        )
        results = [result for _, result in replies]
        if unanswered and not results:
            raise EngineError("; ".join(unanswered.values()))
        await self._hear_accounts()
        return {
            "cancelled": [order for result in results for order in result.cancelled],
            "failed": {order: state for result in results for order, state in result.failed.items()},
            "ended": {order: state for result in results for order, state in result.ended.items()},
            "unanswered": unanswered,
        }

    async def _ask_exchanges(
        self, query: Message, answer: type[Reply], timeout: float = ASK_TIMEOUT_S
    ) -> tuple[list[tuple[PlannedActor, Reply]], dict[str, str]]:
        """What the accounts answer, and why others do not: one that is silent hides no other."""
        names = self._exchanges()
        asked = (self._answer_of(name, query, timeout) for name in names)
        replies, unanswered = [], {}
        for name, reply in zip(names, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(reply, answer):
                replies.append((self._supervisor.planned[name], reply))
            elif isinstance(reply, EngineError):
                unanswered[name] = str(reply)
            elif isinstance(reply, BaseException):
                raise reply
            else:
                unanswered[name] = f"{name} answered with {type(reply).__name__}"
        return replies, unanswered

    async def _hear_accounts(self) -> None:
        """Have the accounts' numbers after a command, so that the next status does not show what was before it."""
        names = [name for name in (*self._exchanges(), RISK) if name in self._supervisor.planned]
        await asyncio.gather(*(self._hear(name) for name in names))

    async def _hear(self, name: str) -> None:
        try:
            reply = await self._supervisor.bus.request(name, AskStats(), timeout=STATS_TIMEOUT_S)
        except BusError as error:
            self._supervisor.log.info("an actor's numbers are late", about=name, error=str(error))
        else:
            if isinstance(reply, ActorStats):
                self._supervisor.observed.stats(reply)

    def _exchanges(self) -> list[str]:
        return [planned.name for planned in self._supervisor.planned.values() if planned.kind == "exchange"]

    async def _answer_of(self, name: str, query: Message, timeout: float) -> Message:
        """Ask again for as long as there is time: the actor may be between two lives, unless it is given up."""
        supervisor = self._supervisor
        if (state := supervisor.policy.state(name)) in ENDED:
            raise EngineError(f"{name} is {state.value}: see engine logs {name}, then engine restart {name}")
        deadline = supervisor.clock.monotonic_ns() + round(timeout * 1e9)
        while True:
            left_s = (deadline - supervisor.clock.monotonic_ns()) / 1e9
            try:
                reply = await supervisor.bus.request(name, query, timeout=max(left_s, AGAIN_S))
                if not isinstance(reply, ControlReply) or reply.ok:
                    return reply
                error = reply.error
            except BusError as lost:
                error = f"{name} does not answer: {lost}"
            if left_s < AGAIN_S:
                raise EngineError(error)
            await asyncio.sleep(AGAIN_S)


def _span(args: dict[str, Any]) -> dict[str, int]:
    """Which of an account's rows are asked for; numbers that no row can have raise ValueError."""
    span = {name: int(args.get(name, default)) for name, default in (("since_ns", 0), ("limit", 1000), ("offset", 0))}
    for name, value in span.items():
        if not 0 <= value < 2**63:
            raise ValueError(f"{name} {value} is out of range")
    return span
