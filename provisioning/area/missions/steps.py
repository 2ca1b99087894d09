"""A mission as frozen values, whichever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from provisioning.area.shapes import Margin, Note, Point, Ring
from provisioning.base.geometry.angles import AltDatum, Origin

FOR_EVER = -1
MOST_STEPS = 65_535
"""What the MAVLink mission protocol can count."""

Circle = tuple[Point, float]
"""Centre, and radius in metres."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a mission, named `where` as its file numbers it.

    `fly`: to any of `entries`, along `paths` in order, on from any of `exits`; `around`: circles flown there.
    `return`: to home, or a rally point or landing start that the autopilot may prefer. `jump`: on at the step labelled
    `target`, `repeats` times (`FOR_EVER`). `end`: nothing after it is flown. `pass`: moves nothing.
    """

    where: str
    kind: Literal["fly", "return", "jump", "end", "pass"]
    entries: tuple[Point, ...] = ()
    exits: tuple[Point, ...] = ()
    paths: tuple[Ring, ...] = ()
    around: tuple[Circle, ...] = ()
    spline: bool = False
    target: str = ""
    repeats: int = 0


def fly(where: str, place: Point, *, around: tuple[Circle, ...] = (), spline: bool = False) -> Step:
    """Return the step that flies to a place."""
    return Step(where=where, kind="fly", entries=(place,), exits=(place,), around=around, spline=spline)


def along(where: str, path: Ring) -> Step:
    """Return the step that flies along a line."""
    return Step(where=where, kind="fly", entries=path[:1], exits=path[-1:], paths=(path,))


@dataclass(frozen=True, kw_only=True)
class Mission:
    """Steps and what they refer to.

    `labels` gives the number of the step that a jump's target names. `alternates` are rally points and the like:
    diversions, and where a return may go instead. `landings` are the starts of landing sequences, where a return may
    go. `ends` says what is done after the last step: `stay`, `land`, return `home`, or `unknown` to this kind of file.
    """

    steps: tuple[Step, ...]
    home: Point | None = None
    takeoff: Origin | None = None
    takeoff_datum: AltDatum | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    alternates: tuple[Point, ...] = ()
    landings: tuple[Point, ...] = ()
    homes_set: tuple[Point, ...] = ()
    margins: tuple[Margin, ...] = ()
    lines: tuple[Ring, ...] = ()
    ends: Literal["stay", "land", "home", "unknown"] = "stay"
    notes: tuple[Note, ...] = ()
