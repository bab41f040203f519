"""The local runtime with real processes."""

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from engine.errors import ConfigError, RuntimeFailure
from engine.runtime import local as local_module
from engine.runtime.base import Exit

pytestmark = pytest.mark.processes


def children_of(pid: int) -> list[int]:
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
            if int(fields[1]) == pid:
                found.append(int(entry))
    return found


def heap_of(pid: int) -> bytes:
    """The private writable memory of a process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode, *_ = line.split()
            if mode.startswith("rw") and "[v" not in line:
                start, end = (int(edge, 16) for edge in span.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)


@pytest.fixture(autouse=True)
def _leaves_nothing(paths):
    before = set(children_of(os.getpid()))
    yield
    assert set(children_of(os.getpid())) <= before
    assert not paths.run.exists()
    assert not paths.shm.exists()


def test_an_actor_runs_and_its_exit_code_is_told(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            pid = await local.spawn(make_spec("one", "leave", incarnation=4, code=7))
            assert await reports.next() == ("alive", "one", 4, pid)
            assert await local.exits.get() == Exit(name="one", incarnation=4, pid=pid, code=7)
            assert local.living() == []

    run(scenario())


def test_the_signal_that_ended_an_actor_is_told(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            pid = await local.spawn(make_spec("one", "live"))
            await reports.next()
            assert local.send_signal("one", signal.SIGKILL)
            ended = await local.exits.get()
            assert (ended.pid, ended.code, ended.signal) == (pid, None, signal.SIGKILL)
            assert ended.reason == "killed by SIGKILL"
            assert not local.send_signal("one", signal.SIGKILL)
            assert not local.send_signal("nobody", signal.SIGKILL)

    run(scenario())


def test_a_crash_leaves_its_traceback_and_exit_code_70(run, runtime, paths, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            await local.spawn(make_spec("one", "crash"))
            assert (await local.exits.get()).code == 70
            await local.spawn(make_spec("two", "no_such_function"))
            assert (await local.exits.get()).code == 70
            await local.spawn(make_spec("three", "exit_with_words"))
            assert (await local.exits.get()).code == 1

    run(scenario())
    written = paths.output("one").read_text()
    assert "Traceback" in written
    assert "ValueError: one cannot go on" in written
    assert "nothing to do" in paths.output("three").read_text()
    assert paths.output("one").stat().st_mode & 0o777 == 0o600


def test_a_child_is_born_detached_and_clean(run, runtime, paths, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            pid = await local.spawn(make_spec("order_book.binance:us.0", "describe"))
            await reports.next()
            assert Path(f"/proc/{pid}/comm").read_text().strip() == "order_book.bina"
            assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"order_book.binance:us.0"

    run(scenario())
    facts = dict(line.split(" = ") for line in paths.output("order_book.binance:us.0").read_text().splitlines())
    assert facts["stdin"] == "/dev/null"
    assert facts["session"] == facts["sigint"] == "True"
    assert facts["umask"] == "0o77"
    assert facts["descriptors"] == "anon_inode:[pidfd]"


def test_a_name_is_given_to_one_process_at_a_time(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            both = await asyncio.gather(
                local.spawn(make_spec("one", "live")),
                local.spawn(make_spec("one", "live", incarnation=2)),
                return_exceptions=True,
            )
            assert sorted(type(each) for each in both if not isinstance(each, int)) == [RuntimeFailure]
            await reports.next()
            with pytest.raises(RuntimeFailure, match="one is living already"):
                await local.spawn(make_spec("one", "live", incarnation=3))
            with pytest.raises(ConfigError, match="cannot name an actor"):
                await local.spawn(make_spec("../one", "live"))

    run(scenario())


def test_ending_escalates_from_asking_to_sigterm_to_sigkill(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            await local.spawn(make_spec("polite", "live"))
            await local.spawn(make_spec("stubborn", "stubborn"))
            await local.spawn(make_spec("frozen", "live"))
            for _ in range(3):
                await reports.next()
            local.send_signal("frozen", signal.SIGSTOP)
            ends = await asyncio.gather(
                *(local.terminate(name, 0.05, 0.2) for name in ("polite", "stubborn", "frozen"))
            )
            assert [(end.code, end.signal) for end in ends] == [(0, None), (None, 9), (None, 9)]
            assert await local.terminate("polite", 0.05) is None
            assert await local.wait("polite") is None

    run(scenario())


def test_closing_ends_everything_stubborn_or_not(run, runtime, reports, make_spec):
    async def scenario():
        local = runtime()
        await local.start()
        await local.spawn(make_spec("one", "live"))
        await local.spawn(make_spec("two", "stubborn"))
        await reports.next(), await reports.next()
        await local.close(grace_s=0.2)
        ends = {local.exits.get_nowait().name for _ in range(2)}
        assert ends == {"one", "two"}
        with pytest.raises(RuntimeFailure, match="closing"):
            await local.spawn(make_spec("three", "live"))

    run(scenario())


def test_what_an_actor_started_ends_with_it(run, runtime, reports, make_spec, is_gone):
    async def scenario():
        async with runtime() as local:
            await local.spawn(make_spec("one", "with_helper"))
            helper = int((await reports.next())[0].partition(":")[2])
            await reports.next()
            local.send_signal("one", signal.SIGKILL)
            await local.exits.get()
            assert is_gone(helper)

    run(scenario())


def test_no_actor_follows_the_fork_server_into_death(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            pids = [await local.spawn(make_spec(f"a{n}", "live")) for n in range(3)]
            for _ in pids:
                await reports.next()
            old = local.fork_server_pid
            os.kill(old, signal.SIGKILL)
            assert (await local.restarts.get()) == (old, local.fork_server_pid)
            assert local.living() == ["a0", "a1", "a2"]
            assert [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids] == ["a0", "a1", "a2"]
            assert local.exits.empty()
            # The adopted ones are signalled, watched and reaped as before.
            ended = await local.terminate("a0", 0)
            assert ended == Exit(name="a0", incarnation=1, pid=pids[0], code=0)
            local.send_signal("a1", signal.SIGKILL)
            await local.exits.get()
            assert (await local.exits.get()).signal == signal.SIGKILL
            assert await local.spawn(make_spec("a0", "live", incarnation=2))
            assert (await reports.next())[1:3] == ("a0", 2)

    run(scenario())


@pytest.mark.parametrize("killed", [2, 3])
def test_a_fork_server_killed_before_it_was_ready_is_started_again_a_few_times(
    run, runtime, reports, make_spec, monkeypatch, killed
):
    made = []

    class Doomed(local_module.ServerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self.pid)
            if len(made) <= killed:
                self.kill()

    async def scenario():
        local = runtime()
        if killed >= local_module.FIRST_TRIES:
            with pytest.raises(RuntimeFailure, match="ended before it was ready"):
                await local.start()
            await local.close()
            return
        async with local:
            assert local.fork_server_pid == made[-1]
            await local.spawn(make_spec("one", "live"))
            assert (await reports.next())[1] == "one"

    monkeypatch.setattr(local_module, "ServerProcess", Doomed)
    run(scenario())
    assert len(made) == 3


def test_an_end_is_known_at_once_while_there_is_no_fork_server(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            await local.spawn(make_spec("one", "live"))
            await reports.next()
            os.kill(local.fork_server_pid, signal.SIGKILL)
            local.send_signal("one", signal.SIGKILL)
            ended = await local.exits.get()
            assert local.restarts.empty()
            assert ended.signal == signal.SIGKILL
            await local.restarts.get()

    run(scenario())


def test_an_end_is_known_while_the_fork_server_is_stopped(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            await local.spawn(make_spec("one", "live"))
            await reports.next()
            os.kill(local.fork_server_pid, signal.SIGSTOP)
            local.send_signal("one", signal.SIGKILL)
            ended = await local.exits.get()
            assert (ended.code, ended.signal) == (None, None)
            os.kill(local.fork_server_pid, signal.SIGCONT)

    run(scenario())


def test_a_stuck_fork_server_is_replaced_and_its_request_made_again(run, runtime, reports, make_spec, monkeypatch):
    monkeypatch.setattr("engine.runtime.local.REPLY_TIMEOUT_S", 0.2)

    async def scenario():
        async with runtime() as local:
            os.kill(local.fork_server_pid, signal.SIGSTOP)
            pid = await local.spawn(make_spec("one", "live"))
            assert await reports.next() == ("up", "one", 1, pid)
            assert local.restarts.qsize() == 1

    run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_a_fork_server_killed_at_any_moment_of_a_spawn_makes_no_actor_twice(run, runtime, reports, make_spec, seed):
    chance = random.Random(seed)

    others = set(children_of(os.getpid()))

    async def scenario():
        async with runtime() as local:
            stays = await local.spawn(make_spec("stays", "live"))
            await reports.next()
            for incarnation in range(1, 6):
                spawning = asyncio.create_task(local.spawn(make_spec("one", "live", incarnation)))
                await asyncio.sleep(chance.uniform(0, 0.005))
                os.kill(local.fork_server_pid, signal.SIGKILL)
                pid = await spawning
                assert await reports.next() == ("up", "one", incarnation, pid)
                await local.restarts.get()
                assert reports.waiting() == []
                processes = {*children_of(os.getpid()), *children_of(local.fork_server_pid)}
                assert processes - {local.fork_server_pid} - others == {stays, pid}
                await local.terminate("one", 0)
                assert Path(f"/proc/{stays}/comm").read_text().strip() == "stays"

    run(scenario())


def test_a_child_of_a_lost_request_is_ended_before_it_runs_anything(run, runtime, reports, make_spec):
    """The reply is held back in the killed server's link: what it forked must never run."""
    others = set(children_of(os.getpid()))

    async def scenario():
        async with runtime() as local:
            first = local.fork_server_pid
            lost = local._forked

            def lose(report, pidfd):
                local._forked = lost
                os.close(pidfd)
                os.kill(first, signal.SIGKILL)

            local._forked = lose
            pid = await local.spawn(make_spec("one", "live"))
            assert await reports.next() == ("up", "one", 1, pid)
            assert reports.waiting() == []
            assert local.restarts.qsize() == 1
            assert children_of(local.fork_server_pid) == [pid]
            assert set(children_of(os.getpid())) - others == {local.fork_server_pid}

    run(scenario())


def test_a_spawn_that_is_given_up_leaves_no_process(run, runtime, reports, make_spec):
    async def scenario():
        async with runtime() as local:
            os.kill(local.fork_server_pid, signal.SIGSTOP)
            spawning = asyncio.create_task(local.spawn(make_spec("one", "live")))
            await asyncio.sleep(0)
            spawning.cancel()
            await asyncio.wait({spawning})
            os.kill(local.fork_server_pid, signal.SIGCONT)
            pid = await local.spawn(make_spec("one", "live", incarnation=2))
            assert await reports.next() == ("up", "one", 2, pid)
            assert local.living() == ["one"]

    run(scenario())


def test_a_fork_server_that_cannot_start_says_where_to_look(run, paths, runtime):
    async def scenario():
        local = runtime()
        local._configured.preload.append("no_such_module")
        with pytest.raises(RuntimeFailure, match=r"fork_server\.out"):
            await local.start()
        await local.close()

    run(scenario())
    assert "no_such_module" in paths.output("fork_server").read_text()


def test_secrets_show_nowhere(run, runtime, paths, reports, make_spec, monkeypatch):
    secret = "s3cr3t-of-the-account"
    monkeypatch.setenv("VENUE_API_SECRET", secret)

    async def scenario():
        async with runtime(environment={"STRATEGY_MODE": "calm"}) as local:
            spec = make_spec("one", "describe", api_secret=secret)
            assert secret not in f"{spec!r} {spec}"
            pid = await local.spawn(spec)
            await reports.next()
            for process in (pid, local.fork_server_pid):
                for file in ("cmdline", "environ", "comm"):
                    assert secret.encode() not in Path(f"/proc/{process}/{file}").read_bytes()
            assert b"STRATEGY_MODE=calm" in Path(f"/proc/{pid}/environ").read_bytes()
            assert secret.encode() not in heap_of(local.fork_server_pid)
            assert secret.encode() in heap_of(pid)

    run(scenario())
    for log in paths.logs.iterdir():
        assert secret not in log.read_text()
