import pytest

from engine.bus import RunDirectory, UnixEndpoint
from engine.errors import ConfigError


def test_names_are_files_in_the_run_folder():
    directory = RunDirectory("/tmp/run")
    assert directory.endpoint("order_book.binance:us.0") == UnixEndpoint("/tmp/run/order_book.binance:us.0.sock")
    assert directory.lock_path("clock") == "/tmp/run/clock.lock"


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_names_that_cannot_be_files_are_refused(name):
    with pytest.raises(ConfigError, match="cannot name an actor"):
        RunDirectory("/tmp/run").endpoint(name)


def test_a_path_of_107_bytes_is_the_longest():
    directory = RunDirectory("/tmp")
    longest = "a" * (107 - len("/tmp/.sock"))
    assert len(directory.endpoint(longest).path) == 107
    with pytest.raises(ConfigError, match=r"108 bytes.*107.*shorter"):
        directory.endpoint(longest + "a")


def test_watchers_hear_of_changes_until_they_leave():
    directory, heard = RunDirectory("/tmp"), []
    leave = directory.watch(heard.append)
    directory.changed("clock")
    leave()
    leave()
    directory.changed("clock")
    assert heard == ["clock"]
