"""A simulated flight over real tiles, nadir and oblique, in other light: photos and a list for `evaluate --track`.

python -m bench.track shared/data/tiles/oam_banepa FOLDER: folders `nadir` and `oblique`, each with queries.csv,
and `nadir-cast` and `oblique-cast`, all of whose photos have one colour cast, haze and contrast more.
"""

from __future__ import annotations

import csv
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from provisioning.quality.gates.perturb import _photographed
from tests.photographing import metres_per_pixel, photograph, place_at

ZOOM, WEST, NORTH, COLUMNS, ROWS = 19, 386690, 220241, 6, 8
FOV_DEG, SIZE = 70.0, (640, 480)
HEIGHT_M = 75.0
STEP_M = 25.0


def ground(tiles: Path) -> np.ndarray:
    """Return the imagery of the square, uint8 [H, W, 3]."""
    names = [[tiles / f"{ZOOM}/{WEST + x}/{NORTH + y}.jpg" for x in range(COLUMNS)] for y in range(ROWS)]
    rows = [[np.asarray(Image.open(name).convert("RGB")) for name in row] for row in names]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def way(mpp: float) -> list[tuple[float, float, float]]:
    """Return pixels and headings of a flight up and down the square, a photo each STEP_M."""
    corners = [(1.2, 6.8), (1.2, 1.2), (2.6, 1.2), (2.6, 6.8), (4.0, 6.8), (4.0, 1.2), (4.8, 1.2), (4.8, 6.8)]
    found = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        length = math.hypot(x1 - x0, y1 - y0) * 256 * mpp
        yaw = math.degrees(math.atan2(x1 - x0, y0 - y1)) % 360
        shares = np.arange(0, length, STEP_M) / length
        found += [((x0 + (x1 - x0) * share) * 256, (y0 + (y1 - y0) * share) * 256, yaw) for share in shares]
    return found


def _cast(image: np.ndarray) -> np.ndarray:
    mixed = image.astype(np.float32) / 255 @ np.array([[0.55, 0.2, 0.15], [0.35, 0.6, 0.35], [0.1, 0.2, 0.5]])
    return (np.clip(mixed**0.6 * 0.75 + 0.2, 0, 1) * 255).astype(np.uint8)


def main(tiles: Path, folder: Path) -> None:
    """Write both flights. What the list says of height and angles is wrong by a few per cent and degrees."""
    land, middle = ground(tiles), place_at(ZOOM, WEST + COLUMNS / 2, NORTH + ROWS / 2)
    mpp = metres_per_pixel(ZOOM, middle)
    flights = [(name, pitch, cast) for name, pitch in (("nadir", -90.0), ("oblique", -45.0)) for cast in ("", "-cast")]
    for name, pitch, cast in flights:
        rng, out = np.random.default_rng(24), folder / (name + cast)
        out.mkdir(parents=True, exist_ok=True)
        with (out / "queries.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "lat", "lon", "yaw", "pitch", "height_m", "fov_deg", "time_s"])
            for number, (x, y, yaw) in enumerate(way(mpp)):
                seen = photograph(land, (x, y), mpp, height=HEIGHT_M, yaw=yaw, pitch=pitch, size=SIZE, fov=FOV_DEG)
                seen = _photographed(_cast(seen) if cast else seen, rng, None)
                Image.fromarray(seen).save(out / f"{number:03}.jpg", quality=85)
                place = place_at(ZOOM, WEST + x / 256, NORTH + y / 256)
                given = [yaw + rng.normal(0, 3), pitch + rng.normal(0, 2), HEIGHT_M * rng.normal(1, 0.05)]
                rows.writerow([f"{number:03}.jpg", place.lat_e7 / 1e7, place.lon_e7 / 1e7, *(f"{g:.2f}" for g in given),
                               FOV_DEG, 2.0 * number])  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
