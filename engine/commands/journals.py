"""Orders and fills read from the accounts' journals, for when no engine runs or an account does not answer.

Rows are as the running engine answers them: :class:`~engine.messages.Order` and
:class:`~engine.messages.OrderFill` as plain data, with their ``connector``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.orders.journal_reader import JournalReader


def exist(state_dir: Path) -> bool:
    """Whether any account has traded on this state folder."""
    return bool(_files(state_dir))


def orders(
    state_dir: Path, since_ns: int, open_only: bool, most: int, accounts: set[str] | None = None
) -> list[dict[str, Any]]:
    """The newest orders of all accounts, or of those named ``connector.account``, newest first."""
    from msgspec import to_builtins

    rows = [
        {"connector": connector, **to_builtins(order)}
        for connector, journal in _journals(state_dir, accounts)
        for order in journal.orders(since_ns=since_ns, open_only=open_only, limit=most)
    ]
    return sorted(rows, key=lambda row: row.get("created_ns", 0), reverse=True)[:most]


def fills(state_dir: Path, since_ns: int, most: int, accounts: set[str] | None = None) -> list[dict[str, Any]]:
    """The newest fills of all accounts, or of those named ``connector.account``, newest first."""
    from msgspec import to_builtins

    rows = [
        {"connector": connector, **to_builtins(fill)}
        for connector, journal in _journals(state_dir, accounts)
        for fill in journal.fills(since_ns=since_ns, limit=most)
    ]
    return sorted(rows, key=lambda row: row["fill"]["time_ns"], reverse=True)[:most]


def _journals(state_dir: Path, accounts: set[str] | None) -> Iterator[tuple[str, JournalReader]]:
    from engine.orders.journal import Journal

    for path in _files(state_dir):
        if accounts is not None and path.stem not in accounts:
            continue
        connector = path.stem.rpartition(".")[0]
        with Journal.open_readonly(path) as journal:
            yield connector, journal


def _files(state_dir: Path) -> list[Path]:
    return sorted((state_dir / "accounts").glob("*.*.db"))
