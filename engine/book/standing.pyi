from collections import deque
from typing import final

from engine.book.events import BestQuote
from engine.book.order_book import OrderBook
from engine.book.states import SyncState

@final
class SyncCounters:
    updates: int
    snapshots: int
    gaps: int
    resyncs: int
    rescales: int
    crossed: int
    bad_values: int
    overflows: int
    dropped: int
    bbo_checked: int
    bbo_equal: int
    checksums_ok: int
    checksums_failed: int
    old_runs: int
    audits: int
    audit_mismatches: int

@final
class UnreadQuote:
    @property
    def update_id(self) -> int: ...
    @property
    def bid(self) -> str: ...
    @property
    def bid_size(self) -> str: ...
    @property
    def ask(self) -> str: ...
    @property
    def ask_size(self) -> str: ...

class Standing:
    book: OrderBook
    counters: SyncCounters
    state: SyncState
    update_id: int
    time_ns: int
    _quotes: deque[BestQuote | UnreadQuote]
    _max_quotes: int
    _ranged: bool
    _follows_snapshot: bool
    _checks: bool
    _old_diffs: int
    _old_quotes: int
