"""Small sets of tiles, and stores that hold them."""

import io
import os
import sqlite3
from decimal import Decimal
from pathlib import Path

import numpy as np
from PIL import Image
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from provisioning.base.geometry.angles import BBox
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.catalogue import Corpus, scan
from provisioning.config import Area, Flight, Tiles, TileSource

Z, X, Y = 15, 17_000, 11_000


def image(seed: int, *, kind: str = "PNG", side: int = 8, alpha: int | None = None, colour=None) -> bytes:
    """Return the bytes of an image that differs for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    if colour is not None:
        pixels[:] = colour
    if alpha is not None:
        pixels = np.dstack((pixels, np.full((side, side), alpha, np.uint8)))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return out.getvalue()


def block(width: int = 3, height: int = 3, *, z: int = Z, x: int = X, y: int = Y, seed: int = 0) -> dict:
    """Return images by (z, x, y)."""
    at = [(z, x + i, y + j) for i in range(width) for j in range(height)]
    return {tile: image(seed + n) for n, tile in enumerate(at)}


def bbox_of(tiles) -> BBox:
    """Return the box around tiles of one zoom."""
    z = max(t[0] for t in tiles)
    boxes = [tile_bounds_e7(*t) for t in tiles if t[0] == z]
    return BBox(
        min(b.west for b in boxes), min(b.south for b in boxes), max(b.east for b in boxes), max(b.north for b in boxes)
    )


def write_xyz(root: Path, tiles, *, pattern: str = "{z}/{x}/{y}", suffix: str = ".png", tms: bool = False) -> Path:
    """Write tiles as files whose times are long past."""
    for (z, x, y), data in tiles.items():
        row = (1 << z) - 1 - y if tms else y
        path = root / (pattern.format(z=z, x=x, y=row) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_mbtiles(path: Path, tiles, *, metadata=(("format", "png"),), index: bool = True) -> Path:
    """Write tiles as MBTiles."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE metadata(name TEXT, value TEXT)")
    db.executemany("INSERT INTO metadata VALUES (?, ?)", metadata)
    db.execute("CREATE TABLE tiles(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)")
    rows = [(z, x, (1 << z) - 1 - y, data) for (z, x, y), data in tiles.items()]
    db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    if index:
        db.execute("CREATE UNIQUE INDEX i ON tiles(zoom_level, tile_column, tile_row)")
    db.commit()
    db.close()
    return path


def write_reference_pmtiles(path: Path, tiles) -> Path:
    """Write tiles with the reference implementation."""
    zooms = [t[0] for t in tiles]
    with open(path, "wb") as stream:
        writer = Writer(stream)
        for tileid, data in sorted((zxy_to_tileid(*at), data) for at, data in tiles.items()):
            writer.write_tile(tileid, data)
        header = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": min(zooms),
                  "max_zoom": max(zooms), "min_lon_e7": 0, "min_lat_e7": 0, "max_lon_e7": 0, "max_lat_e7": 0,
                  "center_zoom": 0, "center_lon_e7": 0, "center_lat_e7": 0}  # fmt: skip
        writer.finalize(header, {"captured": "2024-05-06"})
    return path


def flight(root: Path, *sources, bbox=None, zooms=(Z,), area=None, **tiles) -> Flight:
    """Return a flight over sources (paths or TileSource)."""
    stores = tuple(s if isinstance(s, TileSource) else TileSource(path=s, name="sat") for s in sources)
    shape = area or Area(bbox=bbox, zooms=zooms)
    return Flight(root=root / "cache", area=shape, tiles=Tiles(source=stores, **tiles))


def scanned(flight: Flight) -> Corpus:
    """Return the corpus of a flight, scanned now."""
    return scan(flight.selection, flight.build_dir)


def age(path: Path, seconds: float = 3600) -> None:
    """Let a file or tree look as if it had been written long ago (ctime stays: see `racily clean`)."""
    for name in [path, *path.rglob("*")]:
        found = os.stat(name)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns - int(seconds * 1e9)))


HALF = Decimal("0.5")
