"""Under which conditions photos are found: recall by heading, height, texture and distance to the tile's centre."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7, tile_at, tile_centre
from provisioning.base.words import columns
from provisioning.quality.evaluate.score import Answer, Recall, recalls
from provisioning.quality.locate import Photo, Places, distance_m
from provisioning.quality.query import Viewing

LEAST_PHOTOS = 8
"""Photos of which a condition must be known before recall is broken down by it."""
PARTS = 3
LOOKED_AT = 256
"""Pixels to each side from which the texture is taken: a photo of 50 megapixels costs no more than a small one."""
QUARTERS = ("north (315 to 45)", "east (45 to 135)", "south (135 to 225)", "west (225 to 315)")
FROM_CENTRE = (0.25, 0.5)
"""Shares of a tile's side at which the distance to its centre is divided; the corner is at 0.71."""


class Conditions(NamedTuple):
    """What may make a photo hard to find. None: nothing says it.

    heading_deg: where its top points, clockwise from true north. height_m: above ground. texture: standard deviation
    of its grey levels, 0 to 127. off_centre: distance from the true position to the centre of the tile that holds it,
    shares of the tile's side, at the zoom level that was asked.
    """

    heading_deg: float | None = None
    height_m: float | None = None
    texture: float | None = None
    off_centre: float | None = None


class Group(NamedTuple):
    """Photos of one range of a condition: its name, how many, and their recall."""

    name: str
    photos: int
    recalls: tuple[Recall, ...]


def conditions(photo: Photo, viewing: Viewing | str, *, heading_deg: float | None, height_m: float | None,
               off_centre: float) -> Conditions:  # fmt: skip
    """Return the conditions of `photo`; a heading or a height that the caller knows goes before the photo's own."""
    heading = photo.heading_deg if heading_deg is None else heading_deg
    stated = photo.metadata.relative_m if height_m is None else height_m
    height = stated if isinstance(viewing, str) else viewing.height_m
    return Conditions(None if heading is None else heading % 360, height, texture(photo), off_centre)


def texture(photo: Photo) -> float:
    """Return the standard deviation of the grey levels, as the gate `degenerate` measures tiles."""
    rows, columns = (max(1, side // LOOKED_AT) for side in photo.pixels.shape[:2])
    return float(photo.pixels[::rows, ::columns].mean(axis=2, dtype=np.float32).std())


def off_centre(places: Places, truth: Origin, zoom: int) -> float:
    """Return how far `truth` lies from the centre of its tile of `zoom`, shares of the tile's side."""
    centre = tile_centre(zoom, *tile_at(zoom, lat_e7=truth.lat_e7, lon_e7=truth.lon_e7))
    return distance_m(centre, truth) / places.side_m(zoom, truth.lat_e7 / E7)


def broken_down(
    answers: Sequence[Answer], known: Sequence[Conditions], *, within_m: float
) -> Mapping[str, tuple[Group, ...]]:
    """Return the recall of each range of each condition that is known of LEAST_PHOTOS and divides them.

    Headings are divided into quarters, heights and textures into PARTS of equally many photos.
    """
    divided = {
        "heading": _by([each.heading_deg for each in known], _quarter),
        "height": _by_rank([each.height_m for each in known], "m"),
        "texture": _by_rank([each.texture for each in known], "levels"),
        "centre": _by([each.off_centre for each in known], _ring),
    }
    return {
        condition: tuple(
            Group(name, len(numbers), recalls([answers[number] for number in numbers], within_m=within_m))
            for name, numbers in groups.items()
        )
        for condition, groups in divided.items()
        if len(groups) > 1 and sum(map(len, groups.values())) >= LEAST_PHOTOS
    }


def _quarter(heading_deg: float) -> tuple[int, str]:
    number = int((heading_deg + 45) % 360 // 90)
    return number, QUARTERS[number]


def _ring(share: float) -> tuple[int, str]:
    number = sum(share > edge for edge in FROM_CENTRE)
    low, high = FROM_CENTRE
    return number, (f"up to {low:g} sides", f"{low:g} to {high:g} sides", f"over {high:g} sides")[number]


def _by(values: Sequence[float | None], place: Callable[[float], tuple[int, str]]) -> dict[str, list[int]]:
    """Return the numbers of the values that are known by the name of their group, in the order of the groups."""
    placed = sorted((*place(value), number) for number, value in enumerate(values) if value is not None)
    groups: dict[str, list[int]] = {}
    for _, name, number in placed:
        groups.setdefault(name, []).append(number)
    return groups


def _by_rank(values: Sequence[float | None], unit: str) -> dict[str, list[int]]:
    """Return groups of about equally many values; those that are written alike stay together."""
    known = sorted((value, number) for number, value in enumerate(values) if value is not None)
    edges = sorted({_written(known[len(known) * part // PARTS][0]) for part in range(1, PARTS)}) if known else []
    groups = {part: [each for each in known if sum(_written(each[0]) >= edge for edge in edges) == part]
              for part in range(len(edges) + 1)}  # fmt: skip
    return {_range(group, unit): [number for _, number in group] for group in groups.values() if group}


def _written(value: float) -> int:
    return math.floor(value + 0.5)


def _range(group: Sequence[tuple[float, int]], unit: str) -> str:
    low, high = (_written(group[at][0]) for at in (0, -1))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def condition_lines(groups: Mapping[str, tuple[Group, ...]]) -> Iterator[str]:
    """Yield a small table: a row for each range, recall with the 95 % interval at rank 1."""
    rows = [
        (condition if not at else "", group.name, str(group.photos), *map(_cell, group.recalls))
        for condition, ranges in groups.items()
        for at, group in enumerate(ranges)
    ]
    if not rows:
        return
    head = ("by", "range", "photos", *(f"recall@{each.rank}" for each in next(iter(groups.values()))[0].recalls))
    yield from ("  " + line for line in columns((head, *rows), left=2))


def _cell(recall: Recall) -> str:
    share = f"{100 * recall.share:.0f}"
    return f"{share} [{100 * recall.low:.0f}, {100 * recall.high:.0f}]" if recall.rank == 1 else share
