"""Who runs before whom, what keeps processors awake, and what is said where that is not permitted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from engine.runtime.scheduling import RANKS, WAKE_UP_LATENCY, cannot_keep_awake, lacking, run_first

HOLDER = "from engine.runtime.scheduling import keep_awake; print(keep_awake(), flush=True); input()"
PROBE = "from engine.runtime.scheduling import lacking; print(lacking())"


@pytest.fixture
def permitted() -> Iterator[None]:
    if lacking():
        pytest.skip("needs root, to schedule in real time")
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def policy() -> tuple[int, int]:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority


def test_ticks_come_before_books_and_orders_and_these_before_strategies() -> None:
    assert RANKS["clock"] > RANKS["order_book"] == RANKS["mirror"] == RANKS["exchange"] > RANKS["strategy"] > 0
    assert not {"venue", "recorder", "risk"} & set(RANKS)


@pytest.mark.usefixtures("permitted")
def test_the_thread_that_asks_runs_first_and_what_it_starts_does_not() -> None:
    assert run_first(2) == ""
    assert policy() == (os.SCHED_RR, 2)
    seen: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: seen.append(policy()))
    thread.start()
    thread.join()
    pid = os.fork()
    if pid == 0:
        os._exit(policy() == (os.SCHED_OTHER, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert seen == [(os.SCHED_OTHER, 0)]


@pytest.mark.usefixtures("permitted")
def test_asking_whether_it_is_permitted_changes_nothing() -> None:
    assert lacking() == ""
    assert policy() == (os.SCHED_OTHER, 0)
    assert lacking() == ""


def test_where_it_is_not_permitted_that_is_said_and_how_it_would_be() -> None:
    command = [sys.executable, "-c", PROBE]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        command = [setpriv, "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", *command]
    said = subprocess.run(["sh", "-c", 'ulimit -r 0; exec "$@"', "sh", *command], capture_output=True, text=True).stdout
    assert "does not permit it" in said
    assert "LimitRTPRIO" in said


@pytest.mark.skipif(bool(cannot_keep_awake()), reason=f"needs root, to keep processors awake: {cannot_keep_awake()}")
def test_who_asks_for_it_keeps_processors_awake_until_its_end() -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "\n"
        assert keeps_awake(holder.pid)
        assert may_take_us() == 0
        holder.kill()


def keeps_awake(pid: int) -> bool:
    return any(os.readlink(entry.path) == str(WAKE_UP_LATENCY) for entry in os.scandir(f"/proc/{pid}/fd"))


def may_take_us() -> int:
    """How long a processor of this host may take to wake up, by all that anybody wishes at this moment."""
    return int.from_bytes(WAKE_UP_LATENCY.read_bytes(), sys.byteorder, signed=True)
