"""What each venue's frames say, decoded once more: by :mod:`json` and by hand, without regard to speed.

A function a venue: the frame's bytes, the pairs of its symbols and a memory in, the events out; Refused for a frame
that the venue's documentation does not allow. The memory is of which channel each symbol's book is taken from, where a
venue has several. It shares no decoding with the connectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.connectors.base import Ack, MarketEvent, PublicTrade, Send, VenueNotice
from engine.fuzzing.strict import (
    INT64,
    MILLIS,
    Check,
    Refused,
    amount,
    array,
    boolean,
    decimal,
    either,
    field,
    id_text,
    ident,
    integer,
    matching,
    millis,
    millis_or_micros,
    millis_text,
    nullable,
    obj,
    one_of,
    pairs,
    pairs_or_early,
    parse,
    refuse,
    text,
)
from engine.messages import Side

PairOf = Callable[[str], str | None]
Memory = dict[str, str]
Events = list[MarketEvent]
_MS = 1_000_000
_ANY_ID = nullable(either(integer(), text))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _when(value: int) -> int:
    return value * _MS if value <= MILLIS else value * 1_000


def _side(bought: bool) -> Side:
    return Side.BUY if bought else Side.SELL


def _known(pair: str | None, make: Callable[[str], MarketEvent]) -> Events:
    return [] if pair is None else [make(pair)]


# ----------------------------------------------------------------------------------------------------- Binance


def binance(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    frame = parse(data)
    if isinstance(frame, list):
        return _all_symbols(frame)
    frame = obj(frame)
    stream = frame.get("stream")
    as_written = data.startswith(b'{"stream":"') and _named_early(data)
    kind = stream.partition("@")[2] if isinstance(stream, str) and as_written else ""
    if kind == "depth" or kind.startswith("depth@"):
        return _binance_depth(obj(field(frame, "data", obj)), pair_of)
    if kind == "bookTicker":
        return _binance_quote(field(frame, "data", obj), pair_of)
    if kind == "trade":
        return _binance_trade(field(frame, "data", obj), pair_of)
    return _binance_rare(frame, pair_of)


def _named_early(data: bytes) -> bool:
    """Whether the stream's name has its @ within the first 64 bytes, as the venue writes it."""
    at = data.find(b"@", 11, 64)
    return at > 0 and b'"' not in data[11:at] and b"\\" not in data[at : data.find(b'"', at)]


def _all_symbols(events: list[Any]) -> Events:
    for event in events:
        field(obj(event), "e", text, "")
    return [] if events else refuse("an empty list")


def _binance_rare(frame: dict[str, Any], pair_of: PairOf) -> Events:
    stream, kind = field(frame, "stream", text, ""), field(frame, "e", text, "")
    update_id = field(frame, "u", nullable(integer()), None)
    error = field(frame, "error", nullable(obj), None)
    said = (field(error, "code", integer(), 0), field(error, "msg", text, "")) if error is not None else None
    code, words = field(frame, "code", nullable(integer()), None), field(frame, "msg", text, "")
    number, last = field(frame, "id", _ANY_ID, None), field(frame, "lastUpdateId", nullable(integer()), None)
    if stream:
        return _binance_named("bookTicker" if stream == "!bookTicker" else stream.partition("@")[2], frame, pair_of)
    if kind == "depthUpdate":
        return _binance_depth(frame, pair_of)
    if kind == "trade":
        return _binance_trade(frame, pair_of)
    if kind == "aggTrade":
        return _binance_aggregate(frame, pair_of)
    if kind:
        return _shutdown(kind)
    if update_id is not None:
        return _binance_quote(frame, pair_of)
    if said is not None:
        return [VenueNotice(str(said[0]), said[1])]
    if code is not None:
        return [VenueNotice(str(code), words)]
    if "result" in frame:
        return [Ack(number)]
    if "data" in frame:
        return _shutdown(field(obj(frame["data"]), "e", text, ""))
    return [] if last is not None else refuse("neither an event nor an answer")


def _binance_named(kind: str, frame: dict[str, Any], pair_of: PairOf) -> Events:
    event = frame.get("data")
    if kind == "depth" or kind.startswith("depth@"):
        return _binance_depth(obj(event), pair_of)
    if kind == "bookTicker":
        return _binance_quote(obj(event), pair_of)
    if kind == "trade":
        return _binance_trade(obj(event), pair_of)
    if kind == "aggTrade":
        return _binance_aggregate(obj(event), pair_of)
    return _shutdown(field(event, "e", text, "")) if isinstance(event, dict) else []


def _shutdown(kind: str) -> Events:
    if kind != "serverShutdown":
        return []
    return [VenueNotice(kind, "the venue announced that this connection will end", reconnect=True)]


def _binance_depth(event: dict[str, Any], pair_of: PairOf) -> Events:
    at, symbol = field(event, "E", millis_or_micros), field(event, "s", text)
    first, last = field(event, "U", ident), field(event, "u", ident)
    bids, asks = field(event, "b", pairs_or_early), field(event, "a", pairs_or_early)
    lengths = {len(level) for side in ("b", "a") for level in event[side]}
    if len(lengths) > 1:
        refuse("levels of two kinds")
    pair = pair_of(symbol)
    if pair is not None and last < first:
        refuse("a range that ends before it begins")
    return _known(pair, lambda name: DepthDiff(name, first, last, None, bids, asks, _when(at)))


def _binance_quote(event: dict[str, Any], pair_of: PairOf) -> Events:
    update_id, symbol = field(event, "u", ident), field(event, "s", text)
    bid, bid_size, ask, ask_size = (field(event, name, text) for name in "bBaA")
    return _known(pair_of(symbol), lambda pair: BestQuote(pair, update_id, bid, bid_size, ask, ask_size))


def _binance_trade(event: dict[str, Any], pair_of: PairOf) -> Events:
    return _binance_exchanged(event, "t", millis_or_micros, pair_of)


def _binance_aggregate(event: dict[str, Any], pair_of: PairOf) -> Events:
    return _binance_exchanged(event, "a", millis_or_micros, pair_of)


def _binance_exchanged(event: dict[str, Any], number_in: str, time: Check, pair_of: PairOf) -> Events:
    symbol, number = field(event, "s", text), field(event, number_in, ident)
    price, size = field(event, "p", amount), field(event, "q", amount)
    at, side = field(event, "T", time), _side(not field(event, "m", boolean))
    is_aggregated = number_in == "a"
    return _known(
        pair_of(symbol), lambda pair: PublicTrade(pair, str(number), price, size, side, _when(at), is_aggregated)
    )


def binance_perpetual(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    frame = parse(data)
    if isinstance(frame, list):
        return _all_symbols(frame)
    frame = obj(frame)
    stream, kind = field(frame, "stream", text, ""), field(frame, "e", text, "")
    number = field(frame, "id", _ANY_ID, None)
    error = field(frame, "error", nullable(obj), None)
    said = (field(error, "code", integer(), 0), field(error, "msg", text, "")) if error is not None else None
    code, words = field(frame, "code", nullable(integer()), None), field(frame, "msg", text, "")
    if stream:
        event = frame.get("data")
        if not isinstance(event, dict):
            return []
        kind, name = field(event, "e", text, ""), stream.partition("@")[2]
        if kind == "depthUpdate" and name != "depth" and not name.startswith("depth@"):
            return []
        return _perpetual_event(kind, event, pair_of)
    if kind:
        return _perpetual_event(kind, frame, pair_of)
    if said is not None:
        return [VenueNotice(str(said[0]), said[1])]
    if code is not None:
        return [VenueNotice(str(code), words)]
    return [Ack(number)] if "result" in frame else refuse("neither an event nor an answer")


def _perpetual_event(kind: str, event: dict[str, Any], pair_of: PairOf) -> Events:
    if not kind:
        refuse("an event of no kind")
    if kind == "bookTicker":
        return _binance_quote(event, pair_of)
    if kind == "depthUpdate":
        return _perpetual_depth(event, pair_of)
    if kind == "aggTrade":
        return _binance_exchanged(event, "a", millis, pair_of)
    if kind == "trade":
        trades = _binance_exchanged(event, "t", millis, pair_of)
        return [trade for trade in trades if isinstance(trade, PublicTrade) and Decimal(trade.size)]
    return _shutdown(kind)


def _perpetual_depth(event: dict[str, Any], pair_of: PairOf) -> Events:
    time_ms, symbol = field(event, "E", millis), field(event, "s", text)
    first, last, previous = (field(event, name, ident) for name in ("U", "u", "pu"))
    bids, asks = field(event, "b", pairs), field(event, "a", pairs)
    if last < first or last < previous:
        refuse("a range that ends before it begins")
    return _known(pair_of(symbol), lambda pair: DepthDiff(pair, first, last, previous, bids, asks, time_ms * _MS))


# ------------------------------------------------------------------------------------------------------ Kraken

_SECONDS = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")


def kraken_v1(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    frame = parse(data)
    if isinstance(frame, dict):
        return _kraken_said(frame)
    items = array(frame)
    if len(items) == 3 and text(items[1]) in ("ownTrades", "openOrders"):
        return []
    if len(items) < 4:
        refuse("too short")
    channel, symbol = text(items[-2]), text(items[-1])
    book = re.fullmatch(r"book-([0-9]{1,4})", channel)
    if book:
        events = _kraken_book([_kraken_part(item) for item in items[1:-2]], pair_of(symbol), int(book[1]))
        return _kraken_kept(symbol, channel, events, memory)
    if channel == "trade" and len(items) == 4:
        return _kraken_trades(items[1], pair_of(symbol))
    return [] if re.fullmatch(r"ticker|spread|ohlc(-[0-9]+)?", channel) else refuse("no such channel")


def _kraken_kept(symbol: str, channel: str, events: Events, memory: Memory) -> Events:
    depth = str(int(channel.removeprefix("book-")))
    if events and isinstance(events[0], DepthSnapshot):
        memory[symbol] = depth
    return events if memory.get(symbol, depth) == depth else []


def _kraken_said(frame: dict[str, Any]) -> Events:
    event, status = field(frame, "event", text), field(frame, "status", text, "")
    words, number = field(frame, "errorMessage", text, ""), field(frame, "reqid", nullable(integer()), None)
    if event == "error" or (event == "subscriptionStatus" and status == "error"):
        return [VenueNotice(event, words)]
    if event == "subscriptionStatus":
        return [Ack(number)]
    return [VenueNotice(event, status)] if event == "systemStatus" and status != "online" else []


def _kraken_levels(value: Any) -> list[list[str]]:
    levels = [[text(part) for part in array(level)] for level in array(value)]
    return levels if all(3 <= len(level) <= 4 for level in levels) else refuse("no level")


def _kraken_part(value: Any) -> dict[str, Any]:
    part = obj(value)
    found = {name: field(part, name, nullable(_kraken_levels), None) for name in ("as", "bs", "a", "b")}
    return {**found, "c": field(part, "c", nullable(matching(r"[0-9]{1,10}")), None)}


def _kraken_book(parts: list[dict[str, Any]], pair: str | None, depth: int) -> Events:
    first = parts[0]
    if first["as"] is not None or first["bs"] is not None:
        asks = [level for part in parts for level in part["as"] or []]
        bids = [level for part in parts for level in part["bs"] or []]
        time_ns = max((_seconds(level[2]) for level in (*asks, *bids)), default=0)
        return _known(pair, lambda name: DepthSnapshot(name, 0, bids, asks, time_ns, None, depth))
    if any(part["a"] is None and part["b"] is None for part in parts):
        refuse("neither bids nor asks")
    asks = [level for part in parts for level in part["a"] or []]
    bids = [level for part in parts for level in part["b"] or []]
    time_ns = max((_seconds(level[2]) for level in (*asks, *bids)), default=0)
    sums = [int(part["c"]) for part in parts if part["c"] is not None]
    checksum = sums[-1] if sums else None
    return _known(pair, lambda name: DepthDiff(name, 0, 0, None, bids, asks, time_ns, checksum))


def _kraken_trades(value: Any, pair: str | None) -> Events:
    events: Events = []
    for number, trade in enumerate(array(value)):
        price, size, at, side, kind, misc = array(trade) if len(array(trade)) == 6 else refuse("no trade")
        amount(price), amount(size), one_of("b", "s")(side), text(kind), text(misc)
        time_ns = _seconds(text(at))
        if pair is not None:
            events.append(PublicTrade(pair, f"{at}-{number}", price, size, _side(side == "b"), time_ns))
    return events


def _seconds(value: str) -> int:
    match = _SECONDS.fullmatch(value)
    if match is None or int(match[1]) > 9_000_000_000:
        refuse("no time")
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))


# --------------------------------------------------------------------------------------------------------- OKX


def okx(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    if data == b"pong":
        return []
    frame = obj(parse(data))
    arg = field(frame, "arg", nullable(obj), None)
    channel = field(arg, "channel", text, "") if arg is not None else ""
    symbol = field(arg, "instId", text, "") if arg is not None else ""
    action, event = field(frame, "action", text, ""), field(frame, "event", text, "")
    code, words = field(frame, "code", text, ""), field(frame, "msg", text, "")
    if event:
        return _okx_said(event, code, words)
    if arg is None or "data" not in frame:
        refuse("neither an event nor data")
    if channel in ("books", "books-l2-tbt", "books50-l2-tbt", "books5"):
        books = [_okx_book(one) for one in array(frame["data"])]
        action = "snapshot" if channel == "books5" else action
        if action not in ("snapshot", "update"):
            refuse("neither snapshot nor update")
        pair = pair_of(symbol)
        if pair is None:
            return []
        if memory.get(symbol) in (None, "books5"):
            memory[symbol] = channel
        return [_okx_event(pair, action, book) for book in books] if memory[symbol] == channel else []
    if channel == "trades":
        return [trade for one in array(frame["data"]) for trade in _okx_trade(obj(one), pair_of)]
    return []


def _okx_said(event: str, code: str, words: str) -> Events:
    if event in ("subscribe", "unsubscribe"):
        return [Ack(None)]
    if event in ("error", "notice"):
        return [VenueNotice(code, words, reconnect=event == "notice" and code == "64008")]
    return []


def _okx_levels(value: Any) -> list[list[str]]:
    levels = [[text(part) for part in array(level)] for level in array(value)]
    return levels if all(len(level) >= 2 for level in levels) else refuse("no level")


def _okx_book(value: Any) -> dict[str, Any]:
    book = obj(value)
    number = nullable(integer(-1, INT64))
    return {
        "asks": field(book, "asks", _okx_levels),
        "bids": field(book, "bids", _okx_levels),
        "ts": int(field(book, "ts", millis_text)),
        "checksum": field(book, "checksum", integer(-(2**31), 2**31 - 1), 0) or None,
        "id": field(book, "seqId", number, None),
        "previous": field(book, "prevSeqId", number, None),
    }


def _okx_event(pair: str, action: str, book: dict[str, Any]) -> MarketEvent:
    number = book["ts"] if book["id"] is None else book["id"]
    rest = book["bids"], book["asks"], book["ts"] * _MS, book["checksum"]
    if action == "snapshot":
        return DepthSnapshot(pair, number, *rest)
    if book["id"] is not None and book["previous"] is None:
        refuse("no prevSeqId")
    return DepthDiff(pair, number, number, book["previous"] if book["id"] is not None else None, *rest)


def _okx_trade(trade: dict[str, Any], pair_of: PairOf) -> Events:
    symbol, number = field(trade, "instId", text), field(trade, "tradeId", text)
    price, size = field(trade, "px", amount), field(trade, "sz", amount)
    bought, time_ms = field(trade, "side", one_of("buy", "sell")) == "buy", int(field(trade, "ts", millis_text))
    return _known(pair_of(symbol), lambda pair: PublicTrade(pair, number, price, size, _side(bought), time_ms * _MS))


# --------------------------------------------------------------------------------------------------- Coinbase


def coinbase_exchange(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    frame = parse(data)
    if isinstance(frame, list):
        words = [text(word) for word in frame]
        return [] if words and words[0] else refuse("a list that says nothing")
    frame = obj(frame)
    kind = field(frame, "type", text)
    words, reason = field(frame, "message", text, ""), field(frame, "reason", text, "")
    if kind == "l2update":
        return _coinbase_update(frame, pair_of)
    if kind == "snapshot":
        symbol, bids, asks = field(frame, "product_id", text), field(frame, "bids", pairs), field(frame, "asks", pairs)
        time_ns = _iso(field(frame, "time", text, "") or None)
        return _known(pair_of(symbol), lambda pair: DepthSnapshot(pair, 0, bids, asks, time_ns))
    if kind == "match":
        symbol, number = field(frame, "product_id", text), field(frame, "trade_id", ident)
        price, size = field(frame, "price", amount), field(frame, "size", amount)
        bought = field(frame, "side", one_of("buy", "sell")) == "sell"
        at = _iso(field(frame, "time", text))
        return _known(pair_of(symbol), lambda pair: PublicTrade(pair, str(number), price, size, _side(bought), at))
    if kind == "subscriptions":
        return [Ack(None)]
    if kind == "error":
        return [VenueNotice("error", f"{words} {reason}".strip())]
    return refuse("a book of no kind") if not kind or "changes" in frame or "asks" in frame else []


def _coinbase_update(frame: dict[str, Any], pair_of: PairOf) -> Events:
    symbol, at = field(frame, "product_id", text), _iso(field(frame, "time", text, "") or None)
    sides: dict[str, list[tuple[str, str]]] = {"buy": [], "sell": []}
    for change in array(field(frame, "changes", array)):
        side, price, size = array(change) if len(array(change)) == 3 else refuse("no change")
        sides[one_of("buy", "sell")(side)].append((text(price), text(size)))
    return _known(pair_of(symbol), lambda pair: DepthDiff(pair, 0, 0, None, sides["buy"], sides["sell"], at))


def _iso(value: str | None) -> int:
    if value is None:
        return 0
    if re.fullmatch(r"0001-01-01T00:00:00(\.0{1,9})?Z", value):
        return 0
    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z", value)
    if match is None or int(match[2]) > 60:
        refuse("no time")
    try:
        minute = datetime.strptime(match[1], "%Y-%m-%dT%H:%M").replace(tzinfo=UTC)
    except ValueError:
        refuse("no date")
    if not 1970 <= minute.year < 2262:
        refuse("out of range")
    seconds = (minute - _EPOCH) // timedelta(seconds=1) + int(match[2])
    return seconds * 10**9 + int((match[3] or "").ljust(9, "0"))


# ------------------------------------------------------------------------------------------------------ KuCoin


def kucoin(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    frame = obj(parse(data))
    kind, topic = field(frame, "type", text), field(frame, "topic", text, "")
    subject = field(frame, "subject", text, "")
    number = field(frame, "id", _ANY_ID, None)
    code = field(frame, "code", _ANY_ID, None)
    if kind == "message":
        return _kucoin_message(topic, subject, frame.get("data"), pair_of)
    if kind == "ack":
        return [Ack(number)]
    if kind == "error":
        return [VenueNotice(str(code), "")]
    return [] if kind in ("welcome", "pong", "notice", "command") else refuse("no such type")


def _kucoin_message(topic: str, subject: str, data: Any, pair_of: PairOf) -> Events:
    if not topic:
        refuse("no topic")
    channel, _, symbol = topic.partition(":")
    if channel == "/market/level2" and ":" in topic:
        return _kucoin_update(obj(data), pair_of)
    if channel == "/market/match" and ":" in topic:
        return _kucoin_match(obj(data), pair_of)
    if channel == "/market/ticker" and ":" in topic:
        return _kucoin_quote(obj(data), pair_of(subject if symbol == "all" else symbol))
    return []


def _kucoin_changes(value: Any) -> list[tuple[str, str]]:
    changes = []
    for change in array(value):
        price, size, number = array(change) if len(array(change)) == 3 else refuse("no change")
        changes.append((int(id_text(number)), text(price), text(size)))
    changes.sort(key=lambda change: change[0])
    return [(price, size) for _, price, size in changes if price.strip("0.")]


def _kucoin_update(data: dict[str, Any], pair_of: PairOf) -> Events:
    symbol, time_ms = field(data, "symbol", text), field(data, "time", millis, 0)
    first, last = field(data, "sequenceStart", ident), field(data, "sequenceEnd", ident)
    changes = field(data, "changes", obj)
    bids, asks = field(changes, "bids", _kucoin_changes), field(changes, "asks", _kucoin_changes)
    if last < first:
        refuse("a range that ends before it begins")
    return _known(pair_of(symbol), lambda pair: DepthDiff(pair, first, last, None, bids, asks, time_ms * _MS))


def _kucoin_match(data: dict[str, Any], pair_of: PairOf) -> Events:
    symbol, number = field(data, "symbol", text), field(data, "tradeId", text)
    price, size = field(data, "price", amount), field(data, "size", amount)
    bought = field(data, "side", one_of("buy", "sell")) == "buy"
    time_ns = int(field(data, "time", matching(r"[0-9]{1,18}|[0-8][0-9]{18}")))
    return _known(pair_of(symbol), lambda pair: PublicTrade(pair, number, price, size, _side(bought), time_ns))


def _kucoin_quote(data: dict[str, Any], pair: str | None) -> Events:
    number = int(field(data, "sequence", id_text))
    names = ("bestBid", "bestBidSize", "bestAsk", "bestAskSize")
    best = [field(data, name, nullable(text), None) for name in names]
    if pair is None or None in best:
        return []
    return [BestQuote(pair, number, *best)]


# --------------------------------------------------------------------------------------------------------- HTX


def htx(data: bytes, pair_of: PairOf, memory: Memory) -> Events:
    """Of the content; compression is the caller's."""
    frame = obj(parse(data))
    channel, ping = field(frame, "ch", text, ""), field(frame, "ping", nullable(ident), None)
    time_ms = field(frame, "ts", millis, 0)
    field(frame, "subbed", nullable(text), None)
    number, status, reply = (
        field(frame, "id", _ANY_ID, None),
        field(frame, "status", text, ""),
        field(frame, "rep", text, ""),
    )
    code, words = field(frame, "err-code", text, ""), field(frame, "err-msg", text, "")
    if ping is not None:
        return [Send(f'{{"pong":{ping}}}')]
    if channel:
        return _htx_data(channel, frame.get("tick"), time_ms, pair_of, memory)
    if status == "ok":
        book = re.fullmatch(r"market\.([a-z0-9]+)\.mbp\.([0-9]{1,3})", reply)
        if book is None or frame.get("data") is None:
            return [Ack(number)]
        return _htx_reply(book[1], book[2], obj(frame["data"]), time_ms, pair_of, memory)
    return [VenueNotice(code, words)] if status == "error" else refuse("neither a ping, an answer nor data")


def _htx_data(channel: str, tick: Any, time_ms: int, pair_of: PairOf, memory: Memory) -> Events:
    match = re.fullmatch(r"market\.([a-z0-9]+)\.(depth\.step0|trade\.detail|mbp\.[0-9]{1,3})", channel)
    if match is None:
        return []
    symbol, kind = match[1], match[2]
    if kind == "trade.detail":
        return _htx_trades(pair_of(symbol), obj(tick))
    if kind == "depth.step0":
        events = _htx_book(pair_of(symbol), obj(tick))
    else:
        events = _htx_change(pair_of(symbol), obj(tick), time_ms)
    return _htx_kept(symbol, kind, events, memory)


def _htx_kept(symbol: str, kind: str, events: Events, memory: Memory) -> Events:
    return events if not events or memory.setdefault(symbol, kind) == kind else []


def _htx_sides(book: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return field(book, "bids", _htx_levels, []), field(book, "asks", _htx_levels, [])


def _htx_change(pair: str | None, tick: dict[str, Any], time_ms: int) -> Events:
    number, previous = field(tick, "seqNum", ident), field(tick, "prevSeqNum", nullable(ident), None)
    bids, asks = _htx_sides(tick)
    if previous is None or previous > number:
        refuse("no number before it")
    return _known(pair, lambda name: DepthDiff(name, number, number, previous, bids, asks, time_ms * _MS))


def _htx_reply(symbol: str, levels: str, data: dict[str, Any], time_ms: int, pair_of: PairOf, memory: Memory) -> Events:
    number, (bids, asks) = field(data, "seqNum", ident), _htx_sides(data)
    field(data, "prevSeqNum", nullable(ident), None)
    events = _known(
        pair_of(symbol), lambda name: DepthSnapshot(name, number, bids, asks, time_ms * _MS, None, int(levels))
    )
    return _htx_kept(symbol, f"mbp.{levels}", events, memory)


def _htx_levels(value: Any) -> list[tuple[str, str]]:
    levels = [array(level) if len(array(level)) == 2 else refuse("no level") for level in array(value)]
    return [(str(decimal(price)), str(decimal(size))) for price, size in levels]


def _htx_book(pair: str | None, tick: dict[str, Any]) -> Events:
    bids, asks = field(tick, "bids", _htx_levels), field(tick, "asks", _htx_levels)
    time_ms, version = field(tick, "ts", millis), field(tick, "version", nullable(ident), None)
    number = time_ms if version is None else version
    return _known(pair, lambda name: DepthSnapshot(name, number, bids, asks, time_ms * _MS))


def _htx_trades(pair: str | None, tick: dict[str, Any]) -> Events:
    events: Events = []
    for one in array(field(tick, "data", array)):
        trade = obj(one)
        price, size = field(trade, "price", decimal), field(trade, "amount", decimal)
        bought = field(trade, "direction", one_of("buy", "sell")) == "buy"
        time_ms, number = field(trade, "ts", millis), field(trade, "tradeId", nullable(ident), None)
        texts = str(number or ""), f"{price:f}", f"{size:f}"
        if pair is not None:
            events.append(PublicTrade(pair, *texts, _side(bought), time_ms * _MS))
    return events


REFERENCES: dict[str, Callable[[bytes, PairOf, Memory], Events]] = {
    "binance": binance,
    "binance_perpetual": binance_perpetual,
    "coinbase_exchange": coinbase_exchange,
    "htx": htx,
    "kraken_v1": kraken_v1,
    "kucoin": kucoin,
    "okx": okx,
}

__all__ = ["REFERENCES", "Events", "PairOf", "Refused"]
