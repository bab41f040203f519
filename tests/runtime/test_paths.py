"""Folders, locks and what a dead engine leaves in them."""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engine.errors import ConfigError, RuntimeFailure
from engine.runtime import leftovers, locks
from engine.runtime.leftovers import clean_stale, clear_previous
from engine.runtime.locks import HeldLock, held_locks, is_held, read_pid, take_lock
from engine.runtime.paths import EnginePaths, remove_tree

HOLDER = """
import signal, sys
from pathlib import Path
from engine.runtime.locks import take_lock
take_lock(Path(sys.argv[1]))
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("held", flush=True)
signal.pause()
"""


@pytest.fixture
def made(paths):
    paths.create()
    yield paths
    paths.remove()


@pytest.fixture
def holder():
    """Starts processes that hold a lock."""
    started = []

    def hold(path, manner="polite"):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), manner], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_one_state_folder_has_one_set_of_folders_however_it_is_named(state, monkeypatch):
    paths = EnginePaths.for_state(state)
    monkeypatch.chdir(state.parent)
    assert EnginePaths.for_state("state") == EnginePaths.for_state("./x/../state") == paths
    assert re.fullmatch(rf"/tmp/engine-{os.geteuid()}/[0-9a-f]{{8}}", str(paths.run))
    assert str(paths.shm) == f"/dev/shm/engine-{os.geteuid()}-{paths.run.name}"
    assert EnginePaths.for_state(state.parent / "other").run != paths.run


def test_folders_are_their_owners_alone(made):
    made.run.chmod(0o755)
    made.create()
    for folder in (made.state, made.logs, made.run, made.run.parent, made.shm):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_socket_path_that_is_too_long_is_refused(paths):
    assert paths.socket("clock") == paths.run / "clock.sock"
    with pytest.raises(ConfigError, match="107"):
        paths.socket("x" * 90)


def test_a_second_engine_is_told_who_uses_the_state_folder(paths, holder):
    paths.create_state()
    process = holder(paths.state_lock)
    with pytest.raises(ConfigError, match=f"in use by pid {process.pid}: stop that engine"):
        paths.lock_state()
    process.kill()
    process.wait()
    with paths.lock_state() as lock:
        assert read_pid(paths.state_lock) == os.getpid()
        lock.close()
        paths.lock_state().close()


def test_a_state_folder_that_cannot_be_used_is_refused_in_words(paths, monkeypatch):
    paths.state.parent.joinpath("state").write_text("a file")
    with pytest.raises(ConfigError, match=r"state folder .* cannot be made: File exists"):
        paths.lock_state()
    paths.state.unlink()
    paths.create_state()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be read and written"):
        paths.lock_state()
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="belongs to user"):
        paths.lock_state()


def test_a_link_in_place_of_the_run_folder_is_not_followed(paths):
    paths.create_state()
    paths.run.parent.mkdir(mode=0o700, exist_ok=True)
    paths.run.symlink_to(paths.state)
    with pytest.raises(ConfigError, match="is not a folder"):
        paths.create()
    paths.run.unlink()


def test_run_json_says_where_the_engine_is_until_it_leaves(made):
    assert made.read_run_json() is None
    info = made.write_run_json("engine-1")
    assert made.read_run_json() == info
    assert (info.pid, info.run_dir, info.engine_id) == (os.getpid(), str(made.run), "engine-1")
    assert made.run_json.stat().st_mode & 0o777 == 0o600
    made.run_json.write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
        made.read_run_json()
    made.remove()
    assert made.read_run_json() is None
    made.remove()


def test_a_lock_on_a_file_that_its_last_holder_removed_meanwhile_is_none(made, monkeypatch):
    """As a cell does at its end: who then held the removed file was seen by nobody, and the next held another."""
    path = made.lock("cell")
    path.touch()

    def removed_first(descriptor, operation):
        monkeypatch.undo()
        path.unlink()
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(
        locks, "fcntl", SimpleNamespace(flock=removed_first, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    )
    descriptor = take_lock(path)
    assert is_held(path)
    assert take_lock(path) is None
    os.close(descriptor)


def test_a_lock_is_held_exactly_as_long_as_its_process_lives(made, holder):
    path = made.lock("clock")
    assert not is_held(path)
    process = holder(path)
    assert held_locks(made.run) == [HeldLock(path, process.pid)]
    assert held_locks(made.run)[0].name == "clock"
    assert take_lock(path) is None
    process.kill()
    process.wait()
    assert path.exists()
    assert held_locks(made.run) == []
    assert held_locks(made.run / "no_such_folder") == []


def test_no_signal_reaches_a_process_that_does_not_hold_the_lock(made, holder):
    path = made.lock("clock")
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = holder(path)
    path.write_text(f"{bystander.pid}\n")
    (lock,) = held_locks(made.run)
    assert lock.pid == bystander.pid
    assert not lock.send_signal(signal.SIGKILL)
    path.write_text("")
    assert not held_locks(made.run)[0].send_signal(signal.SIGKILL)
    assert not HeldLock(path, 2**22 + 1).send_signal(signal.SIGKILL)
    path.write_text(f"{process.pid}\n")
    assert held_locks(made.run)[0].send_signal(signal.SIGKILL)
    process.wait()
    bystander.communicate(b"\n")
    assert bystander.returncode == 0


def test_leftovers_are_removed_only_when_nobody_lives(made, holder):
    process = holder(made.lock("clock"))
    (made.run / "clock.sock").touch()
    assert not clean_stale(made.run, made.shm)
    assert (made.run / "clock.sock").exists()
    process.kill()
    process.wait()
    assert clean_stale(made.run, made.shm)
    assert not made.run.exists()
    assert not made.shm.exists()
    assert clean_stale(made.run, made.shm)


@pytest.mark.parametrize(("manner", "ended_by"), [("polite", signal.SIGTERM), ("stubborn", signal.SIGKILL)])
def test_actors_of_a_dead_engine_are_ended_before_a_new_start(made, holder, monkeypatch, manner, ended_by):
    monkeypatch.setattr(leftovers, "TERM_S", 0.2)
    process = holder(made.lock("clock"), manner)
    asyncio.run(clear_previous(made.run, made.shm, 0.1))
    assert process.wait() == -ended_by
    assert not made.run.exists()


def test_actors_of_a_dead_engine_that_cannot_be_ended_are_named(made, holder, monkeypatch):
    monkeypatch.setattr(leftovers, "TERM_S", 0.1)
    monkeypatch.setattr(leftovers, "KILL_S", 0.1)
    holder(made.lock("clock"))
    made.lock("clock").write_text("")
    with pytest.raises(RuntimeFailure, match=r"clock \(pid unknown\)"):
        asyncio.run(clear_previous(made.run, made.shm, 0))


def test_a_tree_that_is_not_there_is_removed_already(made):
    remove_tree(made.run / "nothing")
