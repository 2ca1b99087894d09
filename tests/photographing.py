"""A flight over tiles, made in code: photos by casting the ray of each pixel on the ground, with EXIF and XMP."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from provisioning.base.geometry.angles import Origin
from tests import building

EQUATOR_M = 2 * math.pi * 6_371_008.8


def put_landscape(tiles: Path, zoom: int, west: int, north: int, side: int, *, seed: int = 3) -> np.ndarray:
    """Write a square of tiles cut from one picture of fields; return it, north up, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    soil = Image.fromarray(rng.integers(0, 256, (side * 2, side * 2, 3), dtype=np.uint8))
    ground = np.asarray(soil.resize((side * 256, side * 256), Image.Resampling.BICUBIC)).copy()
    for _ in range(side * side * 2):
        x, y, w, h = (int(v) for v in (*rng.integers(0, side * 256, 2), *rng.integers(40, 160, 2)))
        ground[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    for x, y in np.ndindex(side, side):
        path = tiles / f"{zoom}/{west + x}/{north + y}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile = ground[y * 256 : (y + 1) * 256, x * 256 : (x + 1) * 256]
        Image.fromarray(np.ascontiguousarray(tile)).save(path, quality=95)
    return ground


@cache
def textured(side, seed):
    """Return ground with details of every size, uint8 [side·256, side·256, 3]; do not change it."""
    rng, whole = np.random.default_rng(seed), np.zeros((side * 256, side * 256, 3))
    for size in (4, 12, 40, 130):
        fine = Image.fromarray(rng.integers(0, 256, (side * 256 // size + 1,) * 2 + (3,), np.uint8))
        whole += np.asarray(fine.resize((side * 256, side * 256), Image.Resampling.BICUBIC), float) / 4
    return np.clip((whole - 128) * 1.6 + 128, 0, 255).astype(np.uint8)


def place_at(zoom: int, x: float, y: float) -> Origin:
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**zoom))))
    return Origin(round(lat * 1e7), round((x / 2**zoom * 360 - 180) * 1e7))


def metres_per_pixel(zoom: int, place: Origin, tile_px: int = 256) -> float:
    return EQUATOR_M * math.cos(math.radians(place.lat_e7 / 1e7)) / 2**zoom / tile_px


def turned(yaw: float, pitch: float) -> np.ndarray:
    """Return the camera's right, down, forward axes as columns in east, north, up: yaw about up, then pitch."""
    a, p = math.radians(yaw), math.radians(pitch)
    about_up = np.array([[math.cos(a), math.sin(a), 0], [-math.sin(a), math.cos(a), 0], [0, 0, 1]])
    tilted = np.array([[1, 0, 0], [0, math.sin(p), math.cos(p)], [0, -math.cos(p), math.sin(p)]])
    return about_up @ tilted


def photograph(ground, at_px, mpp, *, height, yaw=0.0, pitch=-90.0, size=(960, 720), fov=60.0) -> np.ndarray:
    """Return what a camera above pixel `at_px` (x, y) of `ground` sees; black beyond its edges."""
    w, h = size
    focal = w / 2 / math.tan(math.radians(fov) / 2)
    u, v = np.meshgrid(np.arange(w) - (w - 1) / 2, np.arange(h) - (h - 1) / 2)
    ray = np.stack([u / focal, v / focal, np.ones_like(u)], axis=-1) @ turned(yaw, pitch).T
    reach = np.where(ray[..., 2] < -1e-6, height / -np.minimum(ray[..., 2], -1e-6), np.inf)
    with np.errstate(invalid="ignore"):
        x = np.nan_to_num(np.rint(at_px[0] + ray[..., 0] * reach / mpp - 0.5), nan=-1, posinf=-1, neginf=-1).astype(int)
        y = np.nan_to_num(np.rint(at_px[1] - ray[..., 1] * reach / mpp - 0.5), nan=-1, posinf=-1, neginf=-1).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < ground.shape[1]) & (y < ground.shape[0])
    seen = np.zeros((h, w, 3), np.uint8)
    seen[inside] = ground[y[inside], x[inside]]
    return seen


def dms(degrees: float) -> tuple[float, float, float]:
    minutes = abs(degrees) % 1 * 60
    return float(int(abs(degrees))), float(int(minutes)), round(minutes % 1 * 60, 6)


def dji_jpeg(path: Path, pixels, place: Origin | None, *, height, yaw, pitch, equivalent_mm) -> Path:
    """Write a photo with the metadata of a DJI camera."""
    exif = Image.Exif()
    if place is not None:
        lat, lon = place.lat_e7 / 1e7, place.lon_e7 / 1e7
        exif[0x8825] = {1: "N" if lat >= 0 else "S", 2: dms(lat), 3: "E" if lon >= 0 else "W", 4: dms(lon)}
    exif[0x8769] = {0xA405: equivalent_mm}
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
        f'drone-dji:RelativeAltitude="{height:+.2f}" drone-dji:GimbalPitchDegree="{pitch:+.2f}" '
        f'drone-dji:GimbalRollDegree="+0.00" drone-dji:GimbalYawDegree="{(yaw + 180) % 360 - 180:+.2f}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92, exif=exif, xmp=xmp.encode())
    path.write_bytes(out.getvalue())
    return path


def flown_from() -> Origin:
    """Return where the photo of `flown_site` was taken."""
    return place_at(building.ZOOM, building.WEST + 1.6, building.NORTH + 2.3)


def flown_site(site: Path) -> None:
    """Build a cache of textured ground whose imagery is on board, with a photo over it."""
    cache = building.new_cache(site)
    ground = textured(4, 12)
    for x, y in np.ndindex(4, 4):
        tile = Image.fromarray(np.ascontiguousarray(ground[y * 256 : (y + 1) * 256, x * 256 : (x + 1) * 256]))
        tile.save(site / f"tiles/{building.ZOOM}/{building.WEST + x}/{building.NORTH + y}.jpg", quality=92)
    building.edit(cache, '# on_board = "none"', 'on_board = "pmtiles"')
    assert building.build(cache).outcome == "SUCCESS"
    truth = flown_from()
    mpp = metres_per_pixel(building.ZOOM, truth)
    pixels = photograph(ground, (1.6 * 256, 2.3 * 256), mpp, height=400 * mpp, yaw=20, fov=65.0)
    focal = 36 / (2 * math.tan(math.radians(65) / 2)) * math.hypot(960, 720) / 960 / math.hypot(36, 24) * 36
    dji_jpeg(site / "a.jpg", pixels, truth, height=400 * mpp, yaw=20, pitch=-90, equivalent_mm=focal)
