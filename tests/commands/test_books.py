"""``engine book``: a book from shared memory."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

from engine.book.order_book import OrderBook
from engine.book.shared import BookWriter
from engine.book.states import SyncState
from tests.commands.stand_in import StandIn


def test_a_book_is_read_from_shared_memory(call: Any, engine: StandIn) -> None:
    path = engine.paths.shm / "binance.BTC-USDT.book"
    writer = BookWriter(path, "BTC-USDT", -2, -4)
    try:
        code, out, _ = call("book", "binance/BTC-USDT", "--json")
        assert code == 0
        assert json.loads(out)["state"] == "stale"
        book = OrderBook("BTC-USDT", -2, -4)
        book.apply_snapshot([("59999.90", "1.5"), ("59999.80", "2")], [("60000.10", "0.25")])
        now = time.monotonic_ns()
        writer.heartbeat(now)
        writer.publish(book, 42, time.time_ns(), now, SyncState.SYNCED)
        data = json.loads(call("book", "binance/BTC-USDT", "--depth", "1", "--json")[1])
        assert data["update_id"] == 42
        assert [[Decimal(v) for v in level] for level in data["bids"]] == [[Decimal("59999.9"), Decimal("1.5")]]
        out = call("book", "binance/BTC-USDT")[1]
        assert "update 42, 2 bids, 1 asks" in out
        assert "59999.8" in out
        code, _, err = call("book", "binance/BTC-USD")
        assert code == 1
        assert "there is no book binance/BTC-USD; did you mean binance/BTC-USDT?" in err
    finally:
        writer.close(unlink=True)
