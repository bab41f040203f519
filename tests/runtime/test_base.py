"""What every runtime shares, with a runtime that has no processes."""

import asyncio
import signal

import msgspec
import pytest
from rich.pretty import pretty_repr

from engine.errors import ConfigError, RuntimeFailure
from engine.runtime.base import ActorSpec, Exit, Runtime, check_name

SPEC = ActorSpec(
    name="exchange.binance.main",
    kind="exchange",
    connector="binance",
    incarnation=3,
    run_dir="/tmp/run",
    shm_dir="/dev/shm/x",
    state_dir="/state",
    engine_id="e",
    entry="m:f",
    params={"api_secret": "hidden-value"},
)


class Recorded(Runtime):
    """Ends an actor on the signal that it is told to obey."""

    def __init__(self, obeys):
        super().__init__()
        self.obeys = obeys
        self.signals = []

    async def start(self):
        """Nothing to make ready."""

    async def spawn(self, spec):
        self._lives(spec.name)
        return 1

    def send_signal(self, name, number):
        self.signals.append(number)
        if number == self.obeys:
            self._ended(Exit(name=name, incarnation=3, pid=1, signal=number))
        return True

    async def close(self, grace_s=5.0):
        """Nothing to end."""


def test_no_representation_of_a_spec_shows_its_params():
    for shown in (repr(SPEC), str(SPEC), f"{SPEC}", pretty_repr(SPEC)):
        assert "hidden-value" not in shown
        assert "exchange.binance.main" in shown
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(SPEC), type=ActorSpec) == SPEC


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"code": 70}, "exit code 70"),
        ({"signal": 11}, "killed by SIGSEGV"),
        ({"signal": 40}, "killed by signal 40"),
        ({}, "ended, nobody knows how"),
    ],
)
def test_an_exit_says_its_reason_in_words(ended, words):
    assert Exit(name="a", incarnation=1, pid=1, **ended).reason == words


@pytest.mark.parametrize("name", ["clock", "order_book.binance:us.0", "strategy.my-maker", "0"])
def test_names_of_the_usual_form_are_taken(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "a\n", "ä", "x" * 81, "-a"])
def test_names_that_no_file_should_bear_are_refused(name):
    with pytest.raises(ConfigError, match="cannot name an actor"):
        check_name(name)


@pytest.mark.parametrize(
    ("obeys", "sent"),
    [
        (signal.SIGTERM, [signal.SIGTERM]),
        (signal.SIGKILL, [signal.SIGTERM, signal.SIGKILL]),
    ],
)
def test_ending_goes_no_further_than_it_must(obeys, sent):
    async def scenario():
        runtime = Recorded(obeys)
        exits = []
        runtime.on_exit = exits.append
        await runtime.spawn(SPEC)
        ended = await runtime.terminate(SPEC.name, 0.01, 0.01, 0.01)
        assert runtime.signals == sent
        assert exits == [ended]
        assert runtime.living() == []

    asyncio.run(scenario())


def test_ending_what_does_not_end_is_an_error_that_names_it():
    async def scenario():
        runtime = Recorded(None)
        await runtime.spawn(SPEC)
        with pytest.raises(RuntimeFailure, match=r"exchange\.binance\.main does not end"):
            await runtime.terminate(SPEC.name, 0.01, 0.01, 0.01)

    asyncio.run(scenario())


def test_several_may_wait_for_one_end_and_one_may_give_up():
    async def scenario():
        runtime = Recorded(signal.SIGKILL)
        await runtime.spawn(SPEC)
        first, second = (asyncio.create_task(runtime.wait(SPEC.name)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        runtime.send_signal(SPEC.name, signal.SIGKILL)
        assert (await second).signal == signal.SIGKILL

    asyncio.run(scenario())
