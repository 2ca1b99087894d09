"""What a store of tiles holds: the start of a flight.toml.

Up to `MOST_LOOKED_AT` images are looked at as a scan would, so that what is no imagery is not expected ever after; of a
larger store only a sample, unless that shows images that may be transparent.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from provisioning.area.area import enclosing
from provisioning.area.cover import count
from provisioning.area.place import describe_place
from provisioning.base.errors import EmptyCorpusError
from provisioning.base.events import progress
from provisioning.base.geometry.angles import HALF_TURN_E7, TURN_E7, BBox, overlap
from provisioning.base.geometry.geo import MAX_LATITUDE_E7, tile_bounds_e7, tiles_in_bbox
from provisioning.catalogue.gaps import Hole, holes
from provisioning.catalogue.scanning.columns import PARTLY_PPM, packed_runs, unpacked_runs
from provisioning.catalogue.scanning.repeats import REPEATS
from provisioning.catalogue.values import ZoomCount
from provisioning.config import Tiles, TileSource
from provisioning.sources.containers.geotiff import with_values
from provisioning.sources.pixels.image import inspect_tile, may_be_transparent
from provisioning.sources.pixels.likeness import PERCEPTUAL_HASH_BYTES, alike
from provisioning.sources.placement.placing import placed
from provisioning.sources.source import EVERYTHING, Container, listed
from provisioning.sources.stores import kind_of, open_store
from provisioning.sources.xyz import Directory

__all__ = ["EVERYTHING", "Survey", "survey"]

SAMPLE = 64
"""Tiles looked at to learn whether images may be transparent."""
MOST_LOOKED_AT = 20_000
SPARSE = 0.1
"""Share of the box around all of the finest tiles below which far-off groups of tiles are boxes of their own."""
SHOWN = 3
"""Places that are named of those left out."""
NEAR_LEVELS = 4
"""Tiles whose ancestors so many levels up touch are one group: gaps of up to 16 tiles."""

Columns = dict[int, dict[int, "array[int]"]]
"""Rows by zoom and column."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The box around a store's finest tiles, and per zoom what of that box it holds.

    `source` is read as its layout and evidence ask for; `notes` say what was found and what was left out.
    """

    kind: str
    bbox: BBox
    per_zoom: Mapping[int, ZoomCount]
    source: TileSource
    notes: tuple[str, ...] = ()
    has_evidence: bool = True

    @property
    def mirrored_bbox(self) -> BBox:
        """The box, if rows were counted from the other end."""
        west, south, east, north = self.bbox
        return BBox(west, -north, east, -south)

    @property
    def mirrored(self) -> str:
        """The place, in words, if rows were counted from the other end."""
        return describe_place(self.mirrored_bbox)


def survey(path: Path | TileSource) -> Survey:
    """Return what a store holds. TileError if it cannot be read or placed, EmptyCorpusError if it is empty."""
    given = path if isinstance(path, TileSource) else TileSource(path=path)
    source, notes = placed(with_values(replace(given, path=given.path.absolute())))
    if source.values != given.values:
        notes = (*notes, f"pixels of 16 bits: values {source.values[0]} to {source.values[1]} become 0 to 255")
    store = open_store(source)
    try:
        said = store.statements()
        columns = _addressed(store, source)
        kept, more = _imagery(store, columns)
    finally:
        store.close()
    if not kept:
        held = "holds no imagery: every tile is empty" if columns else "holds no tiles"
        step = "look at them: they are transparent, black, white or of one colour, or fill less than half of a tile"
        raise EmptyCorpusError(
            f"the source {held}", file=source.path,
            next_step=step if columns else "add tiles first, as {z}/{x}/{y} files",
        )  # fmt: skip
    bbox, left_out = _box(max(kept), kept[max(kept)])
    per_zoom = {z: _counted(z, bbox, kept[z]) for z in sorted(kept)}
    return Survey(
        kind=kind_of(source),
        bbox=bbox,
        per_zoom={z: c for z, c in per_zoom.items() if c.present},
        source=source,
        has_evidence=any(s.boxes or s.centre or s.scheme for s in said),
        notes=(*notes, *more, *left_out, *_beyond(kept, bbox, per_zoom)),
    )


def _addressed(store: Container | Directory, source: TileSource) -> Columns:
    columns: Columns = {}
    for n, (z, x, y) in enumerate(listed(store, source)):
        columns.setdefault(z, {}).setdefault(x, array("I")).append(y)
        if n % 1000 == 0:
            progress("tiles listed", n, 0, unit="tiles")
    return columns


class _Probe(NamedTuple):
    """What one tile is: whether it is imagery as far as it alone shows, and the digest and hash of its picture."""

    is_imagery: bool
    picture: bytes
    perceptual_hash: bytes | None
    empty_ppm: int


def _imagery(store: Container | Directory, columns: Columns) -> tuple[Columns, tuple[str, ...]]:
    """Return the tiles that are imagery, and what was left out; those that cannot be decoded stay, to be reported."""
    places = [(z, x, y) for z in sorted(columns) for x in sorted(columns[z]) for y in columns[z][x]]
    if len(places) > MOST_LOOKED_AT and not any(
        may_be_transparent(store.read(*at) or b"") for at in places[:: 1 + len(places) // SAMPLE]
    ):
        return columns, (f"{len(places):,} tiles: their images are looked at by the first scan of `doit`",)
    probes: list[_Probe] = []
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        for probe in pool.map(lambda at: _probe(store.read(*at)), places):
            probes.append(probe)
            progress("tiles looked at", len(probes), len(places), unit="tiles")
    often = _repeated(probes)
    if often and all(probe.picture in often for probe in probes if probe.is_imagery):
        kept = {z: {x: array("I", ys) for x, ys in found.items()} for z, found in columns.items()}
        return kept, (f"EVERY TILE IS ONE OF {len(often)} PICTURES THAT REPEAT. IS THIS IMAGERY?",)
    result: Columns = {}
    for (z, x, y), probe in zip(places, probes, strict=True):
        if probe.is_imagery and probe.picture not in often:
            result.setdefault(z, {}).setdefault(x, array("I")).append(y)
    return result, tuple(_left_out(probes, often))


def _left_out(probes: Sequence[_Probe], often: set[bytes]) -> Iterator[str]:
    empty = sum(not probe.is_imagery for probe in probes)
    partly = sum(probe.is_imagery and probe.empty_ppm > PARTLY_PPM for probe in probes)
    repeated = sum(probe.is_imagery and probe.picture in often for probe in probes)
    if empty:
        yield f"{empty:,} of {len(probes):,} tiles are empty, of one colour, or mostly black or white: taken as missing"
    if partly:
        yield (
            f"{partly:,} OF {len(probes):,} TILES ARE PARTLY BLANK (SEAMS, BORDERS) AND ARE KEPT. IS THAT ENOUGH?"
            " (tiles.max_empty says how much is too much)"
        )
    if repeated:
        yield (
            f"{repeated:,} of {len(probes):,} tiles show a picture that repeats, exactly or nearly (no imagery?):"
            ' counted as missing; tiles.blank = "keep" keeps them'
        )


def _probe(data: bytes | None) -> _Probe:
    limits = Tiles()
    if data is None:
        return _Probe(is_imagery=False, picture=b"", perceptual_hash=None, empty_ppm=0)
    found = inspect_tile(data, max_pixels=limits.max_pixels, nodata=())
    full = found.empty_ppm <= limits.max_empty * 1_000_000
    picture = blake2b(data, digest_size=16).digest() if found.fault is None else b""
    return _Probe(is_imagery=full, picture=picture, perceptual_hash=found.perceptual_hash, empty_ppm=found.empty_ppm)


def _repeated(probes: Sequence[_Probe]) -> set[bytes]:
    """Return the digests of pictures that stand, to the last byte or nearly so, in `REPEATS` places or more."""
    import numpy as np

    often = {picture for picture, n in Counter(probe.picture for probe in probes).items() if n >= REPEATS and picture}
    seen = [(probe.picture, probe.perceptual_hash) for probe in probes if probe.perceptual_hash]
    table = np.frombuffer(b"".join(probe for _, probe in seen), np.uint8).reshape(-1, PERCEPTUAL_HASH_BYTES)
    groups = alike(table, np.arange(len(seen)), least=REPEATS)
    return often | {seen[i][0] for group in groups for i in group}


def _box(z: int, columns: Mapping[int, Iterable[int]]) -> tuple[BBox, tuple[str, ...]]:
    """Return the box around the finest tiles; where these are far-off groups, around the largest, and name the rest."""
    whole = _box_around(z, columns)
    tiles = sum(len(set(ys)) for ys in columns.values())
    if _expected(z, whole) * SPARSE <= tiles:
        return whole, ()
    (first, around), *others = _groups(z, columns)
    if not others:
        return whole, ()
    note = f"zoom {z}: {first:,} of {tiles:,} tiles are in the area; left out: {_named(z, others, columns)}"
    return _box_around(z, _inside(z, around, columns)), (note,)


def _groups(z: int, columns: Mapping[int, Iterable[int]]) -> list[tuple[int, Hole]]:
    """Return the far-off groups of some tiles, each with how many it has, the largest first."""
    up = min(NEAR_LEVELS, z)
    coarse: dict[int, set[int]] = {}
    for x, ys in columns.items():
        coarse.setdefault(x >> up, set()).update(y >> up for y in ys)
    groups = holes(z - up, [(x, unpacked_runs(packed_runs(sorted(ys)))) for x, ys in sorted(coarse.items())])
    counted = [(_tiles_inside(z, group, columns), group) for group in groups]
    return sorted(((n, group) for n, group in counted if n), key=lambda pair: -pair[0])


def _named(z: int, groups: Sequence[tuple[int, Hole]], columns: Mapping[int, Iterable[int]]) -> str:
    """Return where some groups of tiles lie, and what flight.toml asks for the first of them with."""
    boxes = [_box_around(z, _inside(z, group, columns)) for _, group in groups[:SHOWN]]
    rest = ", ".join(f"{n:,} near {describe_place(box)}" for (n, _), box in zip(groups, boxes, strict=False))
    more = f" and {len(groups) - SHOWN} more places" if len(groups) > SHOWN else ""
    corners = ", ".join(f"{side / 1e7:.7f}" for side in boxes[0])
    return f"{rest}{more}; the first is asked for by [[area.part]] bbox = [{corners}], zooms = [{z}]"


def _inside(z: int, group: Hole, columns: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    ranges, (top, bottom) = tiles_in_bbox(group.bbox, z)
    found = {
        x: [y for y in ys if top <= y <= bottom] for x, ys in columns.items() if any(a <= x <= b for a, b in ranges)
    }
    return {x: ys for x, ys in found.items() if ys}


def _tiles_inside(z: int, group: Hole, columns: Mapping[int, Iterable[int]]) -> int:
    return sum(len(ys) for ys in _inside(z, group, columns).values())


def _box_around(z: int, columns: Mapping[int, Iterable[int]]) -> BBox:
    """Return a box that flight.toml accepts: no further than Web Mercator goes, and no detour round the Earth."""
    rows = [y for ys in columns.values() for y in (min(ys), max(ys))]
    boxes = []
    for left, right in unpacked_runs(packed_runs(sorted(columns))):
        north_west, south_east = tile_bounds_e7(z, left, min(rows)), tile_bounds_e7(z, right, max(rows))
        boxes.append(BBox(north_west.west, south_east.south, south_east.east, north_west.north))
    west, south, east, north = enclosing(boxes)
    if west > east and (east - west) % TURN_E7 > HALF_TURN_E7:
        west, east = -HALF_TURN_E7, HALF_TURN_E7
    return BBox(west, max(south, -MAX_LATITUDE_E7), east, min(north, MAX_LATITUDE_E7))


def _expected(z: int, bbox: BBox) -> int:
    ranges, (top, bottom) = tiles_in_bbox(bbox, z)
    return count(ranges) * (bottom - top + 1)


def _counted(z: int, bbox: BBox, columns: Mapping[int, Iterable[int]]) -> ZoomCount:
    """Return how many of the box's tiles are there; holes are not measured."""
    ranges, (top, bottom) = tiles_in_bbox(bbox, z)
    inside = (set(ys) for x, ys in columns.items() if any(left <= x <= right for left, right in ranges))
    present = sum(sum(top <= y <= bottom for y in ys) for ys in inside)
    return ZoomCount(present, _expected(z, bbox), 0)


def _beyond(columns: Columns, bbox: BBox, per_zoom: Mapping[int, ZoomCount]) -> Iterator[str]:
    """Yield what coarser zoom levels hold outside the box of the finest, and where that is another place."""
    for z in sorted(columns)[:-1]:
        total = sum(len(set(ys)) for ys in columns[z].values())
        if total > per_zoom[z].present:
            said = f"zoom {z}: {per_zoom[z].present:,} of {total:,} tiles are in the area of the finest zoom"
            elsewhere = [(n, group) for n, group in _groups(z, columns[z]) if not overlap(group.bbox, bbox)]
            yield said + (f"; left out: {_named(z, elsewhere, columns[z])}" if elsewhere else "")
