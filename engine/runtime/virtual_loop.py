"""An event loop on virtual time, and the processes that share it.

When nothing is ready the loop jumps to the next timer, so that an hour passes as fast as its callbacks run. It is
deterministic: callbacks run in the order in which they were booked, timers by their time and then in the order in
which they were made. It has no threads, no host names and no sockets; connections are made through a
:class:`Connector`, usually :class:`engine.runtime.memory_net.MemoryNet`.

Everything that runs belongs to a :class:`VirtualProcess`, through the context of its tasks and callbacks. One can be
stopped, continued and killed as an operating system does it: between any two callbacks.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Final, NoReturn, Protocol, TypeVar, TypeVarTuple

from engine.clock import VirtualClock
from engine.errors import RuntimeFailure

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_TURNS_AT_ONE_INSTANT: Final = 100_000
_MANY_CANCELLED: Final = 256
_CLOSE_ATTEMPTS: Final = 20


class VirtualTimeError(RuntimeFailure):
    """Something was asked of the loop that does not exist in virtual time, or time cannot go on."""


class VirtualProcess:
    """What stands in for a process: whoever tasks, timers, callbacks and transports belong to.

    ``context`` is the one to start its first task in; what that task makes inherits it. ``on_death`` holds what the
    operating system would do at its end (close its files, cut its connections), in that order.
    """

    __slots__ = ("_fuse", "_held", "_on_fuse", "_tasks", "context", "gone", "is_watched", "name", "on_death", "steps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = False
        self.is_watched = False
        """Whether the loop has to ask :meth:`may_run` before each callback."""
        self.steps = 0
        self.on_death: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)
        self._held: deque[_Booking] | None = None
        self._fuse = 0
        self._on_fuse: Callable[[], None] | None = None
        self._tasks: list[weakref.ref[asyncio.Task[Any]]] = []

    def __repr__(self) -> str:
        return f"<VirtualProcess {self.name}{' (gone)' if self.gone else ''}>"

    @property
    def is_stopped(self) -> bool:
        """Whether its callbacks are held back."""
        return self._held is not None

    def stop(self) -> None:
        """Hold its callbacks back, as SIGSTOP does; time goes on, and timers that come due wait as well."""
        if self._held is None:
            self._held = deque()
            self._watch()

    def resume(self) -> None:
        """Let what was held back run, in order, as SIGCONT does."""
        held, self._held = self._held, None
        self._watch()
        if held and not self.gone:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.book(held)

    def light_fuse(self, steps: int, burnt: Callable[[], None]) -> None:
        """Call ``burnt`` right before the ``steps``-th callback of this process from now."""
        self._fuse = max(1, steps)
        self._on_fuse = burnt
        self._watch()

    def snuff(self) -> None:
        """Put out a fuse that has not burnt down."""
        self._fuse, self._on_fuse = 0, None
        self._watch()

    def kill(self) -> None:
        """End it as SIGKILL does: nothing of it runs any more, and nothing it cleans up reaches anyone."""
        if self.gone:
            return
        self.gone = True
        self._held = None
        self._watch()
        # Run in its own context, so that whatever this books belongs to the dead and is dropped.
        context = self.context.copy()
        for act in self.on_death:
            context.run(act)
        self.on_death.clear()
        context.run(self._drop_tasks)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """For the loop: a task was made in this process."""
        tasks = self._tasks
        tasks.append(weakref.ref(task))
        if len(tasks) > 512:
            self._tasks = [ref for ref in tasks if (found := ref()) is not None and not found.done()]

    def may_run(self, handle: _Booking) -> bool:
        """For the loop: whether this callback is to run now."""
        if self.gone:
            return False
        if self._held is not None:
            self._held.append(handle)
            return False
        self.steps += 1
        if self._fuse:
            self._fuse -= 1
            if not self._fuse and self._on_fuse is not None:
                burnt, self._on_fuse = self._on_fuse, None
                self._watch()
                burnt()
                return not self.gone
        return True

    def _watch(self) -> None:
        self.is_watched = self.gone or self._held is not None or self._fuse > 0

    def _drop_tasks(self) -> None:
        for ref in self._tasks:
            task = ref()
            if task is not None and not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # it never ends, and need not
                asyncio.tasks._unregister_task(task)
                coroutine = task.get_coro()
                if coroutine is not None:
                    _close(coroutine)
        self._tasks.clear()


CURRENT: contextvars.ContextVar[VirtualProcess | None] = contextvars.ContextVar("virtual_process", default=None)


def _close(coroutine: Any) -> None:
    """Unwind a coroutine whose clean-up may wait, fail and try again: none of it matters any more."""
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coroutine.close()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            return


class _Booking(asyncio.TimerHandle):
    """A callback that is booked, now or for a time. Without what the base class keeps for a loop's debug mode."""

    __slots__ = ()
    _callback: Any
    _args: Any
    _context: contextvars.Context
    _cancelled: bool
    _scheduled: bool
    _when: float
    _loop: VirtualLoop
    _repr: str | None = None
    _source_traceback: Any = None

    def __init__(
        self,
        loop: VirtualLoop,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._scheduled = False
        self._when = 0.0

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            if self._scheduled:
                self._loop._timer_handle_cancelled(self)


class Connector(Protocol):
    """Makes connections and servers for a loop."""

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]: ...

    async def dial(self, sock: Any, host: str, port: int) -> None: ...

    def answered(
        self, factory: Callable[[], asyncio.BaseProtocol], sock: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]: ...

    def listen(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> asyncio.AbstractServer: ...


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. ``clock`` is advanced by the loop and by nobody else; ``network`` carries connections."""

    _stopping: bool
    _ready: deque[_Booking]

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.network: Connector | None = None
        self.callbacks = 0
        self._timers: list[tuple[int, int, _Booking]] = []
        self._made = 0
        self._cancelled = 0
        self._now_ns = clock.monotonic_ns()
        self._turns = 0
        # By identity: weak references are gone when one is finalised. An entry lasts until its number is reused.
        self._generators: dict[int, contextvars.Context] = {}
        self.set_task_factory(_make_task)

    # ---------------------------------------------------------------------------------------------------------- time

    def time(self) -> float:
        return self._now_ns / 1e9

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(_ns(when), callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(self._now_ns + math.ceil(delay * 1e9), callback, *args, context=context)

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """:meth:`call_at`, on the clock's monotonic nanoseconds."""
        handle = _Booking(self, callback, args, context)
        handle._when = when_ns / 1e9
        handle._scheduled = True
        self._made += 1
        heapq.heappush(self._timers, (when_ns, self._made, handle))
        return handle

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = _Booking(self, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def book(self, handles: deque[_Booking]) -> None:
        """Run these callbacks after those that are booked already."""
        self._ready.extend(handles)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1
        if self._cancelled > _MANY_CANCELLED and 2 * self._cancelled > len(self._timers):
            # In place: a turn that is under way goes on with the same list.
            self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _run_once(self) -> None:
        """Turn after turn, until somebody says stop: what the base class's loop adds to each is not needed here."""
        ready, timers, pop, current = self._ready, self._timers, heapq.heappop, CURRENT
        while True:
            if not ready and not self._stopping:
                self._jump()
            now_ns = self._now_ns
            self._turns += 1
            if self._turns > MAX_TURNS_AT_ONE_INSTANT:
                waiting = ", ".join(repr(handle) for handle in list(ready)[:3])
                raise VirtualTimeError(f"callbacks follow each other without end and time stands still: {waiting}")
            while timers and timers[0][0] <= now_ns:
                timer = pop(timers)[2]
                timer._scheduled = False
                if not timer._cancelled:
                    ready.append(timer)
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                context = handle._context
                process = context.get(current)
                if process is not None:
                    if process.is_watched:
                        if not process.may_run(handle):
                            continue
                    else:
                        process.steps += 1
                self.callbacks += 1
                try:
                    context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)
            if self._stopping:
                return

    def _jump(self) -> None:
        """Let time pass until the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled = max(0, self._cancelled - 1)
        if not timers:
            raise VirtualTimeError("nothing is left to happen, and something still waits for it")
        ahead_ns = timers[0][0] - self._now_ns
        if ahead_ns > 0:
            self.clock.advance(ahead_ns)
            self._now_ns += ahead_ns
            self._turns = 0

    def _callback_failed(self, handle: _Booking, error: BaseException) -> None:
        message = f"Exception in callback {handle!r}"
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    # ------------------------------------------------------------------------------------------------------- network

    async def create_connection(  # type: ignore[override]  # of its many forms, those that the engine uses
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **_options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """To a listener of the network. Raises ConnectionRefusedError where nobody listens."""
        if ssl:
            raise VirtualTimeError("there is no TLS in virtual time: use plain addresses")
        network = self._connector()
        if sock is not None:
            return network.answered(protocol_factory, sock)
        if host is None or port is None:
            raise VirtualTimeError("a connection in virtual time needs a host and a port")
        return await network.connect(protocol_factory, host, port)

    async def create_server(  # type: ignore[override]  # of its many forms, those that the engine uses
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        **_options: Any,
    ) -> asyncio.AbstractServer:
        """A listener in the network; port 0 takes a free one. Raises OSError where the address is taken."""
        if ssl:
            raise VirtualTimeError("there is no TLS in virtual time: serve plain addresses")
        return self._connector().listen(protocol_factory, host or "127.0.0.1", port or 0)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect a socket that is none: :meth:`create_connection` finds its connection by the object."""
        await self._connector().dial(sock, str(address[0]), int(address[1]))

    def _connector(self) -> Connector:
        if self.network is None:
            raise VirtualTimeError("this loop has no network")
        return self.network

    async def getaddrinfo(self, host: Any, port: Any, **_options: Any) -> NoReturn:
        raise VirtualTimeError(f"no names are looked up in virtual time: give {host!r} as an address")

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> NoReturn:
        raise VirtualTimeError(f"no names are looked up in virtual time: {sockaddr!r}")

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> NoReturn:
        raise VirtualTimeError(f"there are no threads in virtual time to run {func!r} in")

    # ----------------------------------------------------------------------------------------------------- generators

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        self._generators[id(agen)] = contextvars.copy_context()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """One that was left half way is closed in the process that began it, if that lives."""
        context = self._generators.pop(id(agen), None)
        process = None if context is None else context.get(CURRENT)
        if context is not None and not self.is_closed() and (process is None or not process.gone):
            self.call_soon(self._close_generator, agen, context=context)

    def _close_generator(self, agen: AsyncGenerator[Any, Any]) -> None:
        self.create_task(agen.aclose())

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets to hear of."""


def running_loop() -> VirtualLoop:
    """The virtual loop that runs now; VirtualTimeError under another one."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise VirtualTimeError("the inline runtime needs the virtual loop")
    return loop


def _ns(when: float) -> int:
    """The first nanosecond at which a loop's time is no less than ``when``."""
    ns = math.ceil(when * 1e9)
    return ns if ns / 1e9 >= when else ns + 1


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
    *,
    context: contextvars.Context | None = None,
) -> asyncio.Task[T]:
    task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, context=context)
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        process.adopt(task)
    return task
