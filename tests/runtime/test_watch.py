"""Watching a process by a pidfd that came through the environment."""

import asyncio
import os
import subprocess
import sys

import pytest

from engine.errors import RuntimeFailure
from engine.runtime.watch import PIDFD_VARIABLE, supervisor_alive, supervisor_pidfd, watch_supervisor


@pytest.fixture
def supervised(monkeypatch):
    """A process that stands for the supervisor."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(process.pid)
    monkeypatch.setenv(PIDFD_VARIABLE, str(pidfd))
    yield process
    process.kill()
    process.communicate()
    os.close(pidfd)


def test_a_process_without_a_supervisor_is_told_so(monkeypatch):
    monkeypatch.delenv(PIDFD_VARIABLE, raising=False)
    with pytest.raises(RuntimeFailure, match=PIDFD_VARIABLE):
        supervisor_pidfd()


def test_the_supervisors_death_is_told_once(supervised, run):
    async def scenario():
        told = asyncio.Queue()
        watch_supervisor(asyncio.get_running_loop(), lambda: told.put_nowait("dead"))
        assert supervisor_alive()
        supervised.kill()
        await told.get()
        assert not supervisor_alive()
        # It is told at once to who asks later.
        watch_supervisor(asyncio.get_running_loop(), lambda: told.put_nowait("dead before"))
        assert await told.get() == "dead before"
        assert told.empty()

    run(scenario())


def test_a_cancelled_watch_says_nothing(supervised, run):
    async def scenario():
        told = []
        cancel = watch_supervisor(asyncio.get_running_loop(), lambda: told.append("dead"))
        cancel()
        supervised.kill()
        supervised.wait()
        await asyncio.sleep(0.01)
        assert told == []

    run(scenario())
