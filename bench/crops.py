"""Photos whose place is known: perturbed crops cut across the edges of real tiles, with EXIF and XMP as a drone writes.

A crop is never a tile: its centre lies up to `offset` of a side from a tile's, it is magnified, lit, blurred and
compressed anew, and its top points where the aircraft flew.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

SIDE = 256


class Crop(NamedTuple):
    """One photo: file name, where it was taken [degree], where its top points [degree]."""

    name: str
    lat: float
    lon: float
    yaw: float


def read_mosaic(tiles: Path, zoom: int) -> dict[tuple[int, int], np.ndarray]:
    """Return every tile of a zoom level as uint8 [SIDE, SIDE, 4] (RGBA) by (x, y)."""
    found = {}
    for path in sorted((tiles / str(zoom)).glob("*/*.*")):
        image = Image.open(path).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found[int(path.parent.name), int(path.stem)] = np.asarray(image)
    return found


def make_crops(
    tiles: Path, zoom: int, folder: Path, *, offset: float, turned: bool, each: int = 2, every: int = 1, seed: int = 7
) -> list[Crop]:
    """Write up to `each` photos around each `every`-th tile, wherever the imagery fills the frame, and queries.csv."""
    mosaic, rng = read_mosaic(tiles, zoom), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    crops = []
    for x, y, number in [(x, y, number) for x, y in sorted(mosaic)[::every] for number in range(each)]:
        right, down = rng.uniform(-offset, offset, 2)
        yaw = float(rng.uniform(0, 360)) if turned else float(rng.uniform(-4, 4)) % 360
        seen = _view(_scene(mosaic, x, y), right, down, yaw, 1 + rng.uniform(-0.08, 0.08))
        photo, quality = _camera(seen[..., :3], rng), int(rng.integers(45, 80))
        if (seen[..., 3] < 255).mean() > 0.01:
            continue
        lat, lon = _place(zoom, x + 0.5 + right, y + 0.5 + down)
        crop = Crop(f"{zoom}-{x}-{y}-{number}.jpg", lat, lon, yaw)
        _save(photo, folder / crop.name, crop, quality)
        crops.append(crop)
    with open(folder / "queries.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "lat", "lon", "yaw"])
        writer.writerows([c.name, f"{c.lat:.7f}", f"{c.lon:.7f}", f"{c.yaw:.1f}"] for c in crops)
    return crops


def _scene(mosaic: dict[tuple[int, int], np.ndarray], x: int, y: int) -> np.ndarray:
    """Return the tile with its neighbours, uint8 [3·SIDE, 3·SIDE, 4]; transparent where there is none."""
    nothing = np.zeros((SIDE, SIDE, 4), np.uint8)
    rows = [[mosaic.get((x + dx, y + dy), nothing) for dx in (-1, 0, 1)] for dy in (-1, 0, 1)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _view(scene: np.ndarray, right: float, down: float, yaw: float, scale: float) -> np.ndarray:
    """Return what a camera sees whose centre is moved by shares of a side and whose top points to `yaw`."""
    cos, sin = math.cos(math.radians(yaw)) / scale, math.sin(math.radians(yaw)) / scale
    cx, cy = SIDE * (1.5 + right), SIDE * (1.5 + down)
    half = SIDE / 2
    matrix = (cos, -sin, cx - cos * half + sin * half, sin, cos, cy - sin * half - cos * half)
    size = (SIDE, SIDE)
    return np.asarray(Image.fromarray(scene).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _camera(pixels: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return the pixels as another camera took them on another day: gain, colour cast, blur, noise."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)
    lit = Image.fromarray(np.clip(pixels * gain, 0, 255).astype(np.uint8))
    blurred = np.asarray(lit.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5))), np.float64)
    return Image.fromarray(np.clip(blurred + rng.normal(0, 4, blurred.shape), 0, 255).astype(np.uint8))


def _place(zoom: int, x: float, y: float) -> tuple[float, float]:
    n = 2.0**zoom
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / n)))), x / n * 360 - 180


def _save(photo: Image.Image, path: Path, crop: Crop, quality: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "flightcache bench"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = ("N" if crop.lat >= 0 else "S"), _dms(abs(crop.lat))
    gps[3], gps[4] = ("E" if crop.lon >= 0 else "W"), _dms(abs(crop.lon))
    yaw = (crop.yaw + 180) % 360 - 180
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
        f'drone-dji:GimbalYawDegree="{yaw:+.2f}"/></rdf:RDF></x:xmpmeta>'
    )
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=quality, exif=exif, xmp=xmp.encode())
    path.write_bytes(out.getvalue())


def _dms(degrees: float) -> tuple[float, float, float]:
    minutes = degrees % 1 * 60
    return float(int(degrees)), float(int(minutes)), round(minutes % 1 * 60, 5)
