"""What a generation of a request holds: its files and the Manifest that binds them. Values only, apart from records."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from provisioning import catalogue, index
from provisioning.base.angles import BBox
from provisioning.base.artifacts import ArtifactRecord, Target, read_record
from provisioning.base.errors import ManifestError
from provisioning.base.hashing import Sha256
from provisioning.build.request import NetworkRequest, Request
from provisioning.config import Calibration
from provisioning.flight import manifest, publish
from provisioning.flight.manifest import Manifest
from provisioning.network.backbone import resolved
from provisioning.quality import gates

TOOL = "flightcache"


@dataclass(frozen=True)
class Published:
    """The generation that `current` names."""

    path: Path
    manifest_bytes: bytes
    signature: bytes
    manifest: Manifest

    @property
    def manifest_hash(self) -> Sha256:
        """The hash in its Manifest."""
        return self.manifest.build.manifest_hash


def published(cache: Path) -> Published | None:
    """Return the current generation, or None where there is none whose Manifest can be read."""
    path = publish.current_generation(cache)
    if path is None:
        return None
    try:
        data, signature = (path / "Manifest.json").read_bytes(), (path / "Manifest.json.sig").read_bytes()
        return Published(path, data, signature, manifest.parse(data))
    except (OSError, ManifestError):
        return None


def targets(request: Request) -> dict[str, Target]:
    """Return the artefacts of the generation by their names in it."""
    made = (*(n.engine for n in request.networks), request.index, *request.extras)
    return {target.name: target for target in made}


def files(request: Request) -> dict[str, Path]:
    """Return every file of the generation by its name in it."""
    copied = {_calibration_path(c): c.path for c, _ in request.calibration}
    return {**{name: target.path for name, target in targets(request).items()}, **copied}


def records(request: Request) -> dict[str, ArtifactRecord]:
    """Return the records of birth by name in the generation; ManifestError where one is missing."""
    return {name: _born(target) for name, target in targets(request).items()}


def compose(request: Request, *, counter: int, extras: Iterable[Target] | None = None) -> Manifest:
    """Return the Manifest of the generation that the store holds for `request`; `extras` for a draft without them all.

    Raises ManifestError if an artefact has no record of birth: its task has not run.
    """
    return manifest.with_hash(
        Manifest(
            build=manifest.Build(Sha256(""), counter, TOOL, importlib.metadata.version(TOOL)),
            flight=_flight(request),
            area=manifest.AreaPart(BBox(*request.tiles.bbox), tuple(request.tiles.zooms)),
            host=host(request),
            engines=tuple(_engine(n) for n in request.networks),
            descriptor_index=_index(request),
            calibration=tuple(_calibration(c, digest) for c, digest in request.calibration),
            other=tuple(_other(target) for target in (request.extras if extras is None else extras)),
            tiles=_tiles(request.tiles),
            gates=gates.entries(gates.read(request.gates.path)),
            waivers=tuple(manifest.Waiver(w.gate, w.by, w.reason) for w in request.flight.waiver),
            schema=manifest.SCHEMA_2,
        )
    )


def _born(target: Target) -> ArtifactRecord:
    record = read_record(target)
    if record is None:
        raise ManifestError(f"{target.name} has no record of birth", file=target.path, next_step="run `doit` again")
    return record


def _flight(request: Request) -> manifest.FlightPart:
    identity = request.flight.flight
    takeoff = identity.takeoff or request.tiles.takeoff
    if takeoff is not None and takeoff.alt_mm is not None and takeoff.alt_datum is None:
        takeoff = takeoff._replace(alt_datum="ellipsoid")  # what flight.toml's alt_m is counted from
    return manifest.FlightPart(identity.id, identity.aircraft, takeoff, identity.sector_class)


def host(request: Request) -> manifest.Host:
    """Return the host tuple of the generation, with the precision of its descriptors."""
    network = request.descriptor_network
    return manifest.Host(**network.host._asdict(), precision=network.backbone.precision)


def _engine(network: NetworkRequest) -> manifest.EngineEntry:
    record, shape = _born(network.engine), network.shape
    return manifest.EngineEntry(
        path=network.engine.name,
        bytes=record.bytes,
        sha256=record.sha256,
        model=network.name,
        role=network.backbone.role,
        onnx_sha256=network.source.sha256,
        key=network.engine.key,
        precision=network.backbone.precision,
        input=manifest.ImageInput(shape.height, shape.width, resolved(network.backbone).fit) if shape else None,
    )


def _index(request: Request) -> manifest.IndexEntry:
    record = _born(request.index)
    built = index.read_info(request.index_info)
    return manifest.IndexEntry(
        path=request.index.name,
        bytes=record.bytes,
        sha256=record.sha256,
        kind=built.kind,
        metric="inner-product",
        dimension=built.dimension,
        vectors=built.vectors,
        engine=request.descriptor_network.engine.name,
        key=request.index.key,
        transform=request.flight.index.transform,
        rotations=request.flight.index.rotations,
    )


def _calibration_path(calibration: Calibration) -> str:
    return f"calibration/{calibration.path.name}"


def _calibration(calibration: Calibration, digest: Sha256) -> manifest.CalibrationEntry:
    size = os.stat(calibration.path).st_size
    return manifest.CalibrationEntry(_calibration_path(calibration), size, digest, calibration.purpose)


def _other(target: Target) -> manifest.FileEntry:
    record = _born(target)
    return manifest.FileEntry(target.name, record.bytes, record.sha256)


def _tiles(corpus: catalogue.Corpus) -> manifest.TilesPart:
    per_zoom = {
        zoom: manifest.ZoomCount(count.present, count.expected, count.largest_hole_mm)
        for zoom, count in corpus.per_zoom.items()
    }
    return manifest.TilesPart(
        coverage_sha256=corpus.coverage_sha256,
        count=corpus.count,
        per_zoom=per_zoom,
        sources=corpus.sources,
        skipped=len(corpus.skipped),
        oldest_capture=corpus.oldest_capture,
    )
