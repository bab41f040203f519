"""Requests, commands and tells, on both buses."""

import asyncio
import time

import msgspec
import pytest

from engine.bus import Caller, Limits, PeerEvent
from engine.bus import peer as peer_module
from engine.bus.serving import ServerSession
from engine.bus.wire import Command, Hello, Request, decode_body, decode_envelope, encode_body, encode_frame
from engine.clock import VirtualClock
from engine.errors import BusError, PeerLost, ProtocolMismatch, RemoteError, RequestTimeout
from engine.messages import Accepted, OrderFate, OrderState, Reason, Refused

ASK = OrderFate(client_order_id="x")
YES = Accepted(client_order_id="x", state=OrderState.OPEN)


async def pair(world, **options):
    server, client = await world.bus("server", 4, **options), await world.bus("client", 2, **options)
    return server, client


def test_a_request_is_answered_by_a_value_or_an_awaitable(run):
    async def body(world):
        server, client = await pair(world)
        callers = []

        async def later(caller, message):
            await asyncio.sleep(0)
            return YES

        server.serve(lambda caller, message: callers.append((caller, message)) or YES)
        assert await client.request("server", ASK) == YES
        assert callers == [(Caller("client", 2), ASK)]
        server.serve(later)
        assert await client.request("server", ASK) == YES

    run(body)


def test_many_requests_at_once_each_get_their_own_answer(run):
    async def body(world):
        server, client = await pair(world)

        async def handler(caller, message):
            for _ in range(len(message.client_order_id)):
                await asyncio.sleep(0)
            return Accepted(client_order_id=message.client_order_id, state=OrderState.OPEN)

        server.serve(handler)
        ids = [str(number) * (number % 7 + 1) for number in range(200)]
        answers = await asyncio.gather(*(client.request("server", OrderFate(client_order_id=i)) for i in ids))
        assert [answer.client_order_id for answer in answers] == ids

    run(body)


def test_errors_of_the_handler_reach_the_caller(run):
    async def body(world):
        server, client = await pair(world)

        def fails(caller, message):
            raise KeyError("no such order")

        async def fails_later(caller, message):
            raise ValueError("later")

        for handler, text in ((fails, "no such order"), (fails_later, "later"), (lambda *_: None, "no answer")):
            server.serve(handler)
            with pytest.raises(RemoteError, match=f"server.*{text}"):
                await client.request("server", ASK)
        assert server.stats()["handler_errors"] == 2

    run(body)


def test_a_bus_that_does_not_serve_says_so(run):
    async def body(world):
        _, client = await pair(world)
        with pytest.raises(RemoteError, match="not_ready"):
            await client.request("server", ASK)
        answer = await client.command("server", ASK, command_id="x")
        assert answer.reason is Reason.NOT_READY

    run(body)


def test_no_answer_in_time_is_a_timeout_and_a_late_one_is_ignored(run):
    async def body(world):
        server, client = await pair(world)
        answer = asyncio.get_running_loop().create_future()
        server.serve(lambda caller, message: answer)
        with pytest.raises(RequestTimeout, match=r"'server' did not answer OrderFate in 0\.02 s"):
            await client.request("server", ASK, timeout=0.02)
        answer.set_result(YES)
        server.serve(lambda caller, message: YES)
        assert await client.request("server", ASK) == YES

    run(body)


def test_a_peer_that_is_not_there_is_lost(run):
    async def body(world):
        client = await world.bus("client")
        with pytest.raises(PeerLost, match="nothing was sent"):
            await client.request("nobody", ASK, timeout=0.02)

    run(body)


def test_a_request_waits_for_a_peer_that_is_starting(run):
    async def body(world):
        client = await world.bus("client")
        answer = asyncio.ensure_future(client.request("server", ASK, timeout=5))
        await asyncio.sleep(0.01)
        server = await world.bus("server", start=False)
        server.serve(lambda caller, message: YES)
        await server.start()
        assert await answer == YES

    run(body)


def test_death_of_the_peer_ends_its_requests_at_once(run):
    async def body(world):
        server, client = await pair(world)
        asked = asyncio.Event()
        events = []
        client.on_peer(events.append)
        server.serve(lambda caller, message: asked.set() or asyncio.get_running_loop().create_future())
        answer = asyncio.ensure_future(client.request("server", ASK, timeout=60))
        await asked.wait()
        assert client.peer_incarnation("server") == 4
        assert server.peer_incarnation("client") == 2
        await server.close()
        with pytest.raises(PeerLost, match="ask for the fate"):
            await answer
        assert client.peer_incarnation("server") is None
        assert events == [PeerEvent("server", 4, True), PeerEvent("server", 4, False)]

    run(body)


def test_a_closed_bus_loses_what_it_asked_and_asks_no_more(run):
    async def body(world):
        server, client = await pair(world)
        asked = asyncio.Event()
        server.serve(lambda caller, message: asked.set() or asyncio.get_running_loop().create_future())
        answer = asyncio.ensure_future(client.request("server", ASK, timeout=60))
        await asked.wait()
        await client.close()
        with pytest.raises(PeerLost):
            await answer
        for peer in ("server", "other"):
            with pytest.raises(BusError, match="closed"):
                await client.request(peer, ASK)
            assert not client.tell(peer, ASK)

    run(body)


def test_tells_arrive_in_order_also_from_before_the_connection(run, recorder):
    async def body(world):
        client = await world.bus("client", 2)
        got = recorder()
        for number in range(5):
            assert client.tell("server", OrderFate(client_order_id=str(number)))
        server = await world.bus("server", start=False)
        server.serve(lambda caller, message: got.append((caller, message.client_order_id)))
        await server.start()
        await got.until(lambda: len(got.events) == 5)
        assert client.tell("server", ASK)
        await got.until(lambda: len(got.events) == 6)
        assert got.events == [(Caller("client", 2), i) for i in ["0", "1", "2", "3", "4", "x"]]

    run(body)


def test_tells_are_bounded_and_go_stale(run, turns_until):
    async def body(world):
        limits = Limits(tells=3, tell_ttl=0.02)
        client = await world.bus("client", limits=limits)
        assert [client.tell("server", ASK) for _ in range(5)] == [True, True, True, False, False]
        assert client.stats()["dropped_tells"] == 2
        await turns_until(lambda: client.stats()["dropped_tells"] == 5)
        server = await world.bus("server", start=False)
        got = []
        server.serve(lambda caller, message: got.append(message) or YES)
        await server.start()
        assert await client.request("server", ASK) == YES
        assert got == [ASK]

    run(body)


def test_a_tell_whose_handler_fails_is_counted(run, turns_until):
    async def body(world):
        server, client = await pair(world)

        def fails(caller, message):
            raise KeyError("sync")

        async def fails_later(caller, message):
            raise KeyError("async")

        with pytest.raises(RemoteError, match="not_ready"):
            await client.request("server", ASK)
        assert client.tell("server", ASK)
        await turns_until(lambda: server.stats()["dropped_tells"])
        for count, handler in enumerate((fails, fails_later), 1):
            server.serve(handler)
            assert client.tell("server", ASK)
            await turns_until(lambda count=count: server.stats()["handler_errors"] == count)

    run(body)


def test_a_command_carries_its_id_and_expiry(run):
    async def body(world):
        server, client = await pair(world)
        callers = []
        server.serve(lambda caller, message: callers.append(caller) or YES)
        assert await client.command("server", ASK, command_id="x", to_incarnation=4) == YES
        (caller,) = callers
        assert (caller.name, caller.incarnation, caller.command_id) == ("client", 2, "x")
        left_ns = caller.expires_mono_ns - time.monotonic_ns()
        assert 0 < left_ns <= 1_000_000_000

    run(body)


def test_a_command_for_another_incarnation_is_refused(run):
    async def body(world):
        server, client = await pair(world)
        server.serve(lambda caller, message: YES)
        answer = await client.command("server", ASK, command_id="x", to_incarnation=3)
        assert isinstance(answer, Refused)
        assert (answer.client_order_id, answer.reason) == ("x", Reason.OTHER_INCARNATION)
        assert server.stats()["refused_other_incarnation"] == 1

    run(body)


def test_a_command_that_waited_past_its_expiry_is_not_handled(run):
    async def body(world):
        clock = VirtualClock(10**18)
        server, client = await pair(world, clock=clock)
        handled = []

        def handler(caller, message):
            handled.append(caller.command_id)
            clock.advance(2_000_000_000)
            return YES

        server.serve(handler)
        await client.request("server", ASK)
        answers = await asyncio.gather(
            client.command("server", ASK, command_id="in time", expires_in=1.0),
            client.command("server", ASK, command_id="late", expires_in=1.0),
        )
        assert answers[0] == YES
        assert answers[1].reason is Reason.EXPIRED
        assert answers[1].client_order_id == "late"
        assert handled == [None, "in time"]
        assert server.stats()["refused_expired"] == 1

    run(body)


def test_a_command_that_expires_before_its_coroutine_runs_is_not_handled(run):
    async def body(world):
        clock = VirtualClock(10**18)
        server, client = await pair(world, clock=clock)
        ran = []

        async def work(caller):
            ran.append(caller.command_id)
            return YES

        def handler(caller, message):
            clock.advance(2_000_000_000)
            return work(caller)

        server.serve(handler)
        answer = await client.command("server", ASK, command_id="x", expires_in=1.0)
        assert answer.reason is Reason.EXPIRED
        assert ran == []

    run(body)


def test_a_step_of_the_wall_clock_does_not_expire_commands_of_the_same_host(run):
    async def body(world):
        clock = VirtualClock(10**18)
        server, client = await pair(world, clock=clock)

        def handler(caller, message):
            clock.step_wall(10**12)
            return YES

        server.serve(handler)
        answers = await asyncio.gather(*(client.command("server", ASK, command_id=str(number)) for number in range(3)))
        assert answers == [YES] * 3

    run(body)


async def two_hosts(world, apart_ns=0, **options):
    """A server and a client on hosts of their own, and the clocks there."""
    server_clock, client_clock = VirtualClock(10**18), VirtualClock(10**18 + apart_ns)
    client_clock.advance(3_000_000_000)
    server = await world.bus("server", clock=server_clock)
    client = await world.bus("client", clock=client_clock, **options)
    client._context.host = "another host"
    return server, client, server_clock, client_clock


@pytest.mark.parametrize("apart_s", [-3600, -1, 0, 1, 3600])
def test_between_hosts_no_wall_clock_says_when_a_command_expires(run, apart_s):
    async def body(world):
        server, client, server_clock, client_clock = await two_hosts(world, apart_s * 10**9)
        seen = []
        server.serve(lambda caller, message: seen.append((caller.expires_mono_ns, caller.same_host)) or YES)
        assert await client.command("server", ASK, command_id="x", expires_in=1.0) == YES
        client_clock.step_wall(-(10**12))
        assert await client.command("server", ASK, command_id="y", expires_in=1.0) == YES
        assert seen == [(1_000_000_000, False)] * 2
        server_clock.advance(300_000_000)
        assert await client.command("server", ASK, command_id="z", expires_in=1.0) == YES
        assert seen[2] == (server_clock.monotonic_ns() + 700_030_000, False), "300 ms on its way, of which 30 µs drift"

    run(body)


def test_between_hosts_a_command_that_was_held_up_is_refused_again_and_again(run):
    async def body(world):
        server, client, server_clock, client_clock = await two_hosts(world)
        handled = []
        server.serve(lambda caller, message: handled.append(caller.command_id) or YES)
        assert await client.command("server", ASK, command_id="first") == YES
        for number in range(3):
            answer = asyncio.ensure_future(
                client.command("server", ASK, command_id=f"late {number}", expires_in=1.0, timeout=60)
            )
            await asyncio.sleep(0)
            server_clock.advance(1_500_000_000)
            client_clock.advance(1_500_000_000)
            assert (await answer).reason is Reason.EXPIRED
        assert handled == ["first"]
        assert await client.command("server", ASK, command_id="in time") == YES

    run(body)


def test_between_hosts_a_command_that_was_held_up_is_refused_also_after_a_day_of_silence(run):
    """The clocks may have run apart by 8 s, if nothing is heard of the caller's for so long."""

    async def body(world):
        server, client, *clocks = await two_hosts(world, limits=Limits(clock_every=0.001))
        server.serve(lambda caller, message: YES)
        assert await client.command("server", ASK, command_id="first") == YES
        for clock in clocks:
            clock.advance(86_400 * 10**9)
        told = server.stats()["frames_in"] + 2
        while server.stats()["frames_in"] < told:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        late = asyncio.ensure_future(client.command("server", ASK, command_id="late", timeout=60))
        await asyncio.sleep(0)
        for clock in clocks:
            clock.advance(3 * 10**9)
        assert (await late).reason is Reason.EXPIRED

    run(body)


class Sink:
    """A channel that takes everything."""

    writable = True

    def __init__(self):
        self.sent = []

    def send(self, frame):
        self.sent.append(decode_envelope(frame[4:]))

    def close(self):
        """Nothing is behind it."""

    abort = close


def test_between_hosts_what_is_known_of_a_callers_clock_outlives_its_connection(run_memory):
    """After a cut everything comes late for a while, the first word of the new connection, too."""
    seconds = 10**9

    async def body(world):
        clock = VirtualClock(10**18)
        server = await world.bus("server", clock=clock)
        server.serve(lambda caller, message: YES)

        def connected(sent_ns):
            session, sink = ServerSession(server._server), Sink()
            session.opened(sink)
            session.received(Hello("", "client", 1, host="another host", mono_ns=sent_ns))
            return session, sink

        clock.advance(5 * seconds)
        session, _ = connected(clock.monotonic_ns())
        session.closed("the cable")
        clock.advance(10 * seconds)
        session, sink = connected(clock.monotonic_ns() - 3 * seconds)
        sent = clock.monotonic_ns() - 2 * seconds
        session.received(Command(1, "x", None, sent + seconds, 0, msgspec.Raw(encode_body(ASK)), sent))
        assert decode_body(sink.sent[-1].body).reason is Reason.EXPIRED
        session.closed("the end")

    run_memory(body)


def test_callers_that_cannot_say_on_which_host_they_are_are_on_none(run_memory):
    async def body(world):
        server, client = await pair(world)
        server._context.host = client._context.host = ""
        callers = []
        server.serve(lambda caller, message: callers.append(caller) or YES)
        assert await client.request("server", ASK) == YES
        assert not callers[0].same_host

    run_memory(body)


def test_between_hosts_a_clock_that_stood_still_costs_one_command(run):
    async def body(world):
        server, client, server_clock, _ = await two_hosts(world)
        server.serve(lambda caller, message: YES)
        assert await client.command("server", ASK, command_id="x") == YES
        server_clock.advance(10_000_000_000)
        assert (await client.command("server", ASK, command_id="y")).reason is Reason.EXPIRED
        for number in range(3):
            assert await client.command("server", ASK, command_id=str(number)) == YES

    run(body)


def test_a_caller_of_another_host_that_does_not_say_when_it_sent_goes_by_the_wall_clock(run, monkeypatch):
    monkeypatch.setattr(peer_module, "Command", lambda *fields: Command(*fields[:6]))

    async def body(world):
        server_clock, client_clock = VirtualClock(10**18), VirtualClock(10**18)
        server = await world.bus("server", clock=server_clock)
        client = await world.bus("client", clock=client_clock)
        client._context.host = "another host"
        client_clock.advance(500_000_000)
        seen = []
        server.serve(lambda caller, message: seen.append(caller.expires_mono_ns) or YES)
        assert await client.command("server", ASK, command_id="x", expires_in=1.0) == YES
        assert seen == [1_500_000_000]
        server_clock.advance(1_500_000_000)
        answer = await client.command("server", ASK, command_id="x", expires_in=1.0)
        assert answer.reason is Reason.EXPIRED

    run(body)


def test_pending_commands_are_bounded_for_the_whole_bus(run, turns_until):
    async def body(world):
        server, client = await pair(world, limits=Limits(pending_requests=2))
        other = await world.bus("other")
        release, pending = asyncio.Event(), []

        async def handler(caller, message):
            pending.append(caller.command_id)
            await release.wait()
            return YES

        server.serve(handler)
        first = [asyncio.ensure_future(bus.command("server", ASK, command_id="x")) for bus in (client, other)]
        await turns_until(lambda: len(pending) == 2)
        refused = await client.command("server", ASK, command_id="y")
        assert refused.reason is Reason.OVERLOADED
        with pytest.raises(RemoteError, match="overloaded"):
            await client.request("server", ASK)
        release.set()
        assert await asyncio.gather(*first) == [YES, YES]
        assert await client.command("server", ASK, command_id="z") == YES

    run(body)


def test_a_command_that_never_left_is_refused_as_not_sent(run):
    async def body(world):
        client = await world.bus("client", limits=Limits(outbox=1))
        waiting = asyncio.ensure_future(client.command("server", ASK, command_id="x", expires_in=0.03))
        await asyncio.sleep(0)
        answer = await client.command("server", ASK, command_id="y")
        assert answer.reason is Reason.OVERLOADED
        with pytest.raises(BusError, match="requests wait"):
            await client.request("server", ASK)
        answer = await waiting
        assert (answer.client_order_id, answer.reason) == ("x", Reason.NOT_SENT)
        server = await world.bus("server", start=False)
        handled = []
        server.serve(lambda caller, message: handled.append(caller.command_id) or YES)
        await server.start()
        await client.request("server", ASK)
        assert handled == [None]

    run(body)


def test_a_message_of_an_unknown_type_gets_an_error_reply(run):
    async def body(world):
        server, client = await pair(world)
        server.serve(lambda caller, message: YES)
        await client.request("server", ASK)
        peer = client._peers["server"].peer
        body = msgspec.Raw(msgspec.msgpack.encode({"type": "FromTheFuture"}))
        answer = asyncio.get_running_loop().create_future()
        peer._open(1_000, ASK, 5.0, answer.set_result)
        peer._send(encode_frame(Request(1_000, body)))
        with pytest.raises(RemoteError, match="does not know"):
            raise await answer
        assert server.stats()["unknown_bodies"] == 1

    run(body)


def test_an_answer_above_the_frame_limit_is_an_error_at_the_caller(run):
    async def body(world):
        server, client = await pair(world, limits=Limits(max_frame=2000))
        server.serve(lambda caller, message: Refused(client_order_id="x", reason=Reason.NONE, detail="d" * 3000))
        with pytest.raises(RemoteError, match="above the frame limit"):
            await client.request("server", ASK)
        with pytest.raises(BusError, match="above the frame limit"):
            await client.request("server", OrderFate(client_order_id="x" * 3000))

    run(body)


def test_a_caller_that_reads_no_replies_is_disconnected(run, turns_until):
    async def body(world):
        server = await world.bus("server", limits=Limits(high_water=4096, outbox=50))
        client = await world.bus("client")
        big = Refused(client_order_id="x", reason=Reason.NONE, detail="d" * 5000)
        server.serve(lambda caller, message: YES)
        await client.request("server", ASK)
        server.serve(lambda caller, message: big)
        world.stall(client)
        asked = [asyncio.ensure_future(client.request("server", ASK, timeout=30)) for _ in range(400)]
        await turns_until(lambda: server.stats()["closed_slow_readers"])
        world.resume(client)
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(result, PeerLost) for result in results)

    run(body)


def test_another_engine_is_refused_with_a_clear_error(run):
    async def body(world):
        server = await world.bus("server", engine_id="blue")
        client = await world.bus("client", engine_id="red")
        with pytest.raises(ProtocolMismatch, match=r"engine 'red'.*'blue'"):
            await client.request("server", ASK)
        assert client.peer_incarnation("server") is None
        assert server.stats()["mismatched"] >= 1

    run(body)


def test_a_newer_major_version_is_refused_with_a_clear_error(run, monkeypatch):
    async def body(world):
        server = await world.bus("server")
        client = await world.bus("client")
        hello = client._context.hello()
        newer = msgspec.structs.replace(hello, major=hello.major + 1)
        monkeypatch.setattr(type(client._context), "hello", lambda context: newer)
        with pytest.raises(ProtocolMismatch, match="upgrade 'server'"):
            await client.request("server", ASK)
        assert server.peer_incarnation("client") is None

    run(body)


def test_a_handler_may_close_its_own_bus(run):
    async def body(world):
        server, client = await pair(world)

        async def handler(caller, message):
            await server.close()

        server.serve(handler)
        with pytest.raises(PeerLost):
            await client.request("server", ASK)

    run(body)


def test_commands_encode_both_clocks():
    raw = msgspec.Raw(encode_body(ASK))
    frame = encode_frame(Command(1, "x", None, 10, 20, raw))
    assert msgspec.msgpack.decode(frame[4:])[:6] == [7, 1, "x", None, 10, 20]


def test_a_command_without_a_task_is_sent_in_the_call_and_settled_once(run):
    async def body(world):
        server, client = await pair(world)
        handled = []

        def handle(caller, message):
            handled.append(caller.command_id)
            if caller.command_id == "bad":
                raise ValueError("no")
            return YES

        server.serve(handle)
        await client.request("server", ASK)
        settled = asyncio.Queue()
        frames = client.stats()["frames_out"]
        for name in ("good", "bad"):
            client.command_soon("server", ASK, lambda reply, of=name: settled.put_nowait((of, reply)), command_id=name)
        assert client.stats()["frames_out"] == frames + 2
        assert settled.empty(), "settled later, never in the call"
        answers = dict([await settled.get(), await settled.get()])
        assert answers["good"] == YES
        assert isinstance(answers["bad"], RemoteError)
        assert handled == [None, "good", "bad"]
        assert settled.empty()

    run(body)


def test_a_command_without_a_task_is_settled_when_the_peer_is_gone(run):
    async def body(world):
        server, client = await pair(world)
        server.serve(lambda caller, message: asyncio.get_running_loop().create_future())
        settled = asyncio.get_running_loop().create_future()
        client.command_soon("server", ASK, settled.set_result, command_id="c", timeout=0.05)
        assert isinstance(await settled, BusError)

    run(body)
