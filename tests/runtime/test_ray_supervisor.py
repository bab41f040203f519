"""What a supervisor that Ray keeps tells whoever started the engine, and hears from there."""

from __future__ import annotations

from engine.messages import LogLine
from engine.runtime.ray_supervisor import LINES, Driver


def line(number: int) -> LogLine:
    return LogLine(actor="clock", level="info", event=f"{number}", time_ns=number, fields={})


def shown(driver: Driver, seen: int) -> list[str]:
    return [each.event for each in driver.since(seen)]


def test_each_line_is_told_once_to_who_says_how_many_it_has_seen() -> None:
    driver = Driver()
    assert shown(driver, 0) == []
    for number in range(3):
        driver.show(line(number))
    assert shown(driver, 0) == ["0", "1", "2"]
    assert shown(driver, 2) == ["2"]
    assert shown(driver, 3) == []
    assert shown(driver, 9) == []


def test_who_asks_late_is_told_the_newest_lines() -> None:
    driver = Driver()
    for number in range(LINES + 5):
        driver.show(line(number))
    assert shown(driver, 0) == [f"{number}" for number in range(5, LINES + 5)]
    assert shown(driver, LINES + 4) == [f"{LINES + 4}"]


def test_a_stop_that_was_asked_for_before_anybody_listened_is_heard() -> None:
    driver, heard = Driver(), list[str]()
    driver.ask_to_stop("SIGINT")
    driver.on_stop(heard.append)
    assert heard == ["SIGINT"]
    driver.ask_to_stop("SIGTERM")
    assert heard == ["SIGINT", "SIGTERM"]
