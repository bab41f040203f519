from typing import final

from engine.connectors.hot_path import DiffScanner

@final
class BinanceDiffScanner(DiffScanner):
    def scan(
        self, frame: bytes, price_exponent: int, size_exponent: int
    ) -> tuple[str, int, int, int, list[tuple[int, int]], list[tuple[int, int]]] | None: ...
