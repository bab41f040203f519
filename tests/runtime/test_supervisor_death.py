"""The supervisor's process is killed, or told to leave: nothing may stay behind."""

import json
import os
import signal

import pytest

pytestmark = pytest.mark.processes


def started(process):
    return json.loads(process.stdout.readline())


def kill(process):
    process.kill()
    process.wait()


def test_a_killed_supervisor_leaves_no_process_and_no_file(supervisor, reports, paths, is_gone):
    process = supervisor(5, "one=live", "two=live")
    pids = started(process)
    reports.read(), reports.read()
    kill(process)
    assert all(is_gone(pid) for pid in pids)
    assert not paths.run.exists()
    assert not paths.shm.exists()
    assert not paths.run_json.exists()


def test_what_ignores_the_supervisors_death_is_killed_after_the_grace_time(supervisor, reports, paths, is_gone):
    process = supervisor(0.2, "one=stubborn")
    pids = started(process)
    reports.read()
    kill(process)
    assert all(is_gone(pid) for pid in pids)
    assert not paths.run.exists()


def test_children_of_an_earlier_fork_server_are_seen_to_as_well(supervisor, reports, paths, is_gone):
    process = supervisor(0.2, "one=stubborn", "two=live")
    first, *pids = started(process)
    reports.read(), reports.read()
    os.kill(first, signal.SIGKILL)
    assert is_gone(first)
    second = None
    while second is None:
        lock = paths.lock("fork_server")
        text = lock.read_text().strip() if lock.exists() else ""
        second = int(text) if text and int(text) != first else None
    kill(process)
    assert all(is_gone(pid) for pid in (second, *pids))
    assert not paths.run.exists()


def test_supervisor_and_fork_server_killed_at_once_and_the_next_start_clears_up(supervisor, reports, paths, is_gone):
    process = supervisor(0.2, "one=live", "two=stubborn")
    server, one, two = started(process)
    reports.read(), reports.read()
    os.kill(server, signal.SIGKILL)
    kill(process)
    assert is_gone(one)
    assert paths.run.exists()
    again = supervisor(0.2, "one=live", "two=live")
    pids = started(again)
    assert is_gone(two, 0)
    assert sorted(reports.read()[:2] for _ in range(2)) == [("up", "one"), ("up", "two")]
    again.send_signal(signal.SIGTERM)
    assert again.communicate()[0] == "closed\n"
    assert all(is_gone(pid, 0) for pid in pids)
    assert not paths.run.exists()


def test_a_new_engine_starts_while_the_old_ones_actors_are_still_leaving(supervisor, reports, paths, is_gone):
    process = supervisor(0.5, "one=stubborn")
    old = started(process)
    reports.read()
    kill(process)
    again = supervisor(0.5, "one=live")
    pids = started(again)
    assert reports.read()[:2] == ("up", "one")
    assert all(is_gone(pid, 0) for pid in old[1:])
    assert paths.lock("one").exists()
    again.send_signal(signal.SIGTERM)
    assert again.communicate()[0] == "closed\n"
    assert all(is_gone(pid, 0) for pid in pids)


def test_a_terminals_interrupt_reaches_the_supervisor_alone(supervisor, reports, paths, is_gone):
    process = supervisor(5, "one=live", "two=stubborn")
    server, one, two = started(process)
    reports.read(), reports.read()
    for pid in (server, one, two):
        assert os.getpgid(pid) != process.pid
        os.kill(pid, signal.SIGINT)
    os.kill(two, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate()[0] == "closed\n"
    assert process.returncode == 0
    assert all(is_gone(pid, 0) for pid in (server, one))
    assert not paths.run.exists()


def test_a_second_engine_on_the_same_state_folder_is_refused(supervisor, reports, paths):
    process = supervisor(5)
    started(process)
    second = supervisor(5)
    second.wait()
    assert second.returncode == 1
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "closed\n"
