"""The Manifest: its values, its one byte form, and its digests. Specified in docs/manifest.md."""

from provisioning.base.angles import BBox, Origin
from provisioning.flight.manifest.coverage import coverage_lines, coverage_sha256
from provisioning.flight.manifest.formula import manifest_hash, manifest_preimage, with_hash
from provisioning.flight.manifest.schema import parse, to_bytes
from provisioning.flight.manifest.strict_json import MAX_BYTES
from provisioning.flight.manifest.types import (
    SCHEMA,
    AreaPart,
    Build,
    CalibrationEntry,
    EngineEntry,
    FileEntry,
    FlightPart,
    GateEntry,
    Host,
    ImageInput,
    IndexEntry,
    Manifest,
    TilesPart,
    Waiver,
    ZoomCount,
)

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "AreaPart",
    "BBox",
    "Build",
    "CalibrationEntry",
    "EngineEntry",
    "FileEntry",
    "FlightPart",
    "GateEntry",
    "Host",
    "ImageInput",
    "IndexEntry",
    "Manifest",
    "Origin",
    "TilesPart",
    "Waiver",
    "ZoomCount",
    "coverage_lines",
    "coverage_sha256",
    "manifest_hash",
    "manifest_preimage",
    "parse",
    "to_bytes",
    "with_hash",
]
