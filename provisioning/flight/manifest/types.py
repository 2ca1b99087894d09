"""The Manifest as frozen values, with the names of the schema. No float anywhere: figures are decimal strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from provisioning.base.geometry.angles import BBox, Origin
from provisioning.base.hashing import Sha256
from provisioning.base.named import NamedTuple

Schema = Literal["flight-cache-manifest/1", "flight-cache-manifest/2"]
SCHEMA_1: Schema = "flight-cache-manifest/1"
SCHEMA_2: Schema = "flight-cache-manifest/2"
SCHEMAS: tuple[Schema, ...] = (SCHEMA_1, SCHEMA_2)
"""What a reader accepts; a builder writes the last."""

# NamedTuples instead of dataclasses: importing `dataclasses` alone would cost a quarter of the verifier's start-up.


class Build(NamedTuple):
    """What was built, for the how-manieth time, by which tool."""

    manifest_hash: Sha256
    counter: int
    tool_name: str
    tool_version: str


class FlightPart(NamedTuple):
    """Flight identity: who flies, from where, in which class of sector, and until when (schema 2).

    not_after: the last second at which the cache may be flown, UTC, as `YYYY-MM-DDTHH:MM:SSZ`.
    """

    flight_id: str | None
    aircraft_id: str | None
    takeoff_origin: Origin | None
    sector_class: str
    not_after: str | None = None


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
    """The descriptor index; `engine` is the path of the engine that made its descriptors.

    overlap: 2 where it has cuts half a tile apart beside the tiles; None where it has none.
    """

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
    overlap: int | None = None


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


class Distortion(NamedTuple):
    """How a lens departs from the pinhole: a model by name (`opencv-5`, `kannala-brandt-4`) and its coefficients.

    The coefficients are decimal strings, in the order in which the model is usually written.
    """

    model: str
    coefficients: tuple[str, ...]


class Mounting(NamedTuple):
    """Attitude of the camera in the body frame (forward, right, down), 1e-7 degree, applied yaw, pitch, roll.

    Zero: the optical axis points down, the top of the image forward.
    """

    yaw_e7: int
    pitch_e7: int
    roll_e7: int


class Camera(NamedTuple):
    """The camera whose images are looked up (schema 2).

    Sizes in pixels; focal lengths and principal point in 1e-3 pixel; all six or none.
    The principal point is counted from the outer corner of the first pixel: the centre of an image of 640 columns is
    320 000. fov_e7: instead of the six, for images of any size: horizontal field of view, 1e-7 degree. angles_of:
    whose angles the aircraft gives, `camera` (the default) or `body`. height_mm: above ground, where nothing measures
    it. ground_mm: elevation of the ground, on the datum of the aircraft's altitude.
    """

    width: int | None = None
    height: int | None = None
    focal_x_mpx: int | None = None
    focal_y_mpx: int | None = None
    principal_x_mpx: int | None = None
    principal_y_mpx: int | None = None
    distortion: Distortion | None = None
    mounting: Mounting | None = None
    fov_e7: int | None = None
    angles_of: str | None = None
    height_mm: int | None = None
    ground_mm: int | None = None


class Accepted(NamedTuple):
    """What a person accepted when the cache was set up, such as gaps in the coverage (schema 2)."""

    what: str
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
    camera: Camera | None = None
    accepted: tuple[Accepted, ...] = ()
    schema: Schema = SCHEMA_1

    @property
    def files(self) -> tuple[EngineEntry | IndexEntry | CalibrationEntry | FileEntry, ...]:
        """Every listed file; each has `path`, `bytes` and `sha256`."""
        return (*self.engines, self.descriptor_index, *self.calibration, *self.other)
