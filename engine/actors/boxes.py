"""Venues in a box: where each of them listens, and who waits for one to do so."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from engine.logs import register_secret

ADDRESSES: Final = ("rest", "ws", "ws_api")
Info = dict[str, Any]


class Boxes:
    """By the names of the boxes' actors: what dependants must know of each, once it is known."""

    def __init__(self) -> None:
        self._infos: dict[str, asyncio.Future[Info]] = {}
        self._waiting: dict[str, asyncio.Task[Info]] = {}
        self._died_unseen: set[str] = set()

    def add(self, box: str) -> None:
        """A box that is going to listen somewhere."""
        self._infos[box] = asyncio.get_running_loop().create_future()

    def died_unseen(self, box: str) -> None:
        """It ended while nobody supervised: whoever works at it has an address that is nobody's."""
        self._died_unseen.add(box)

    async def info(self, box: str, actor: str) -> Info | None:
        """Where the box listens, once it does; None if the actor gives up waiting before that."""
        waiting = asyncio.get_running_loop().create_task(_result_of(self._infos[box]))
        self._waiting[actor] = waiting
        await asyncio.wait([waiting])
        self._waiting.pop(actor, None)
        return None if waiting.cancelled() else waiting.result()

    def give_up(self, actor: str) -> None:
        """The actor is not to wait any more, if it does."""
        waiting = self._waiting.pop(actor, None)
        if waiting is not None:
            waiting.cancel()

    def is_waiting(self, actor: str) -> bool:
        return actor in self._waiting

    def listens(self, box: str, info: Info) -> bool:
        """Take down where a box listens; whether that is elsewhere than those who work at it may believe. False for an
        actor that is no box.
        """
        known = self._infos.get(box)
        if known is None:
            return False
        register_secret(info["api_key"])
        register_secret(info["api_secret"])
        moved = box in self._died_unseen
        self._died_unseen.discard(box)
        if not known.done():
            known.set_result(info)
            return moved
        moved = moved or any(known.result()[key] != info[key] for key in ADDRESSES)
        self.add(box)
        self._infos[box].set_result(info)
        return moved


async def _result_of(future: asyncio.Future[Info]) -> Info:
    """Wait for a future that others wait for as well."""
    return await asyncio.shield(future)
