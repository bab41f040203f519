"""An order-book actor with its venue in the test's hands: no socket is opened."""

from engine.actors import order_book as module
from engine.actors.order_book import OrderBookActor
from engine.book import BookReader
from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import RangeRule
from engine.connectors.base import ConnectionPlan, HttpRequest, MarketDataProtocol
from engine.connectors.errors import MalformedReply

NAME = "order_book.box.0"
PAIR = "BTC-USDT"
OTHER = "ETH-USDT"
MS = 1_000_000


class Socket:
    """What would hold the connection. The test opens it, closes it, and hands frames on."""

    made: list = []  # noqa: RUF012 - of one test

    def __init__(self, plan, handler, *, after_read, silence_s=0.0, keepalive=None, on_failed=None, **more):
        self.plan, self.handler, self.after_read, self.on_failed = plan, handler, after_read, on_failed
        self.silence_s, self.keepalive = silence_s, keepalive
        self.is_open = self.started = self.closed = self.rests = False
        self.connects = 0
        self.sent, self.restarts = [], []
        self.made.append(self)

    def start(self):
        self.started = True

    def open(self):
        self.is_open = True
        self.connects += 1
        self.handler.on_open()

    def cut(self, reason="cut"):
        self.is_open = False
        self.handler.on_close(reason)

    def frame(self, data=b"frame", at=0, more_to_come=False):
        is_data = self.handler.on_frame(data, at)
        if not more_to_come:
            self.after_read()
        return is_data

    def rest(self):
        self.rests = True

    def send(self, text):
        self.sent.append(text)

    def restart(self, reason):
        self.restarts.append(reason)

    async def close(self):
        self.closed = True
        if self.is_open:
            self.cut("closed by us")


class Protocol(MarketDataProtocol):
    """A venue whose frames mean what the test put into ``events``, by frame if that is a dictionary."""

    audited = False
    rule = RangeRule

    def __init__(self):
        self.events = ()
        self.update_id = 0

    def connections(self, pairs):
        return [ConnectionPlan(url=f"wss://{pair}", pairs=(pair,)) for pair in pairs]

    def feed(self, data):
        if isinstance(self.events, Exception):
            raise self.events
        return self.events[data] if isinstance(self.events, dict) else self.events

    def sequence_rule(self, pair=""):
        return self.rule()

    pushes = False

    def snapshot_request(self, pair):
        return None if self.pushes else HttpRequest(path=f"/{pair}")

    def resubscribe(self, pair):
        return (f"un {pair}", f"sub {pair}") if self.pushes else ()

    def audit_request(self, pair):
        return HttpRequest(path=f"/audit/{pair}") if self.audited else None

    def is_pong(self, data):
        return data == b"pong"

    def parse_snapshot(self, pair, body):
        if body == b"nonsense":
            raise MalformedReply("nonsense")
        return DepthSnapshot(pair, int(body), [("100.00", "1")], [("101.00", "2")])

    def pairs_of(self, url):
        raise AssertionError("nothing is recorded here")

    def parse_recorded(self, url, body):
        raise AssertionError("nothing is recorded here")


class Client:
    """REST: rules, and snapshots at the id that the protocol stands at, or what ``answers`` says first."""

    def __init__(self, world, protocol, pairs):
        self.protocol = protocol
        self.rules = {pair: world.rule for pair in pairs}
        self.rules = {
            pair: type(world.rule)(**{**{f: getattr(rule, f) for f in rule.__struct_fields__}, "pair": pair})
            for pair, rule in self.rules.items()
        }
        self.down = []
        self.answers = []
        self.fetched = []
        self.closed = 0

    async def start(self):
        if self.down:
            raise self.down.pop()

    async def trading_rules(self, pairs):
        return {pair: rule for pair, rule in self.rules.items() if pair in pairs}

    async def fetch(self, request):
        self.fetched.append(request.path)
        answer = self.answers.pop(0) if self.answers else str(self.protocol.update_id).encode()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        self.closed += 1


class Waits:
    """A back-off that is told of, and takes no time."""

    def __init__(self):
        self.given = 0
        self.resets = 0

    def next(self):
        self.given += 1
        return 0.0

    def reset(self):
        self.resets += 1


async def listen(world, stream, keys=None):
    heard = []
    bus = await world.bus(f"strategy.{stream}")
    bus.subscribe(NAME, stream, lambda message, number: heard.append(message), keys=keys)
    await world.until(lambda: bus.peer_incarnation(NAME) is not None)
    return heard


class BookDesk:
    """The actor's protocol, client and sockets, and the actor once it is there."""

    def __init__(self, world, fakes, monkeypatch, pairs, listed):
        self._world, self._fakes, self._monkeypatch = world, fakes, monkeypatch
        self.pairs = pairs
        self.protocol = Protocol()
        self.client = Client(world, self.protocol, listed)
        self.keep_warm_s = 0.0

    async def start(self, clock=None):
        self._monkeypatch.setattr(Socket, "made", [])
        self._monkeypatch.setattr(module, "ReconnectingWebSocket", Socket)
        connector = self._fakes.connector(client=self.client, market_data=self.protocol, pairs=self.pairs)
        self._monkeypatch.setattr(module, "connector_of", lambda params: connector)
        params = {"pairs": list(self.pairs), "depth": 10, "keep_warm_s": self.keep_warm_s}
        self.running = await self._world.start(OrderBookActor, NAME, connector="box", params=params, clock=clock)
        self.actor = self.running.actor
        for pair in self.pairs:
            self.actor.snapshots.backoff[pair] = Waits()
        return self.actor

    async def connected(self, clock=None):
        """The actor with all its sockets, none of them open."""
        await self.start(clock)
        await self._world.until(lambda: Socket.made)
        self.sockets = {socket.handler._plan.pairs[0]: socket for socket in Socket.made}

    async def synced(self, pair=PAIR, clock=None):
        """Bring the actor up with its book in sync at update 1."""
        await self.connected(clock)
        self.socket = self.sockets[pair]
        self.protocol.update_id = 1
        self.socket.open()
        await self._world.until(lambda: self.state(pair) == "synced")
        return self.actor

    def state(self, pair=PAIR):
        books = self.actor.feed.books
        return books[pair].state.name.lower() if pair in books else ""

    def diff(self, first, last=None, bids=(), asks=(), pair=PAIR, more_to_come=False):
        self.protocol.events = (DepthDiff(pair, first, last or first, None, bids, asks, 0),)
        self.sockets[pair].frame(at=self._world.clock.monotonic_ns(), more_to_come=more_to_come)

    def reader(self, pair=PAIR):
        return BookReader(str(self._world.folder / "shm" / f"box.{pair}.book"), stale_after_ns=10**12)
