import os
import subprocess
import sys

import pytest

from engine.bus import NameLock
from engine.errors import NameTaken


def test_a_name_has_one_holder(tmp_path):
    path = str(tmp_path / "clock.lock")
    first, second = NameLock(path), NameLock(path)
    first.take()
    with pytest.raises(NameTaken, match=f"process {os.getpid()}"):
        second.take()
    first.release()
    assert not os.path.exists(path)
    second.take()
    second.release()
    second.release()


def test_a_lock_file_whose_holder_died_is_taken_over(tmp_path):
    path = str(tmp_path / "clock.lock")
    code = f"from engine.bus import NameLock; import os; NameLock({path!r}).take(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert os.path.exists(path)
    lock = NameLock(path)
    lock.take()
    with open(path) as file:
        assert file.read().strip() == str(os.getpid())
    lock.release()


def test_a_file_removed_between_opening_and_locking_is_not_taken_for_the_name(tmp_path, monkeypatch):
    path = str(tmp_path / "clock.lock")
    lock = NameLock(path)
    really_lock, calls = lock._lock, []

    def lock_late(fd):
        if not calls:
            os.unlink(path)
        calls.append(fd)
        really_lock(fd)

    monkeypatch.setattr(lock, "_lock", lock_late)
    lock.take()
    assert len(calls) == 2
    assert os.path.exists(path)
    lock.release()
