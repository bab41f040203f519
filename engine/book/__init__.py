"""Order books: exact levels, their sequence, and how processes on one host share them."""

from engine.book.checksums import Checksum, KrakenChecksum, OkxChecksum
from engine.book.decimals import exponent_of, format_mantissa
from engine.book.events import BestQuote, DepthDiff, DepthSnapshot, Levels
from engine.book.followed import FollowedBook
from engine.book.order_book import OrderBook
from engine.book.rules import (
    ChecksumRule,
    ConnectionNumbers,
    ContiguousRule,
    PreviousIdRule,
    RangeRule,
    ReplacingRule,
    SequenceRule,
    UnnumberedRule,
    Verdict,
)
from engine.book.shared import BookReader, BookWriter
from engine.book.standing import Standing, SyncCounters
from engine.book.states import ReadStatus, SyncState
from engine.book.sync import BookSync, QuoteMismatch, SyncReason, SyncResult
from engine.book.views import BestView, DepthView, Execution, TopView, Volume

__all__ = [
    "BestQuote",
    "BestView",
    "BookReader",
    "BookSync",
    "BookWriter",
    "Checksum",
    "ChecksumRule",
    "ConnectionNumbers",
    "ContiguousRule",
    "DepthDiff",
    "DepthSnapshot",
    "DepthView",
    "Execution",
    "FollowedBook",
    "KrakenChecksum",
    "Levels",
    "OkxChecksum",
    "OrderBook",
    "PreviousIdRule",
    "QuoteMismatch",
    "RangeRule",
    "ReadStatus",
    "ReplacingRule",
    "SequenceRule",
    "Standing",
    "SyncCounters",
    "SyncReason",
    "SyncResult",
    "SyncState",
    "TopView",
    "UnnumberedRule",
    "Verdict",
    "Volume",
    "exponent_of",
    "format_mantissa",
]
