"""What a store of tiles holds, found from its names alone: the start of a flight.toml."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioning.angles import BBox
from provisioning.config import TileSource
from provisioning.errors import EmptyCorpusError
from provisioning.geo import MAX_ZOOM, tile_bounds_e7, tiles_in_bbox
from provisioning.tiles.area import enclosing
from provisioning.tiles.columns import packed_runs, unpacked_runs
from provisioning.tiles.containers import open_container
from provisioning.tiles.cover import Band, Cover, count
from provisioning.tiles.source import kind_of
from provisioning.tiles.values import ZoomCount
from provisioning.tiles.xyz import Layout, names_in

EVERYTHING = Cover({z: (Band(0, (1 << z) - 1, ((0, (1 << z) - 1),)),) for z in range(MAX_ZOOM + 1)})


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The box around a store's finest tiles, and per zoom what of that box it holds."""

    kind: str
    bbox: BBox
    per_zoom: Mapping[int, ZoomCount]


def survey(path: Path) -> Survey:
    """Return what the store at `path` holds. Raises TileError if it cannot be read, EmptyCorpusError if it is empty."""
    source = TileSource(path=path.absolute())
    columns: dict[int, dict[int, array[int]]] = {}
    for z, x, y in _addresses(source):
        columns.setdefault(z, {}).setdefault(x, array("I")).append(y)
    if not columns:
        raise EmptyCorpusError(
            "the source holds no tiles", file=path, next_step="add tiles first, as {z}/{x}/{y} files"
        )
    finest = max(columns)
    bbox = _box_around(finest, columns[finest])
    per_zoom = {z: _counted(z, bbox, columns[z]) for z in sorted(columns)}
    return Survey(kind=kind_of(source), bbox=bbox, per_zoom={z: c for z, c in per_zoom.items() if c.present})


def _addresses(source: TileSource) -> Iterator[tuple[int, int, int]]:
    if kind_of(source) == "xyz":
        layout = Layout(source)
        for folder in layout.folders(EVERYTHING):
            tile_of = layout.tile_of(folder, EVERYTHING)
            yield from (found[:3] for name in names_in(layout.root / folder.path) if (found := tile_of(name)))
        return
    container = open_container(source)
    try:
        yield from container.addresses()
    finally:
        container.close()


def _box_around(z: int, columns: Mapping[int, Iterable[int]]) -> BBox:
    rows = [y for ys in columns.values() for y in (min(ys), max(ys))]
    boxes = []
    for left, right in unpacked_runs(packed_runs(sorted(columns))):
        north_west, south_east = tile_bounds_e7(z, left, min(rows)), tile_bounds_e7(z, right, max(rows))
        boxes.append(BBox(north_west.west, south_east.south, south_east.east, north_west.north))
    return enclosing(boxes)


def _counted(z: int, bbox: BBox, columns: Mapping[int, Iterable[int]]) -> ZoomCount:
    """Return how many of the box's tiles are there; holes are not measured."""
    ranges, (top, bottom) = tiles_in_bbox(bbox, z)
    inside = (set(ys) for x, ys in columns.items() if any(left <= x <= right for left, right in ranges))
    present = sum(sum(top <= y <= bottom for y in ys) for ys in inside)
    return ZoomCount(present, count(ranges) * (bottom - top + 1), 0)
