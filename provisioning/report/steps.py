"""The tasks of the build as a picture: what is made before what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from provisioning.report.html import Markup, paragraph, section
from provisioning.report.model import ReportModel, Step

WIDTH, HEIGHT, ACROSS, DOWN = 124, 34, 142, 48
"""Size of a box and distance of columns and rows, in drawing units."""
NAME_LENGTH = 17


def steps(model: ReportModel) -> str:
    """Return the section; an empty string where no tasks are given."""
    if not model.steps:
        return ""
    order = " → ".join(dict.fromkeys(step.name.partition(":")[0] for step in model.steps))
    note = paragraph(
        f"In this order: {order}. `flightcache why TASK` says why one would run again; "
        "`flightcache status` how long each took, and before. No time stands here: the same cache makes the same page.",
        "soft",
    )
    return section("steps", "How it was built", _picture(model.steps), note)


def _picture(given: Sequence[Step]) -> Markup:
    before = {step.name: _named(step.after, given) for step in given}
    places = _places(before)
    width = max(x for x, _ in places.values()) + WIDTH + 2
    height = max(y for _, y in places.values()) + HEIGHT + 2
    lines = "".join(
        _line(places[first], places[then]) for then, names in before.items() for first in names if first in places
    )
    boxes = "".join(_box(name, *place) for name, place in places.items())
    words = "; ".join(f"{name} after {', '.join(names)}" if names else name for name, names in before.items())
    return Markup(
        '<div class="wide" role="region" tabindex="0" aria-label="Tasks of the build">'
        f'<svg class="steps-graph" role="img" width="{width}" viewBox="0 0 {width} {height}" '
        'aria-labelledby="steps-title"><title id="steps-title">'
        f"Tasks of the build: {escape(words)}</title>{lines}{boxes}</svg></div>"
    )


def _named(after: Sequence[str], given: Sequence[Step]) -> tuple[str, ...]:
    """Return the tasks that `after` names, where a group stands for each of its tasks."""
    return tuple(step.name for step in given if step.name in after or step.name.partition(":")[0] in after)


def _places(before: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
    """Return the corner of each box: its column is the longest way to it, its row the next that is free there."""
    columns: dict[str, int] = {}
    for name, names in before.items():  # in the order of the build: what comes before is placed already
        columns[name] = max((columns[first] + 1 for first in names if first in columns), default=0)
    free: dict[int, int] = {}
    places = {}
    for name, column in columns.items():
        row = free.get(column, 0)
        free[column] = row + 1
        places[name] = (1 + column * ACROSS, 1 + row * DOWN)
    return places


def _line(first: tuple[int, int], then: tuple[int, int]) -> str:
    x, y = first[0] + WIDTH, first[1] + HEIGHT // 2
    to_x, to_y = then[0], then[1] + HEIGHT // 2
    bend = (to_x - x) // 2
    return f'<path class="step-line" d="M{x} {y}c{bend} 0 {bend} {to_y - y} {to_x - x} {to_y - y}"/>'


def _box(name: str, x: int, y: int) -> str:
    shown = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
    return (
        f'<rect class="step-box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 5}" text-anchor="middle">{escape(shown)}</text>'
    )
