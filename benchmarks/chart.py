"""Horizontal bars as an SVG file, written by hand: no library for one picture."""

from __future__ import annotations

from html import escape
from pathlib import Path

LEFT, WIDTH, ROW, TOP = 320, 420, 26, 44


def bars(path: Path, title: str, rows: list[tuple[str, float]]) -> None:
    """One bar a row, all on one scale."""
    most = max(value for _, value in rows)
    height = TOP + ROW * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="12" y="26" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(rows):
        y = TOP + ROW * number
        length = max(2.0, WIDTH * value / most)
        colour = "#0b7285" if name.startswith("engine") else "#adb5bd"
        parts.append(f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="16" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 15}">{value:.3g}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]))
