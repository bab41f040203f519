from pathlib import Path

from engine.book import BookReader, OrderBook

PATTERNS: int
DEPTH: int

def pattern(k: int) -> OrderBook: ...
def write(path: str | Path) -> None: ...
def read(reader: BookReader, count: int, checked: bool = True) -> tuple[int, int, int, int]: ...
