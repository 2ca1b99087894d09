"""Count tiles into the cells of a map: a million tiles become at most some thousand squares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from provisioning.report.model import Cell, TileMap

MAX_CELLS_ACROSS: Final = 96
"""At 96 a side a map of any area stays below 100 kB and its squares can still be distinguished on a phone."""


class Run(NamedTuple):
    """Expected tiles of one row: columns `first` to `last`, both included."""

    y: int
    first: int
    last: int


def tile_map(
    zoom: int,
    expected: Iterable[Run],
    present: Iterable[tuple[int, int, str | None]],
    *,
    west_column: int = 0,
    origins: Iterable[tuple[int, int, str]] = (),
) -> TileMap:
    """Return the map of one zoom level.

    `present` yields (x, y, capture date or None) of each place once, `origins` (x, y, source) of each of its tiles.
    Columns below `west_column`, that of the area's
    west edge, lie beyond the antimeridian and count on from 2**zoom.
    """
    runs = [piece for run in expected for piece in _unrolled(run, west_column, 1 << zoom)]
    shift = _shift(runs)
    want: dict[tuple[int, int], int] = {}
    for run in runs:
        _count_run(want, run, shift)
    have, oldest = _count_present(((x + (x < west_column) * (1 << zoom), y, date) for x, y, date in present), shift)
    named: dict[tuple[int, int], set[str]] = {}
    for x, y, source in origins:
        named.setdefault((y >> shift, (x + (x < west_column) * (1 << zoom)) >> shift), set()).add(source)
    cells = tuple(
        Cell(x, y, have.get((y, x), 0), want[y, x], oldest.get((y, x)), tuple(sorted(named.get((y, x), ()))))
        for y, x in sorted(want)
    )
    return TileMap(zoom=zoom, level=zoom - shift, cells=cells)


def _unrolled(run: Run, west: int, columns: int) -> tuple[Run, ...]:
    if run.last < west:
        return (Run(run.y, run.first + columns, run.last + columns),)
    if run.first < west:
        return (Run(run.y, west, run.last), Run(run.y, run.first + columns, west - 1 + columns))
    return (run,)


def _shift(runs: list[Run]) -> int:
    """Return how many zoom levels above the tiles the cells must lie to be few enough."""
    if not runs:
        return 0
    width = max(run.last for run in runs) - min(run.first for run in runs)
    height = max(run.y for run in runs) - min(run.y for run in runs)
    shift = 0
    while max(width, height) >> shift >= MAX_CELLS_ACROSS:
        shift += 1
    return shift


def _count_run(want: dict[tuple[int, int], int], run: Run, shift: int) -> None:
    for cell in range(run.first >> shift, (run.last >> shift) + 1):
        first, last = max(run.first, cell << shift), min(run.last, ((cell + 1) << shift) - 1)
        place = (run.y >> shift, cell)
        want[place] = want.get(place, 0) + last - first + 1


def _count_present(
    places: Iterable[tuple[int, int, str | None]], shift: int
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], str]]:
    have: dict[tuple[int, int], int] = {}
    oldest: dict[tuple[int, int], str] = {}
    for x, y, date in places:
        place = (y >> shift, x >> shift)
        have[place] = have.get(place, 0) + 1
        if date is not None and date < oldest.get(place, "~"):
            oldest[place] = date
    return have, oldest
