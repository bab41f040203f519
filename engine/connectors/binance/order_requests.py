"""Requests of Binance's WebSocket API that place and cancel orders, written with as little work as can be.

Source: "Request security" and "Trading requests" of the Spot WebSocket API documentation (2026): parameters are signed
sorted by name, joined by ``&``, and not percent-encoded. What never changes is made once; what a symbol or an id may
not contain is checked by whoever makes them, so that nothing needs escaping.
"""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec

from engine.connectors.binance import constants
from engine.connectors.errors import FilterFailure
from engine.connectors.settings import Credentials
from engine.connectors.symbols import SymbolMap
from engine.messages import Order, OrderType, Reason, Side

ORDER_TYPES = {
    OrderType.LIMIT: "LIMIT",
    OrderType.LIMIT_MAKER: "LIMIT_MAKER",
    OrderType.MARKET: "MARKET",
}

ORDER_ID, CLIENT_ID = "orderId", "origClientOrderId"
_PLAIN = re.compile(r'[^"\\\x00-\x1f\x7f-\x9f]*')
_BLOCK = 64


class Hmac:
    """HMAC-SHA256 under one key, whose two halves are hashed once and copied for each message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: str) -> None:
        key = secret.encode()
        key = (sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def sign(self, payload: str) -> str:
        """The signature of a payload, hexadecimal."""
        inner = self._inner.copy()
        inner.update(payload.encode())
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class OrderRequests:
    """Writes signed requests of one account. ``now_ms``: the venue's time; ``number``: the request's id."""

    def __init__(self, symbols: SymbolMap, credentials: Credentials, recv_window_ms: int) -> None:
        self._symbols = symbols
        self._hmac = Hmac(credentials.api_secret)
        self._key = credentials.api_key
        self._key_json = msgspec.json.encode(credentials.api_key).decode()
        self._window = recv_window_ms

    def place(self, order: Order, number: int, now_ms: int) -> str:
        """``order.place``; FilterFailure for an order that cannot be written."""
        client_order_id = order.client_order_id
        check_client_order_id(client_order_id)
        symbol = self._symbol(order.pair)
        kind = ORDER_TYPES[order.order_type]
        side = "BUY" if order.side is Side.BUY else "SELL"
        size = f"{order.size:f}"
        price = in_force = price_json = in_force_json = ""
        if order.order_type is not OrderType.MARKET:
            text = price_text(order)
            price, price_json = f"&price={text}", f'"price":"{text}",'
        if order.order_type is OrderType.LIMIT:
            in_force, in_force_json = "&timeInForce=GTC", '"timeInForce":"GTC",'
        signature = self._hmac.sign(
            f"apiKey={self._key}&newClientOrderId={client_order_id}&newOrderRespType=FULL{price}&quantity={size}"
            f"&recvWindow={self._window}&side={side}&symbol={symbol}{in_force}&timestamp={now_ms}&type={kind}"
        )
        return (
            f'{{"id":{number},"method":"order.place","params":{{"symbol":"{symbol}","side":"{side}","type":"{kind}",'
            f'{in_force_json}{price_json}"quantity":"{size}","newClientOrderId":"{client_order_id}",'
            f'"newOrderRespType":"FULL","apiKey":{self._key_json},"recvWindow":{self._window},"timestamp":{now_ms},'
            f'"signature":"{signature}"}}}}'
        )

    def cancel(self, order: Order, number: int, now_ms: int) -> str:
        """``order.cancel``."""
        key, name = named(order)
        symbol = self._symbol(order.pair)
        signature = self._hmac.sign(
            f"apiKey={self._key}&{key}={name}&recvWindow={self._window}&symbol={symbol}&timestamp={now_ms}"
        )
        name_json = name if key == ORDER_ID else f'"{name}"'
        return (
            f'{{"id":{number},"method":"order.cancel","params":{{"symbol":"{symbol}",'
            f'"{key}":{name_json},"apiKey":{self._key_json},"recvWindow":{self._window},'
            f'"timestamp":{now_ms},"signature":"{signature}"}}}}'
        )

    def _symbol(self, pair: str) -> str:
        symbol = self._symbols.symbol(pair)
        if not _PLAIN.fullmatch(symbol):
            raise FilterFailure("local", f"{symbol!r} can be no symbol", Reason.UNKNOWN_PAIR)
        return symbol


def named(order: Order) -> tuple[str, str]:
    """By which parameter an order is named, and how: the venue's id where it is known, else the client's, which a
    person who amends the order changes ("Order Amend Keep Priority"). FilterFailure for one that has no valid id.
    """
    if order.exchange_order_id.isascii() and order.exchange_order_id.isdigit():
        return ORDER_ID, order.exchange_order_id
    check_client_order_id(order.client_order_id)
    return CLIENT_ID, order.client_order_id


def check_client_order_id(client_order_id: str) -> None:
    """FilterFailure for an id that the venue would not take."""
    if not constants.CLIENT_ORDER_ID.fullmatch(client_order_id):
        raise FilterFailure(
            "local",
            f"client order id {client_order_id!r}: 1 to 36 of A-Z, a-z, 0-9, - and _ are allowed",
            Reason.UNSUPPORTED,
        )


def price_text(order: Order) -> str:
    """The price of an order that needs one, without an exponent; FilterFailure if it has none."""
    if order.price is None:
        raise FilterFailure("local", f"a {order.order_type} order needs a price", Reason.UNSUPPORTED)
    return f"{order.price:f}"
