"""Order books: exact levels, their sequence, and how processes on one host share them."""

from engine.book.decimals import exponent_of, format_mantissa
from engine.book.events import BestQuote, DepthDiff, DepthSnapshot, Levels
from engine.book.order_book import OrderBook
from engine.book.rules import RangeRule, SequenceRule, Verdict
from engine.book.states import ReadStatus, SyncState
from engine.book.sync import BookSync, QuoteMismatch, SyncCounters, SyncReason, SyncResult

__all__ = [
    "BestQuote",
    "BookSync",
    "DepthDiff",
    "DepthSnapshot",
    "Levels",
    "OrderBook",
    "QuoteMismatch",
    "RangeRule",
    "ReadStatus",
    "SequenceRule",
    "SyncCounters",
    "SyncReason",
    "SyncResult",
    "SyncState",
    "Verdict",
    "exponent_of",
    "format_mantissa",
]
