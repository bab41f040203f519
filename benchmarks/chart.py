"""Horizontal bars as a PNG file."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import say

LEFT, WIDTH, RIGHT, ROW, TOP = 500, 620, 110, 44, 84
FONT, TITLE_FONT = 22, 26
INK, OURS, THEIRS = "#212529", "#0b7285", "#adb5bd"


def bars(path: Path, title: str, rows: list[tuple[str, float]]) -> None:
    """One bar a row, all on one scale; said, and nothing drawn, where Pillow is missing."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        say("no picture: Pillow is not installed here (pip install 'engine[bench]')")
        return
    most = max(value for _, value in rows)
    image = Image.new("RGB", (LEFT + WIDTH + RIGHT, TOP + ROW * len(rows) + 20), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT)
    draw.text((24, 22), title, INK, ImageFont.load_default(TITLE_FONT))
    for number, (name, value) in enumerate(rows):
        y = TOP + ROW * number
        length = max(3.0, WIDTH * value / most)
        draw.text((LEFT - 16, y + ROW / 2), name, INK, font, anchor="rm")
        draw.rectangle((LEFT, y + 6, LEFT + length, y + ROW - 6), OURS if name.startswith("engine") else THEIRS)
        draw.text((LEFT + length + 10, y + ROW / 2), f"{value:.3g}", INK, font, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
