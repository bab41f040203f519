"""Telling without a query that a client order id was never seen.

Ids of one maker have a head of their own and grow (:mod:`engine.orders.ids`). So one that is greater than every id ever
seen with its head is new, and most are; of any other the journal has to be asked. So has it of an id that no order can
have: commands bring such ids as well, are refused, and the refusal is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from engine.orders.ids import STAMP_WIDTH, is_valid

KEPT_HEADS: Final = 1000


class SeenIds:
    """The greatest id of each maker. ``newest``: asks the journal for the greatest id that begins so; "" for none."""

    def __init__(self, newest: Callable[[str], str]) -> None:
        self._newest = newest
        self._by_head: OrderedDict[str, str] = OrderedDict()

    def is_new(self, client_order_id: str) -> bool:
        """Whether it was surely never seen; False if that has to be looked up."""
        head = client_order_id[:-STAMP_WIDTH]
        if not head or not is_valid(client_order_id):
            return False
        found = self._by_head.get(head)
        if found is None:
            found = self._by_head[head] = self._newest(head)
            if len(self._by_head) > KEPT_HEADS:
                self._by_head.popitem(last=False)
        return client_order_id > found

    def saw(self, client_order_id: str) -> None:
        """It is about to be written down."""
        head = client_order_id[:-STAMP_WIDTH]
        found = self._by_head.get(head)
        if found is not None and client_order_id > found:
            self._by_head[head] = client_order_id

    def forget(self) -> None:
        """The journal is another now."""
        self._by_head.clear()
