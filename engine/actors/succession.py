"""What a supervisor leaves to the next one of the same engine, where that may follow it: in a cluster.

The living are asked of the runtime; this is what no living one knows. It is a small file of the state folder, replaced
whenever something in it changes, and says which engine it is of: a later engine on the same folder begins anew. It is
left there: one who follows a supervisor that had ended the engine, and died before anybody was told, starts nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import structlog

from engine.errors import ConfigError

FILE = "succession.json"

log = structlog.get_logger("engine.actors")


class Legacy(msgspec.Struct, kw_only=True):
    """``began_mono_ns``: when the engine's first supervisor began, by its host's monotonic clock. ``stop``: why the
    engine is to stop, once it is. ``detached``: strategies of the configuration that were taken out. ``report``: of the
    engine's end, once it has ended. ``newest``: the highest incarnation that was given, also by engines before.
    """

    engine_id: str
    began_mono_ns: int
    stop: str = ""
    problems: list[str] = []
    detached: list[str] = []
    report: dict[str, Any] | None = None
    newest: int = 0


class Succession:
    """The legacy of one engine: kept in a file, or with no path in this process's memory alone.

    ``inherited``: whether another supervisor of this engine was there before.
    """

    def __init__(self, engine_id: str, began_mono_ns: int, path: Path | None = None) -> None:
        self._path = path
        found = _read(path) if path is not None else None
        self.inherited = found is not None and found.engine_id == engine_id
        self.legacy = found if found is not None and self.inherited else Legacy(
            engine_id=engine_id, began_mono_ns=began_mono_ns, newest=found.newest if found is not None else 0
        )  # fmt: skip

    def save(self) -> None:
        """Leave it as it is now; to be called after each change."""
        if self._path is not None:
            try:
                self._write(self._path)
            except OSError as error:  # a full disk keeps no engine from its end, and no actor from its start
                log.error("what the next supervisor is to know cannot be written", error=str(error))

    def _write(self, path: Path) -> None:
        draft = path.with_name(f".{path.name}")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(self.legacy))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def next_incarnation(self, at_least: int) -> int:
        """The number of another life, above all before it, whatever the host's clock says by now."""
        self.legacy.newest = max(self.legacy.newest + 1, at_least)
        self.save()
        return self.legacy.newest

    def to_stop(self, reason: str) -> None:
        """The engine is to stop, whoever supervises it."""
        self.legacy.stop = reason
        self.save()

    def ended(self, report: dict[str, Any]) -> dict[str, Any]:
        """All actors have ended; the report of the supervisor who ended them."""
        if self.legacy.report is None:
            self.legacy.report = report
            self.save()
        return self.legacy.report

    def problem(self, text: str) -> None:
        """Something that keeps the run from being ok."""
        self.legacy.problems.append(text)
        self.save()

    def attached(self, strategy: str) -> None:
        """A strategy is wanted, also if it was taken out before."""
        if strategy in self.legacy.detached:
            self.legacy.detached.remove(strategy)
            self.save()

    def detached(self, strategy: str) -> None:
        """A strategy is not wanted any more."""
        self.legacy.detached.append(strategy)
        self.save()


def _read(path: Path) -> Legacy | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Legacy)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): stop the engine's processes and remove it") from error
