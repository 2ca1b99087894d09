"""The plot: for each setting, the share of photos whose best tile lies within a distance. SVG, drawn by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from provisioning.quality.evaluate.table import Result

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 250, 24, 52
FONT = 'font-family="sans-serif" font-size="13"'
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's palette: distinct for colour-blind readers. Dashes distinguish more than seven settings."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")


def to_svg(results: Sequence[Result]) -> bytes:
    """Return an SVG of the error of the first answer: distance (logarithmic) against share of photos."""
    errors = [sorted(a.answer.distances_m[0] for a in result.asked if a.answer.distances_m) for result in results]
    low, high = _decades(errors)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_grid(low, high),
    ]
    for number, (result, sorted_errors) in enumerate(zip(results, errors, strict=True)):
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        style = f'stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="2.5" fill="none"'
        parts.append(f'<path {style} d="{_steps(sorted_errors, len(result.asked), low, high)}"/>')
        y = TOP + 16 + number * 20
        x = WIDTH - RIGHT + 16
        parts.append(f'<path {style} d="M{x} {y - 4}h26"/><text x="{x + 34}" y="{y}">{escape(result.name)}</text>')
    parts.append(_mark(results[0].within_m, low, high))
    return "\n".join([*parts, "</svg>\n"]).encode()


def _decades(errors: Sequence[Sequence[float]]) -> tuple[int, int]:
    found = [max(1.0, error) for row in errors for error in row] or [1.0, 10.0]
    low = math.floor(math.log10(min(found)))
    return low, max(low + 1, math.ceil(math.log10(max(found))))


def _x(metres: float, low: int, high: int) -> float:
    share = (math.log10(max(metres, 10.0**low)) - low) / (high - low)
    return LEFT + min(1.0, share) * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _grid(low: int, high: int) -> list[str]:
    lines = []
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for decade in range(low, high + 1):
        x = _x(10.0**decade, low, high)
        metres = f"{10**decade:,} m" if decade < 4 else f"{10 ** (decade - 3):,} km"
        lines.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{metres}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">distance of the first tile named</text>')
    lines.append(f'<text x="{LEFT}" y="{TOP - 8}">share of photos</text>')
    return lines


def _steps(errors: Sequence[float], total: int, low: int, high: int) -> str:
    """Return the path of the cumulative share; photos without an answer keep it below 100 %."""
    path = [f"M{LEFT} {_y(0):.1f}"]
    for number, error in enumerate(errors, 1):
        path.append(f"H{_x(error, low, high):.1f}V{_y(number / total):.1f}")
    return "".join([*path, f"H{WIDTH - RIGHT}"])


def _mark(within_m: float, low: int, high: int) -> str:
    x = _x(within_m, low, high)
    return (
        f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#444" stroke-dasharray="3 3"/>'
        f'<text x="{x + 4:.1f}" y="{HEIGHT - BOTTOM - 6}" fill="#444">{within_m:,.0f} m</text>'
    )
