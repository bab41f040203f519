"""A book at the far end of an order-book actor's ``depth`` stream: every change, in order, none missing.

Pure: fed with the stream's messages and with snapshots that were asked for, it says when to ask for one::

    subscribe to ``depth`` of the pair ─▶ on_changed(message)          True: send GetBook
    the subscription came up, lost something or went down ─▶ on_lost() True: send GetBook
    the answer ─▶ on_snapshot(reply)                                   True: ask again
"""

from __future__ import annotations

from collections import deque

from engine.book.order_book import OrderBook
from engine.messages import BookChanged, BookSnapshot

MOST_WAITING = 10_000


class FollowedBook:
    """Keeps a copy of one pair's book.

    ``is_synced``: the copy is the actor's book as of ``update_id``, and that is the venue's. Otherwise ``book`` is the
    last known one. ``lost`` counts how often something was missing.
    """

    def __init__(self, pair: str) -> None:
        self.book = OrderBook(pair, 0, 0)
        self.pair = pair
        self.is_synced = False
        self.update_id = 0
        self.sequence: int | None = None
        self.lost = 0
        self._waiting: deque[BookChanged] = deque(maxlen=MOST_WAITING)

    def on_changed(self, change: BookChanged) -> bool:
        """A change of the pair. True: a snapshot is needed."""
        if change.whole:
            self._waiting.clear()
            self._load(change)
            return False
        if self.sequence is None:
            self._waiting.append(change)
            return len(self._waiting) == 1
        if change.sequence <= self.sequence:
            return False
        if change.sequence != self.sequence + 1:
            self.lost += 1
            self._begin_anew()
            self._waiting.append(change)
            return True
        self._apply(change)
        return False

    def on_snapshot(self, snapshot: BookSnapshot) -> bool:
        """The answer to ``GetBook``. True: it came too late, and another is needed."""
        if self.sequence is not None and snapshot.sequence <= self.sequence:
            return False
        waiting = [change for change in self._waiting if change.sequence > snapshot.sequence]
        self._waiting.clear()
        self._load(snapshot)
        for at, change in enumerate(waiting):
            if self.on_changed(change):
                self._waiting.extend(waiting[at + 1 :])
                return True
        return False

    def on_lost(self) -> bool:
        """The stream came up anew, or some of its messages did not come: what is known is worth nothing."""
        self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        self.is_synced = False
        self.sequence = None
        self._waiting.clear()

    def _load(self, whole: BookChanged | BookSnapshot) -> None:
        if whole.state == "synced":
            self.book.apply_snapshot(whole.bids, whole.asks)
        self._stand(whole)

    def _apply(self, change: BookChanged) -> None:
        if change.state == "synced":
            self.book.apply_diff(change.bids, change.asks)
        self._stand(change)

    def _stand(self, message: BookChanged | BookSnapshot) -> None:
        self.sequence = message.sequence
        self.update_id = message.update_id
        self.is_synced = message.state == "synced"
