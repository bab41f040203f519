from typing import final

from engine.connectors.hot_path import FrameScanner

@final
class BinanceScanner(FrameScanner):
    def scan(
        self, frame: bytes, price_exponent: int, size_exponent: int
    ) -> tuple[str, int, int, int, list[tuple[int, int]], list[tuple[int, int]]] | None: ...
    def scan_quote(self, frame: bytes) -> tuple[str, int, str, str, str, str] | None: ...
