"""HALT on disk: written by the risk actor alone, read by every exchange actor before its first send."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.errors import JournalError
from engine.orders.risk import TradingState

FILE_NAME = "trading.json"


class Trading(msgspec.Struct, frozen=True, kw_only=True):
    """The trading state of the whole engine, why, and since when (nanoseconds since the epoch)."""

    state: TradingState = TradingState.ACTIVE
    reason: str = ""
    since_ns: int = 0


def read_trading(state_dir: Path) -> Trading:
    """What was last written; active if nothing was. JournalError for a file that cannot be read: never trade blind."""
    path = state_dir / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trading)
    except FileNotFoundError:
        return Trading()
    except (OSError, msgspec.MsgspecError) as error:
        raise JournalError(f"{path} cannot be read ({error}); put it right, or remove it to trade again") from error


def write_trading(state_dir: Path, trading: Trading) -> None:
    """Replace it, on disk when this returns; JournalError if it cannot be."""
    path = state_dir / FILE_NAME
    draft = path.with_suffix(".new")
    try:
        with open(draft, "wb") as file:
            file.write(msgspec.json.encode(trading))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(state_dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise JournalError(f"{path} cannot be written: {error}") from error
