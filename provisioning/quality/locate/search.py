"""Looking images up in a verified cache: its own engine, its own preprocessing, its own index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from provisioning.base.errors import EngineError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import CUTS, E7, PackedId, column_at, row_at, row_edge_deg, unpack_id
from provisioning.config import Engine
from provisioning.engines import Network, select
from provisioning.flight.manifest import EngineEntry, Manifest
from provisioning.flight.verify import Verdict
from provisioning.index.among import ids_of, scores_among
from provisioning.index.ids import Floats, Int64s, evenly
from provisioning.index.read import load_index, search
from provisioning.quality.locate.confidence import least_likeness
from provisioning.quality.locate.fusion import BACKGROUND, LEAST_SPREAD, Candidate, fused
from provisioning.quality.locate.photo import turned_north_up
from provisioning.quality.locate.places import EQUATOR_M, Places, Prior, distances_m, moved
from provisioning.quality.query.patches import patch_centres, preferred_sides
from provisioning.quality.query.rendering import Pixels, Shrinking, View, render_patch
from provisioning.quality.query.viewing import Viewing
from provisioning.sources.pixels.fitting import fit

PATCHES = 9
"""Squares of ground asked for from one photo: three by three, half a side apart, where the photo is wide enough."""
MOST_CANDIDATES = 50
BESIDE = 9
"""A tile or cut and what lies within half a tile of it: all may be like the image, and are one answer."""


class Match(NamedTuple):
    """A tile or cut that looks like the image: its address, the centre's coordinates, and how sure.

    cut: 0 for the tile z/x/y itself; a cut lies half a tile east, south or both of it (`geo.CUTS`).

    similarity: inner product after the index's transform, 1 at most; of several patches the mean. heading_deg: where
    the image's top points if the match is right. position: where the camera was if it is right: above that
    centre, unless the image was rendered from a camera that looks elsewhere. distance_m: from there to the position
    that the caller gave. standing: standard deviations by which it stands out from what the image is like everywhere.
    likeness: similarity of the image to the tile most like it, of several patches the mean.
    """

    z: int
    x: int
    y: int
    source: str
    similarity: float
    centre: Origin
    heading_deg: float
    distance_m: float | None
    position: Origin
    standing: float = 0.0
    likeness: float = 0.0
    cut: int = 0

    @property
    def name(self) -> str:
        """The address of the tile, and where a cut lies from it: 17/70000/45000+SE."""
        return f"{self.z}/{self.x}/{self.y}{('', '+E', '+S', '+SE')[self.cut]}"

    @property
    def tile_xy(self) -> tuple[float, float]:
        """Where the camera was, in fractional tile coordinates of the zoom level."""
        return fractional_tile(self.z, self.position)


class _Part(NamedTuple):
    """Rows of one zoom level with tiles of `side_m`, and the centres of patches of that size, [p, 2], metre."""

    zoom: int
    side_m: float
    centres: Floats
    rows: Int64s


class Locator:
    """A verified cache ready for queries. Not for several threads at once: `clone` gives each its own."""

    def __init__(
        self, network: Network, index: Any, *, sources: tuple[str, ...], rotations: int, fit_how: str = "resize"
    ) -> None:
        """Take a network, a FAISS index of its descriptors, and what the Manifest says of both.

        sources: names in the order of their numbers in the ids. rotations: headings at which each tile and cut is
        indexed.
        fit_how: how an image is brought to the network's size. EngineError if network and index do not fit.
        """
        if network.dimension != index.d:
            raise EngineError(
                "engine and index do not fit each other",
                facts={"descriptor": network.dimension, "index": index.d},
                next_step="build again: doit",
            )
        self.network = network
        self.index = index
        self.sources = sources
        self.rotations = rotations
        self.fit_how = fit_how
        self._places: Places | None = None
        self._least: float | None = None

    @classmethod
    def from_verdict(cls, verdict: Verdict, *, custom_ops: Path | None = None) -> Locator:
        """Load engine and index from the bytes that were verified.

        Raises VerificationError for anything but a PASS, EngineError where the engine cannot run here, IndexingError.
        """
        manifest = verdict.require()
        entry = _engine_of(manifest)
        return cls(
            verified_network(verdict, entry, custom_ops),
            load_index(verdict.read(manifest.descriptor_index.path)),
            sources=manifest.tiles.sources,
            rotations=manifest.descriptor_index.rotations,
            fit_how=entry.input.fit if entry.input else "resize",
        )

    def clone(self) -> Locator:
        """Return a locator for another thread over the same index."""
        other = Locator(
            self.network.clone(), self.index, sources=self.sources, rotations=self.rotations, fit_how=self.fit_how
        )
        other._places, other._least = self.places, self._least
        return other

    @property
    def ids(self) -> Int64s:
        """Every id of the index, int64 [n]: one for each tile or cut, source and heading."""
        return self.places.ids

    @property
    def places(self) -> Places:
        """Where the tiles of the index lie."""
        if self._places is None:
            self._places = Places(ids_of(self.index), self.rotations)
        return self._places

    @property
    def least_likeness(self) -> float:
        """Similarity below which an image is unlike all tiles; the network is asked for it once."""
        if self._least is None:
            self._least = least_likeness(self.index, self.network)
        return self._least

    def describe(self, pixels: Pixels, headings: Sequence[float]) -> Floats:
        """Return float32 [len(headings), d]: the image turned north-up under each assumed heading, degree.

        pixels: uint8 [H, W, 3] RGB, of any size; its central square is taken, as tiles are square.
        """
        turned = [fit(turned_north_up(pixels, heading), self.network.size, self.fit_how) for heading in headings]
        return self.network(np.stack(turned))

    def locate(
        self,
        pixels: Pixels,
        *,
        k: int = 5,
        headings: Sequence[float] = (0.0,),
        position: Origin | None = None,
        near: Prior | None = None,
    ) -> tuple[Match, ...]:
        """Return the `k` tiles most like the image under the best of `headings`, the best first.

        pixels: uint8 [H, W, 3] RGB, looking straight down. headings: where its top may point, degree clockwise from
        north. near: only tiles that touch this circle are compared, all of them.
        """
        vectors = self.describe(pixels, headings)
        around = BESIDE if self.places.has_cuts else 1
        wanted = min(k * self.rotations * around, self.index.ntotal)
        scores, ids = search(self.index, vectors, wanted) if near is None else self._near(vectors, near, wanted)
        rows = zip(
            scores.ravel().tolist(), ids.ravel().tolist(), np.repeat(headings, ids.shape[1]).tolist(), strict=True
        )
        found = tuple(self._best(sorted(rows, key=lambda row: (-row[0], row[1])), k, position))
        return tuple(self._standing(found, vectors, near))

    def _standing(self, found: tuple[Match, ...], vectors: Floats, near: Prior | None) -> Iterator[Match]:
        """Yield the matches with how far each stands out from all tiles that the image was compared with."""
        if not found:
            return
        others = scores_among(self.index, vectors, self._pool(near), self.ids)
        mean, spread = float(others.mean()), max(float(others.std()), LEAST_SPREAD)
        yield from (
            each._replace(standing=(each.similarity - mean) / spread, likeness=found[0].similarity) for each in found
        )

    def _pool(self, near: Prior | None) -> Int64s:
        """Return rows that stand for everything that is searched."""
        rows = self.places.rows(near=near)
        return rows[evenly(len(rows), BACKGROUND)]

    def _near(self, vectors: Floats, near: Prior, wanted: int) -> tuple[Floats, Int64s]:
        rows = self.places.rows(near=near)
        scores = scores_among(self.index, vectors, rows, self.ids)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
        return np.take_along_axis(scores, order, axis=1), self.ids[rows[order]]

    def locate_view(
        self,
        pixels: Pixels,
        viewing: Viewing,
        *others: Viewing,
        k: int = 5,
        headings: Sequence[float] | None = None,
        position: Origin | None = None,
        near: Prior | None = None,
        patches: int = PATCHES,
    ) -> tuple[Match, ...]:
        """Return the `k` best places for a photo whose camera and height are known, the best first.

        The photo is rendered north-up at the size of the tiles of the zoom level that it shows best, `patches` squares
        at most, and only that zoom is asked, others only where it has no tiles. headings: yaws to try, degree;
        default: the photo's own, or north. others: what else may be true of its height; each costs as much.
        Nothing is returned where the photo shows no ground.
        """
        yaws = headings if headings is not None else (viewing.angles.yaw_deg or 0.0,)
        views = [(yaw, each.view(yaw)) for yaw in yaws for each in (viewing, *others)]
        photo = Shrinking(pixels)
        found = [row for yaw, view in views for row in self._of_view(photo, view, yaw, near, patches)]
        found.sort(key=lambda row: (-row[0].z, row[0].row))
        return tuple(self._as_match(*row, position) for row in found[:k])

    def _of_view(
        self, photo: Shrinking, view: View, yaw: float, near: Prior | None, patches: int
    ) -> Iterator[tuple[Candidate, int, float, float]]:
        """Yield candidates with their zoom and yaw, and how like the tiles the patches are."""
        pool = self._pool(near)
        for part in self._parts(view, near, patches):
            vectors = self.network(np.stack([self._rendered(photo, view, each, part.side_m) for each in part.centres]))
            places, offsets = self.places, part.centres * [1, -1] / part.side_m
            scores, others = (scores_among(self.index, vectors, rows, self.ids) for rows in (part.rows, pool))
            x, y = places.half_x[part.rows] / 2, places.half_y[part.rows] / 2
            found = fused(scores, x, y, offsets, part.rows, others=others)
            near_ones = (each for each in found if _within(each, part.zoom, near))
            like = float(scores.max(axis=1).mean())
            yield from ((each, part.zoom, yaw, like) for each in islice(near_ones, MOST_CANDIDATES))

    def _parts(self, view: View, near: Prior | None, patches: int) -> Iterator[_Part]:
        """Yield what is asked for together: the rows of one zoom level where tiles are of one size on the ground.

        Of each place only the zoom level that the photo shows best is asked for, of those that have it.
        """
        places, zooms = self.places, self.places.zooms
        for band in [None] if near else places.bands:
            lat = near.position.lat_e7 / E7 if near else places.middle_lat_deg(band)
            sides = [places.side_m(zoom, lat) for zoom in zooms]
            covered: Int64s = np.empty(0, np.int64)
            for number in preferred_sides(view, sides, most=patches):
                centres = np.array(patch_centres(view, side_m=sides[number], most=patches))
                if not len(centres):
                    return
                rows = places.rows(zoom=zooms[number], near=near and _seen_from(near, centres), band=band)
                rows = rows[~np.isin(places.cells[rows], covered)]
                covered = np.union1d(covered, places.cells[rows])
                if len(rows):
                    yield _Part(zooms[number], sides[number], centres, rows)

    def needed_of(self, view: View, near: Prior | None, patches: int) -> float:
        """Return the share of a photo's resolution that `locate_view` looks at; 1 where all of it is."""
        focal, size = min(view.camera.fx, view.camera.fy), max(self.network.size)
        most = 0.0
        for part in self._parts(view, near, patches):
            away_m = np.hypot(np.hypot(*part.centres.T) + part.side_m / math.sqrt(2), view.height_m)
            pixel_m = float(away_m.max()) ** 1.5 / view.height_m**0.5 / focal  # along and across the slant, their mean
            most = max(most, pixel_m * size / part.side_m)
        return min(1.0, most or 1.0)

    def _rendered(self, photo: Shrinking, view: View, centre: Floats, side_m: float) -> Pixels:
        size = max(self.network.size)
        east, north = centre.tolist()
        patch = render_patch(photo, view, east_m=east, north_m=north, side_m=side_m, size=size)
        return fit(patch.pixels, self.network.size, self.fit_how)

    def _as_match(self, found: Candidate, zoom: int, yaw: float, like: float, position: Origin | None) -> Match:
        packed = unpack_id(int(self.ids[found.row]), self.rotations)
        heading = (yaw + 360 * packed.heading / self.rotations) % 360
        own = origin_at(zoom, found.x, found.y)
        away = distance_m(own, position) if position else None
        source, centre = self.sources[packed.source], packed.centre
        return Match(*packed[:3], source, found.similarity, centre, heading, away, own, found.z, like, packed.cut)

    def _best(self, rows: list[tuple[float, int, float]], k: int, position: Origin | None) -> Iterator[Match]:
        """Yield the first `k` of `rows` (score, id, assumed heading), each tile once.

        A cut that lies half a tile or less from a better match of its source and zoom level shows most of the same
        ground and is passed over; so is a tile beside a better cut.
        """
        taken: set[tuple[int, int, int, int]] = set()
        count = 0
        for score, packed, assumed in rows:
            if packed < 0 or count >= k:
                continue
            found = unpack_id(packed, self.rotations)
            if _address(found) in taken:
                continue
            count += 1
            taken.update(_shown_by(found) if self.places.has_cuts else [_address(found)])
            heading = (assumed + 360 * found.heading / self.rotations) % 360
            source, centre = self.sources[found.source], found.centre
            away = distance_m(centre, position) if position else None
            yield Match(*found[:3], source, score, centre, heading, away, centre, cut=found.cut)


def _address(found: PackedId) -> tuple[int, int, int, int]:
    """Return source, zoom and place in half tiles."""
    east, south = CUTS[found.cut]
    return found.source, found.z, 2 * found.x + east, 2 * found.y + south


def _shown_by(found: PackedId) -> Iterator[tuple[int, int, int, int]]:
    """Yield the addresses of what lies within half a tile."""
    source, z, x, y = _address(found)
    yield from ((source, z, (x + dx) % (2 << z), y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1))


def _seen_from(near: Prior, centres: Floats) -> Prior:
    """Return the circle that holds what any patch may show of an aircraft in the circle of `near`."""
    middle = centres.mean(axis=0)
    spread = float(np.hypot(*(centres - middle).T).max())
    east, north = middle.tolist()
    return Prior(moved(near.position, east_m=east, north_m=north), near.radius_m + spread)


def _within(found: Candidate, zoom: int, near: Prior | None) -> bool:
    """Return whether a position lies in the circle of a prior, a tile's half diagonal granted."""
    if near is None:
        return True
    own = origin_at(zoom, found.x, found.y)
    granted = EQUATOR_M * math.cos(math.radians(own.lat_e7 / E7)) / (1 << zoom) / math.sqrt(2)
    return distance_m(own, near.position) <= near.radius_m + granted


def fractional_tile(zoom: int, place: Origin) -> tuple[float, float]:
    """Return a point in tile coordinates of a zoom level, the inverse of `origin_at`."""
    return column_at(zoom, place.lon_e7), row_at(zoom, place.lat_e7)


def origin_at(zoom: int, x: float, y: float) -> Origin:
    """Return the point at fractional tile coordinates."""
    return Origin(round(row_edge_deg(zoom, y) * E7), round(((x / (1 << zoom) * 360) % 360 - 180) * E7))


def _engine_of(manifest: Manifest) -> EngineEntry:
    """Return the engine whose descriptors are in the index; the Manifest's parser saw to it that there is one."""
    return next(entry for entry in manifest.engines if entry.path == manifest.descriptor_index.engine)


def verified_network(verdict: Verdict, entry: EngineEntry, custom_ops: Path | None) -> Network:
    """Return an engine of a cache that passed, loaded from the bytes that were verified; EngineError."""
    backend = select(Engine(backend=verdict.require().host.backend))  # type: ignore[arg-type]
    return backend.load(verdict.read(entry.path), custom_ops=custom_ops)


def evenly_turned(count: int) -> tuple[float, ...]:
    """Return `count` headings around the compass, degree, north first."""
    return tuple(360 * number / count for number in range(count))


def distance_m(a: Origin, b: Origin) -> float:
    """Return the great-circle distance of two points, metre (haversine formula)."""
    return float(distances_m(a.lat_e7 / E7, a.lon_e7 / E7, b.lat_e7 / E7, b.lon_e7 / E7))
