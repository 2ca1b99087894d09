"""Looking images up in a verified cache: its own engine, its own preprocessing, its own index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from provisioning.base.angles import Origin
from provisioning.base.errors import EngineError
from provisioning.base.geo import E7, tile_centre, unpack_id
from provisioning.config import Engine
from provisioning.engines import Network, select
from provisioning.flight.manifest import EngineEntry, Manifest
from provisioning.flight.verify import Verdict
from provisioning.index.ids import HEADING_BITS, Int64s
from provisioning.index.read import load_index, search
from provisioning.network.backbone import fit
from provisioning.quality.locate.photo import turned_north_up

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius; a great circle on it is within 0.6 % of the ellipsoid's geodesic."""


class Match(NamedTuple):
    """A tile that looks like the image: its address, the centre's coordinates, and how sure.

    similarity: inner product after the index's transform, 1 at most. heading_deg: where the image's top points if the
    match is right. distance_m: to the position that the caller gave.
    """

    z: int
    x: int
    y: int
    source: str
    similarity: float
    centre: Origin
    heading_deg: float
    distance_m: float | None


class Locator:
    """A verified cache ready for queries. Not for several threads at once: `clone` gives each its own."""

    def __init__(
        self, network: Network, index: Any, *, sources: tuple[str, ...], rotations: int, fit_how: str = "resize"
    ) -> None:
        """Take a network, a FAISS index of its descriptors, and what the Manifest says of both.

        sources: names in the order of their numbers in the ids. rotations: headings at which each tile is indexed.
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

    @classmethod
    def from_verdict(cls, verdict: Verdict, *, custom_ops: Path | None = None) -> Locator:
        """Load engine and index from the bytes that were verified.

        Raises VerificationError for anything but a PASS, EngineError where the engine cannot run here, IndexingError.
        """
        manifest = verdict.require()
        entry = _engine_of(manifest)
        backend = select(Engine(backend=manifest.host.backend))  # type: ignore[arg-type]
        return cls(
            backend.load(verdict.read(entry.path), custom_ops=custom_ops),
            load_index(verdict.read(manifest.descriptor_index.path)),
            sources=manifest.tiles.sources,
            rotations=manifest.descriptor_index.rotations,
            fit_how=entry.input.fit if entry.input else "resize",
        )

    def clone(self) -> Locator:
        """Return a locator for another thread over the same index."""
        return Locator(
            self.network.clone(), self.index, sources=self.sources, rotations=self.rotations, fit_how=self.fit_how
        )

    @property
    def ids(self) -> Int64s:
        """Every id of the index, int64 [n]: one for each tile, source and heading."""
        import faiss

        return np.asarray(faiss.vector_to_array(_with_ids(self.index).id_map), np.int64)

    def describe(self, pixels: np.ndarray[Any, Any], headings: Sequence[float]) -> np.ndarray[Any, Any]:
        """Return float32 [len(headings), d]: the image turned north-up under each assumed heading, degree.

        pixels: uint8 [H, W, 3] RGB, of any size; its central square is taken, as tiles are square.
        """
        turned = [fit(turned_north_up(pixels, heading), self.network.size, self.fit_how) for heading in headings]
        return self.network(np.stack(turned))

    def locate(
        self,
        pixels: np.ndarray[Any, Any],
        *,
        k: int = 5,
        headings: Sequence[float] = (0.0,),
        position: Origin | None = None,
    ) -> tuple[Match, ...]:
        """Return the `k` tiles most like the image under the best of `headings`, the best first.

        pixels: uint8 [H, W, 3] RGB. headings: where its top may point, degree clockwise from north.
        """
        wanted = min(k * self.rotations, self.index.ntotal)
        scores, ids = search(self.index, self.describe(pixels, headings), wanted)
        rows = zip(scores.ravel().tolist(), ids.ravel().tolist(), np.repeat(headings, wanted).tolist(), strict=True)
        return tuple(self._best(sorted(rows, key=lambda row: (-row[0], row[1])), k, position))

    def _best(self, rows: list[tuple[float, int, float]], k: int, position: Origin | None) -> Iterator[Match]:
        """Yield the first `k` tiles of `rows` (score, id, assumed heading), each tile once."""
        seen: set[int] = set()
        for score, packed, assumed in rows:
            place = packed >> HEADING_BITS
            if packed < 0 or place in seen or len(seen) >= k:
                continue
            seen.add(place)
            found = unpack_id(packed)
            centre = tile_centre(found.z, found.x, found.y)
            source = self.sources[found.source]
            heading = (assumed + 360 * found.heading / self.rotations) % 360
            away = distance_m(centre, position) if position else None
            yield Match(found.z, found.x, found.y, source, score, centre, heading, away)


def _engine_of(manifest: Manifest) -> EngineEntry:
    """Return the engine whose descriptors are in the index; the Manifest's parser saw to it that there is one."""
    return next(entry for entry in manifest.engines if entry.path == manifest.descriptor_index.engine)


def _with_ids(index: Any) -> Any:
    """Return the part of a FAISS index that keeps ids, through any transform around it."""
    import faiss

    index = faiss.downcast_index(index)
    while not hasattr(index, "id_map"):
        index = faiss.downcast_index(index.index)
    return index


def evenly_turned(count: int) -> tuple[float, ...]:
    """Return `count` headings around the compass, degree, north first."""
    return tuple(360 * number / count for number in range(count))


def distance_m(a: Origin, b: Origin) -> float:
    """Return the great-circle distance of two points, metre (haversine formula)."""
    lat_a, lat_b = math.radians(a.lat_e7 / E7), math.radians(b.lat_e7 / E7)
    half_lat, half_lon = (lat_b - lat_a) / 2, math.radians((b.lon_e7 - a.lon_e7) / E7) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))
