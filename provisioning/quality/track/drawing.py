"""The flight drawn: error over the way as SVG, and truth, estimate and dead reckoning as a map layer (GeoJSON)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from provisioning.base.geometry.angles import Origin
from provisioning.quality.evaluate.plot import COLOURS, FONT
from provisioning.quality.locate import distance_m
from provisioning.quality.locate.geojson import collection, degrees, feature
from provisioning.quality.track.figures import figures
from provisioning.quality.track.fly import Flown

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 24, 52
GREY = "#888"


def to_svg(flights: Sequence[Flown]) -> bytes:
    """Return an SVG of metres of error (logarithmic) over the way flown: each filter, dead reckoning, single photos."""
    first = flights[0]
    errors = [(s.flown_m, s.reckoned_error_m) for s in first.steps]
    curves = [[(step.flown_m, step.error_m) for step in flown.steps] for flown in flights]
    longest = max(1.0, first.steps[-1].flown_m)
    top = max(1, math.ceil(math.log10(max(error for curve in (errors, *curves) for _, error in curve) + 1)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_grid(longest, top, first.settings.within_m),
        *_dots(first, longest, top),
        _curve(errors, longest, top, GREY, "6 4"),
        _legend(0, GREY, "dead reckoning", "6 4"),
        (
            f'<circle cx="{WIDTH - RIGHT + 29}" cy="{TOP + 32}" r="2.5" fill="{COLOURS[0]}" fill-opacity="0.5"/>'
            f'<text x="{WIDTH - RIGHT + 50}" y="{TOP + 36}">single photos</text>'
        ),
    ]
    for number, (flown, curve) in enumerate(zip(flights, curves, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        parts += [_curve(curve, longest, top, colour, ""), _legend(number + 2, colour, flown.name, "")]
    return "\n".join([*parts, "</svg>\n"]).encode()


def _x(flown_m: float, longest: float) -> float:
    return LEFT + flown_m / longest * (WIDTH - LEFT - RIGHT)


def _y(error_m: float, top: int) -> float:
    return HEIGHT - BOTTOM - min(1.0, math.log10(max(error_m, 1.0)) / top) * (HEIGHT - TOP - BOTTOM)


def _curve(points: Sequence[tuple[float, float]], longest: float, top: int, colour: str, dashes: str) -> str:
    path = "L".join(f"{_x(flown, longest):.1f} {_y(error, top):.1f}" for flown, error in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'


def _dots(flown: Flown, longest: float, top: int) -> Iterator[str]:
    for step in flown.steps:
        if step.answered is not None:
            y = _y(distance_m(step.answered, step.truth), top)
            at = f'cx="{_x(step.flown_m, longest):.1f}" cy="{y:.1f}"'
            yield f'<circle {at} r="2.5" fill="{COLOURS[0]}" fill-opacity="0.5"/>'


def _legend(row: int, colour: str, name: str, dashes: str) -> str:
    x, y = WIDTH - RIGHT + 16, TOP + 16 + 20 * row
    line = f'<path d="M{x} {y - 4}h26" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    return f'{line}<text x="{x + 34}" y="{y}">{escape(name)}</text>'


def _grid(longest: float, top: int, within_m: float) -> Iterator[str]:
    for decade in range(top + 1):
        y = _y(10.0**decade, top)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**decade:,} m</text>'
    for share in range(5):
        x = _x(longest * share / 4, longest)
        kilometres = f"{longest * share / 4000:,.1f} km"
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{kilometres}</text>'
    y = _y(within_m, top)
    yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#444" stroke-dasharray="3 3"/>'
    yield f'<text x="{LEFT}" y="{TOP - 8}">error</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">way flown</text>'


def to_geojson(flights: Sequence[Flown]) -> bytes:
    """Return a FeatureCollection (RFC 7946): truth, dead reckoning, each estimate and what was lost.

    Colours are simplestyle's, which QGIS plug-ins, geojson.io and GitHub draw.
    """
    first = flights[0]
    features = [
        _line([step.truth for step in first.steps], "truth", "#000000", name="truth"),
        _line([step.reckoned for step in first.steps], "dead reckoning", "#888888", name="dead reckoning"),
        *(feature for number, flown in enumerate(flights) for feature in _estimated(number, flown)),
    ]
    return collection(features)


def _estimated(number: int, flown: Flown) -> Iterator[dict[str, Any]]:
    yield _line([s.estimated for s in flown.steps], "estimate", COLOURS[number % len(COLOURS)], name=flown.name)
    for stretch in figures(flown).lost:
        steps = flown.steps[max(0, stretch.first - 1) : stretch.last + 1]
        yield _line([step.truth for step in steps], "lost", "#cc0000", name=flown.name)
    for step in flown.steps:
        properties = {
            "kind": "photo",
            "setting": flown.name,
            "photo": step.name,
            "error_m": round(step.error_m, 1),
            "sure": round(step.sure, 3),
            "sigma_m": round(step.sigma_m, 1),
        }
        yield feature("Point", degrees(step.truth), properties)


def _line(places: Sequence[Origin], kind: str, colour: str, *, name: str) -> dict[str, Any]:
    """Return a line; one place alone is a line of no length, as RFC 7946 asks for two positions."""
    positions = [degrees(place) for place in (places if len(places) > 1 else [*places, *places])]
    return feature("LineString", positions, {"kind": kind, "setting": name, "stroke": colour, "stroke-width": 2})
