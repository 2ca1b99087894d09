"""What the report shows of a request, gathered from catalogue, Manifest and the generation before."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from provisioning import catalogue, index
from provisioning.area.area import Area, Route
from provisioning.area.cover import Cover
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import tile_at
from provisioning.build import tasks
from provisioning.build.generation import contents
from provisioning.build.request import Request
from provisioning.catalogue import Tile, TileReader
from provisioning.engines.compile import read_compiled
from provisioning.engines.tensorrt.layers import layers_note
from provisioning.network.builtin.known import LIMITS
from provisioning.quality import gates
from provisioning.report.changes import changes
from provisioning.report.map.mosaic import MOST_PICTURED, make_mosaic, mosaic_places, mosaic_zoom, small_picture
from provisioning.report.map.tilemap import Run, tile_map
from provisioning.report.model import (
    Failure,
    LonLat,
    Mosaic,
    Picture,
    ReportModel,
    SkippedTile,
    SourceRow,
    Step,
    TileMap,
    TileMark,
)

_PLACE = re.compile(r"\d+/\d+/\d+")


def report_model(request: Request) -> ReportModel:
    """Return what report.html shows of `request`; its engines, index and gates must have been made."""
    published = contents.published(request.cache)
    draft = contents.compose(request, counter=1, extras=())
    area = request.area
    return ReportModel(
        manifest=draft,
        index_reason=index.read_info(request.index_info).reason,
        maps=tuple(area_maps(request, area)),
        mosaic=_mosaic(request),
        outline=tuple(map(line, area.rings)),
        routes=tuple(map(line, area.routes)),
        required=tuple(
            tile_map(z, _runs(area.required, z), (), west_column=_west(request, z)) for z in area.required.zooms
        ),
        sources=tuple(
            SourceRow(name=n, tiles=c, oldest=o, newest=y) for n, c, o, y in catalogue.source_rows(request.build_dir)
        ),
        skipped=tuple(SkippedTile(*tile) for tile in request.tiles.skipped),
        changes=changes(published.manifest if published else None, draft),
        area_notes=tuple(map(str, area.notes)),
        marks=tuple(_marks(request)),
        failures=tuple(_failures(request)),
        steps=tuple(Step(row.name, row.after) for row in tasks.task_rows(request)),
        notes=tuple(_notes(request)),
        key_fingerprint=request.signer.public_key.fingerprint,
    )


def line(route: Route) -> tuple[LonLat, ...]:
    """Return a route, (latitude, longitude) in degrees, as a map draws it."""
    return tuple(LonLat(lon, lat) for lat, lon in route)


def _notes(request: Request) -> Iterator[str]:
    """Yield what the networks cannot do, and what the compilers reported about the layers of their engines."""
    yield from (LIMITS[b.onnx] for b in request.flight.backbone if b.role == "descriptor" and b.onnx in LIMITS)
    for network in request.networks:
        compiled = read_compiled(network.engine.path)
        if compiled and (note := layers_note(network.name, compiled.facts)):
            yield note


def _marks(request: Request) -> Iterator[TileMark]:
    """Yield the tiles that the gates name, those that the flight needs and no source has, and those left out."""
    for layer, lines in sorted(gates.read(request.gates.path).lists.items()):
        for text in lines:
            place, _, why = text.partition(" ")
            if _PLACE.fullmatch(place):
                z, x, y = map(int, place.split("/"))
                yield TileMark(z, x, y, layer, why)
    for missed in gates.read(request.gates.path).mistaken:
        instead = "/".join(map(str, missed.taken_for[:3]))
        yield TileMark(*missed.tile[:3], "not recognised", f"{missed.why}, taken for {instead}")
    for tile in request.tiles.required_missing:
        yield TileMark(tile.z, tile.x, tile.y, "required and missing", tile.why)
    for skipped in request.tiles.skipped:
        left = SkippedTile(*skipped)
        yield TileMark(left.z, left.x, left.y, "left out", left.reason)


def _failures(request: Request) -> Iterator[Failure]:
    """Yield the tiles that were not recognised; the first MOST_PICTURED of them with pictures."""
    mistaken = gates.read(request.gates.path).mistaken
    wanted = {address for tile, taken_for, _ in mistaken[:MOST_PICTURED] for address in (tile, taken_for)}
    at = {tile[:4]: tile for tile in catalogue.iter_tiles(request.build_dir) if tile[:4] in wanted} if wanted else {}
    with catalogue.open_reader(request.flight.tiles.source, request.build_dir) as reader:
        read = {address: _bytes_of(reader, tile) for address, tile in at.items()}
    jpegs = {address: small_picture(data) for address, data in read.items() if data is not None}
    for tile, taken_for, why in mistaken:
        yield Failure(Picture(*tile, jpegs.get(tile)), Picture(*taken_for, jpegs.get(taken_for)), why)


def area_maps(request: Request, area: Area) -> Iterator[TileMap]:
    """Yield what is there of `area` and what is not, by zoom level."""
    for zoom in request.tiles.zooms:
        yield tile_map(
            zoom,
            _runs(area.cover, zoom),
            catalogue.dated_places(request.build_dir, zoom),
            west_column=_west(request, zoom),
            origins=catalogue.source_places(request.build_dir, zoom),
        )


def _runs(cover: Cover, zoom: int) -> Iterator[Run]:
    for band in cover.bands.get(zoom, ()):
        for low, high in band.rows:
            yield from (Run(y, band.left, band.right) for y in range(low, high + 1))


def _west(request: Request, zoom: int) -> int:
    """Return the column of the area's west edge, from which columns count on past the antimeridian."""
    return tile_at(zoom, lat_e7=0, lon_e7=request.tiles.bbox.west)[0]


def _mosaic(request: Request) -> Mosaic | None:
    """Return the imagery of the zoom level that makes the best picture."""
    boxes = {zoom: _bounds(request, zoom) for zoom in request.tiles.zooms}
    zoom = mosaic_zoom({z: (right - left, bottom - top) for z, (left, top, right, bottom) in boxes.items()})
    shown = {(x % (1 << zoom), y) for x, y in mosaic_places(boxes[zoom])}
    at = {(tile.x, tile.y): tile for tile in _tiles_of(request, zoom) if (tile.x, tile.y) in shown}
    with catalogue.open_reader(request.flight.tiles.source, request.build_dir) as reader:

        def thumbnail(_z: int, x: int, y: int) -> bytes | None:
            tile = at.get((x % (1 << zoom), y))
            return _bytes_of(reader, tile) if tile else None

        return make_mosaic(zoom, boxes[zoom], thumbnail)


def _bytes_of(reader: TileReader, tile: Tile) -> bytes | None:
    """Return the bytes of a tile; None where it has gone since the scan: the picture has a gap, the build says so."""
    with contextlib.suppress(TileError):
        return reader.read(tile)
    return None


def _tiles_of(request: Request, zoom: int) -> Iterable[Tile]:
    return (tile for tile in catalogue.iter_tiles(request.build_dir) if tile.z == zoom)


def _bounds(request: Request, zoom: int) -> tuple[int, int, int, int]:
    """Return the edges of the area in tiles of `zoom`, right and bottom excluded, unrolled past the antimeridian."""
    bbox = request.tiles.bbox
    left, top = tile_at(zoom, lat_e7=bbox.north, lon_e7=bbox.west + 1)
    right, bottom = tile_at(zoom, lat_e7=bbox.south, lon_e7=bbox.east - 1)
    return left, top, right + 1 + (right < left) * (1 << zoom), bottom + 1
