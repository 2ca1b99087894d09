"""The Manifest as frozen values, with the names of the schema. No float anywhere: figures are decimal strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from provisioning.base.angles import BBox, Origin
from provisioning.base.hashing import Sha256

SCHEMA = "flight-cache-manifest/1"

# NamedTuples instead of dataclasses: importing `dataclasses` alone would cost a quarter of the verifier's start-up.


class Build(NamedTuple):
    """What was built, for the how-manieth time, by which tool."""

    manifest_hash: Sha256
    counter: int
    tool_name: str
    tool_version: str


class FlightPart(NamedTuple):
    """Flight identity: who flies, from where, in which class of sector."""

    flight_id: str | None
    aircraft_id: str | None
    takeoff_origin: Origin | None
    sector_class: str


class AreaPart(NamedTuple):
    """What the cache covers."""

    bbox_e7: BBox
    zoom_levels: tuple[int, ...]


class Host(NamedTuple):
    """The host tuple for which the engines were compiled."""

    backend: str
    runtime: str
    arch: str
    device: str
    platform: str
    precision: str


class ImageInput(NamedTuple):
    """Input size of a network, pixel, and how an image is brought to it."""

    height: int
    width: int
    fit: str


class EngineEntry(NamedTuple):
    """One engine file: which backbone, at which precision, under which build key."""

    path: str
    bytes: int
    sha256: Sha256
    model: str
    role: str
    onnx_sha256: Sha256
    key: Sha256
    precision: str
    input: ImageInput | None = None


class IndexEntry(NamedTuple):
    """The descriptor index; `engine` is the path of the engine that made its descriptors."""

    path: str
    bytes: int
    sha256: Sha256
    kind: str
    metric: str
    dimension: int
    vectors: int
    engine: str
    key: Sha256
    transform: str
    rotations: int


class CalibrationEntry(NamedTuple):
    """A calibration file that flies unchanged."""

    path: str
    bytes: int
    sha256: Sha256
    purpose: str


class FileEntry(NamedTuple):
    """Any other file of the generation."""

    path: str
    bytes: int
    sha256: Sha256


class ZoomCount(NamedTuple):
    """Tiles of one zoom level: in the corpus, in the area, and the widest gap, millimetre."""

    present: int
    expected: int
    largest_hole_mm: int


class TilesPart(NamedTuple):
    """The corpus: its digest, its size, its sources in the order of their numbers in the index ids."""

    coverage_sha256: Sha256
    count: int  # type: ignore[assignment]  # the schema's name; tuple.count is never called
    per_zoom: Mapping[int, ZoomCount]
    sources: tuple[str, ...]
    skipped: int
    oldest_capture: str | None


class GateEntry(NamedTuple):
    """One measured quality. Figures are decimal strings; None where nothing could be measured or compared."""

    measured: str | None
    threshold: str | None
    verdict: Literal["pass", "warn", "waived"]
    detail: str


class Waiver(NamedTuple):
    """A gate knowingly passed over."""

    gate: str
    by: str
    reason: str


class Manifest(NamedTuple):
    """Everything a flight needs to know about its cache."""

    build: Build
    flight: FlightPart
    area: AreaPart
    host: Host
    engines: tuple[EngineEntry, ...]
    descriptor_index: IndexEntry
    calibration: tuple[CalibrationEntry, ...]
    other: tuple[FileEntry, ...]
    tiles: TilesPart
    gates: Mapping[str, GateEntry]
    waivers: tuple[Waiver, ...]

    @property
    def files(self) -> tuple[EngineEntry | IndexEntry | CalibrationEntry | FileEntry, ...]:
        """Every listed file; each has `path`, `bytes` and `sha256`."""
        return (*self.engines, self.descriptor_index, *self.calibration, *self.other)
