"""The trading rules in a venue's reply that lists everything it trades."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import InvalidOperation
from typing import Generic, TypeVar

import msgspec

from engine.connectors.decoding import UNREADABLE
from engine.connectors.errors import MalformedReply
from engine.messages import TradingRule

R = TypeVar("R")
E = TypeVar("E")


class Listing(Generic[R, E]):
    """How one venue lists what it trades.

    ``name`` is the reply's, for errors. ``entries`` gives the raw entries of a reply of the type ``reply``; each is
    decoded as ``entry`` and made a rule by ``rule``, which raises ValueError for what is none.
    """

    def __init__(
        self,
        name: str,
        reply: type[R],
        entries: Callable[[R], Iterable[msgspec.Raw]],
        entry: type[E],
        rule: Callable[[E], TradingRule],
    ) -> None:
        self._name = name
        self._decode_reply = msgspec.json.Decoder(reply).decode
        self._decode_entry = msgspec.json.Decoder(entry).decode
        self._entries = entries
        self._rule = rule

    def rules(self, body: bytes | str) -> dict[str, TradingRule]:
        """Rules by pair; MalformedReply if it is no such reply. An entry that cannot be read costs no other."""
        try:
            reply = self._decode_reply(body)
        except UNREADABLE as error:
            raise MalformedReply(f"{self._name}: {error}") from error
        rules: dict[str, TradingRule] = {}
        for raw in self._entries(reply):
            try:
                rule = self._rule(self._decode_entry(raw))
            except (*UNREADABLE, InvalidOperation, ValueError):
                continue
            rules[rule.pair] = rule
        return rules
