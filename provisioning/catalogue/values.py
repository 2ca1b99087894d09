"""What the rest of the build knows about the corpus: frozen values, and their JSON in the catalogue."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import field

from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import EmptyCorpusError
from provisioning.base.frozen import dataclass
from provisioning.base.geometry.angles import AltDatum, BBox, Origin
from provisioning.base.hashing import Sha256
from provisioning.base.named import NamedTuple


class Tile(NamedTuple):
    """One tile of the corpus: XYZ address, source name, SHA-256 of its bytes as stored."""

    z: int
    x: int
    y: int
    source: str
    sha256: Sha256


class Skipped(NamedTuple):
    """A tile that cannot be used, and why."""

    z: int
    x: int
    y: int
    source: str
    reason: str


class ZoomCount(NamedTuple):
    """Tiles of the area at one zoom level: addresses present, addresses expected, and the longest hole."""

    present: int
    expected: int
    largest_hole_mm: int


class RequiredTile(NamedTuple):
    """A missing tile without which nothing is flown: the take-off point's, or one under a route."""

    z: int
    x: int
    y: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The corpus as of one scan.

    `count` counts tiles of all sources, `per_zoom[z].present` addresses that have at least one. `sources` is sorted:
    a source's position is its number in index ids. `added`, `removed` and `changed` compare with the scan before.
    `required` counts the tiles without which nothing is flown, `hole_notes` tells of each zoom's
    largest hole and of what shows nothing.
    `takeoff` is the configured point or else the mission's `home`, `area_sha256` the digest of all that decides the
    area.
    """

    coverage_sha256: Sha256
    count: int
    bytes: int
    per_zoom: Mapping[int, ZoomCount]
    sources: tuple[str, ...]
    bbox: BBox
    zooms: tuple[int, ...]
    skipped: tuple[Skipped, ...] = ()
    oldest_capture: str | None = None
    undated: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    takeoff: Origin | None = None
    home: Origin | None = None
    home_datum: AltDatum | None = None
    required: int = 0
    required_missing: tuple[RequiredTile, ...] = ()
    hole_notes: Mapping[int, str] = field(default_factory=dict)
    area_sha256: Sha256 = field(default=Sha256(""))

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Corpus:
        """Return the corpus that `to_json` wrote."""
        raw = from_json(text)
        raw["per_zoom"] = {int(z): ZoomCount(*count) for z, count in raw["per_zoom"].items()}
        raw["sources"], raw["zooms"] = tuple(raw["sources"]), tuple(raw["zooms"])
        raw["bbox"] = BBox(*raw["bbox"])
        raw["skipped"] = tuple(Skipped(*row) for row in raw["skipped"])
        for name in ("takeoff", "home"):
            raw[name] = None if raw[name] is None else Origin(*raw[name])
        raw["required_missing"] = tuple(RequiredTile(*tile) for tile in raw["required_missing"])
        raw["hole_notes"] = {int(z): note for z, note in raw["hole_notes"].items()}
        return cls(**raw)


def not_scanned() -> EmptyCorpusError:
    """Return the error of whatever needs a corpus before there is one."""
    return EmptyCorpusError("the tiles have not been scanned", next_step="run `doit`, which scans them first")
