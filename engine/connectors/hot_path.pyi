from typing import final

from engine.book.sync import BookSync
from engine.connectors.base import ConnectionPlan
from engine.connectors.feed import FeedResult
from engine.connectors.symbols import SymbolMap

class FrameScanner: ...

@final
class FeedCounters:
    frames: int
    unparsed: int
    diffs: int
    quotes: int
    trades: int
    unknown: int

@final
class Revision:
    number: int

class FrameIntake:
    books: dict[str, BookSync]
    counters: FeedCounters
    last_frame_mono_ns: int
    @property
    def hot(self) -> int: ...
    @property
    def nothing(self) -> FeedResult: ...
    def __init__(
        self,
        books: dict[str, BookSync],
        nothing: FeedResult,
        scanner: FrameScanner | None = None,
        symbols: SymbolMap | None = None,
    ) -> None: ...
    def on_frame(self, conn: ConnectionPlan, data: str | bytes, received_mono_ns: int) -> FeedResult: ...
