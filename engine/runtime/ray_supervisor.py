"""The supervisor's process where Ray keeps it: a named, detached Ray actor, begun anew by Ray when it dies.

What it runs is named by ``module:function``: a coroutine function that is given what it was made with and a
:class:`Driver`, and returns the run's report. It is called again after each death of the process, with the same. Once
it has returned, the process stays until the report was fetched, or nobody has asked for it for a while.

:class:`SupervisorProcess` is the other end, in the process that started the engine. That one may go at any time.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec
import ray
import structlog
from ray.exceptions import ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.errors import ConfigError, EngineError, RuntimeFailure
from engine.messages import LogLine
from engine.runtime.ray_nodes import named_actors

NAME: Final = "supervisor"
ASK_S: Final = 5.0
"""How long a question for news waits for some."""
LINGER_S: Final = 10.0
"""How long a report that nobody fetches is kept."""
AGAIN_S: Final = 0.2
LINES: Final = 2000

Work = Callable[[bytes, "Driver"], Coroutine[Any, Any, dict[str, Any]]]

log = structlog.get_logger("engine.runtime")


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell the process that started the engine. ``life``: of the supervisor; ``seen``: its lines so
    far. Once it has ended there is a ``report``, or an ``error``; ``refused`` if nothing had been started by then.
    """

    life: int
    seen: int
    lines: list[LogLine] = []
    report: dict[str, Any] | None = None
    error: str = ""
    refused: bool = False

    @property
    def ended(self) -> bool:
        return self.report is not None or bool(self.error)


class Driver:
    """The process that started the engine, as the supervisor sees it: shows lines, and may ask for the end."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=LINES)
        self.shown = 0
        self.changed = asyncio.Event()
        self._stop: Callable[[str], None] | None = None
        self._asked: str = ""

    def show(self, line: LogLine) -> None:
        """Have a line shown. May be called from any thread that holds the loop's."""
        self.lines.append(line)
        self.shown += 1
        self.changed.set()

    def close(self) -> None:
        """Nothing more is shown."""

    def on_stop(self, stop: Callable[[str], None]) -> None:
        """Call ``stop`` with a reason when the end is asked for; at once if it was."""
        self._stop = stop
        if self._asked:
            stop(self._asked)

    def ask_to_stop(self, reason: str) -> None:
        self._asked = reason
        if self._stop is not None:
            self._stop(reason)

    def since(self, seen: int) -> list[LogLine]:
        """The lines after the first ``seen``, as far as they are kept."""
        wanted = min(self.shown - seen, len(self.lines))
        return list(self.lines)[len(self.lines) - wanted :] if wanted > 0 else []


class KeptSupervisor:
    """The Ray actor."""

    async def __init__(self, entry: str, body: bytes) -> None:  # type: ignore[misc]  # Ray awaits it
        self._driver = Driver()
        self._outcome: dict[str, Any] | None = None
        self._fetched = asyncio.Event()
        self._running = asyncio.get_running_loop().create_task(self._run(entry, body))

    async def news(self, life: int, seen: int) -> bytes:
        """A :class:`News`, as soon as there is any, after the lines that were seen of that life."""
        driver = self._driver
        seen = seen if life == os.getpid() else 0
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_S):
                while driver.shown <= seen and self._outcome is None:
                    driver.changed.clear()
                    await driver.changed.wait()
        if self._outcome is not None:
            self._fetched.set()
        told = News(life=os.getpid(), seen=driver.shown, lines=driver.since(seen), **(self._outcome or {}))
        return msgspec.msgpack.encode(told)

    async def stop(self, reason: str) -> None:
        """End the run politely."""
        self._driver.ask_to_stop(reason)

    async def _run(self, entry: str, body: bytes) -> None:
        module, _, function = entry.partition(":")
        try:
            work: Work = getattr(importlib.import_module(module), function)
            self._outcome = {"report": await work(body, self._driver)}
        except ConfigError as error:
            self._outcome = {"error": str(error), "refused": True}
        except EngineError as error:
            self._outcome = {"error": str(error)}
        except Exception as error:
            self._outcome = {"error": "".join(traceback.format_exception(error))}
        self._driver.changed.set()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._fetched.wait()
                # The process that fetched it ends this one; if that died meanwhile, nobody does.
                await asyncio.sleep(LINGER_S)
        except TimeoutError:
            log.info("nobody fetched the report")
        ray.kill(ray.get_runtime_context().current_actor)


class SupervisorProcess:
    """The supervisor as the process that starts the engine sees it."""

    def __init__(self, namespace: str, node: str) -> None:
        self._namespace = namespace
        self._node = node
        self._handle: Any = None
        self._asked = ""
        self._asking: asyncio.Task[None] | None = None

    def start(self, entry: str, body: bytes) -> None:
        """Have Ray begin it on the node, and keep it."""
        self._handle = (
            ray.remote(KeptSupervisor)
            .options(
                name=NAME,
                namespace=self._namespace,
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=False),
            )
            .remote(entry, body)
        )

    def stop(self, reason: str) -> None:
        """Ask for the end of the run, until a supervisor has heard it: one may have died, and the next not be there."""
        self._asked = reason
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_to_stop())

    async def _ask_to_stop(self) -> None:
        while True:
            try:
                await self._handle.stop.remote(self._asked)
            except RayError:
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def news(self) -> AsyncIterator[News]:
        """What it tells, to the end. RuntimeFailure when it is gone, and Ray does not bring it back."""
        life = seen = 0
        while True:
            try:
                told = msgspec.msgpack.decode(await self._handle.news.remote(life, seen), type=News)
            except ActorUnavailableError:
                await asyncio.sleep(AGAIN_S)
                continue
            except RayError as error:
                if NAME not in named_actors(self._namespace):
                    raise RuntimeFailure(f"the supervisor is gone: {' '.join(str(error).split())[:300]}") from None
                await asyncio.sleep(AGAIN_S)
                continue
            if self._asked and told.life != life:
                self.stop(self._asked)  # whoever heard it may have died before it was written down
            life, seen = told.life, told.seen
            yield told
            if told.ended:
                ray.kill(self._handle)
                return
