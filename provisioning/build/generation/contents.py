"""What a generation of a request holds: its files and the Manifest that binds them. Values only, apart from records."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from provisioning import catalogue, index
from provisioning.base.disk.artifacts import ArtifactRecord, Target, read_record
from provisioning.base.distributions import own_version
from provisioning.base.errors import ManifestError
from provisioning.base.frozen import dataclass
from provisioning.base.geometry.angles import BBox
from provisioning.base.hashing import Sha256
from provisioning.build.request import NetworkRequest, Request
from provisioning.config import Calibration
from provisioning.config.schema import Camera
from provisioning.flight import manifest, publish
from provisioning.flight.manifest import Manifest
from provisioning.flight.manifest.checks import IN_NAMES
from provisioning.network.backbone import resolved
from provisioning.quality import gates
from provisioning.quality.gates.corpus import accepted_coverage

TOOL = "flightcache"
MAX_NAME = 120


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
    names = _calibration_names(request.calibration)
    copied = {name: c.path for name, (c, _) in zip(names, request.calibration, strict=True)}
    return {**{name: target.path for name, target in targets(request).items()}, **copied}


def records(request: Request) -> dict[str, ArtifactRecord]:
    """Return the artifact records by name in the generation; ManifestError where one is missing."""
    return {name: _record(target) for name, target in targets(request).items()}


@dataclass(frozen=True)
class Made:
    """What a Manifest says of artefacts: the record of each, what the index is, and every gate."""

    record: Callable[[Target], ArtifactRecord]
    index: index.IndexInfo
    gates: Mapping[str, manifest.GateEntry]


def made(request: Request) -> Made:
    """Return what the store holds for `request`; errors name what has not been made yet."""
    return Made(_record, index.read_info(request.index_info), gates.entries(gates.read(request.gates.path)))


def compose(
    request: Request, *, counter: int, extras: Iterable[Target] | None = None, of: Made | None = None
) -> Manifest:
    """Return the Manifest of the generation of `request`; `extras` for a draft without them all.

    `of` says what was made, by default what the store holds. Raises ManifestError if an artefact has no record: its
    task has not run.
    """
    of = of or made(request)
    record = of.record
    calibration_names = _calibration_names(request.calibration)
    accepted = accepted_coverage(request.flight.area, request.tiles)
    return manifest.with_hash(
        Manifest(
            build=manifest.Build(Sha256(""), counter, TOOL, own_version()),
            flight=_flight(request),
            area=manifest.AreaPart(BBox(*request.tiles.bbox), tuple(request.tiles.zooms)),
            host=host(request),
            engines=tuple(_engine(n, record(n.engine)) for n in request.networks),
            descriptor_index=_index(request, record(request.index), of.index),
            calibration=tuple(
                _calibration(name, c, digest)
                for name, (c, digest) in zip(calibration_names, request.calibration, strict=True)
            ),
            other=tuple(_other(target, record(target)) for target in (request.extras if extras is None else extras)),
            tiles=_tiles(request.tiles),
            gates=of.gates,
            waivers=tuple(manifest.Waiver(w.gate, _line(w.by), _line(w.reason)) for w in request.flight.waiver),
            accepted=tuple(manifest.Accepted("coverage", _line(text)) for text in accepted),
            camera=_camera(request.flight.camera),
            schema=manifest.SCHEMA_2,
        )
    )


def _camera(settings: Camera) -> manifest.Camera | None:
    """Return the camera that is declared, None where there is none: then a build without work needs no numpy."""
    if settings == Camera():
        return None
    from provisioning.quality.query.declaration import declared, to_manifest

    return to_manifest(declared(settings))


def _line(text: str) -> str:
    """Return `text` on one line, as a Manifest holds it."""
    return " ".join(text.split())


def _record(target: Target) -> ArtifactRecord:
    record = read_record(target)
    if record is None:
        raise ManifestError(f"{target.name} has not been made yet", file=target.path, next_step="run `doit` again")
    return record


def _flight(request: Request) -> manifest.FlightPart:
    identity = request.flight.flight
    takeoff = identity.takeoff or request.tiles.takeoff
    datum = identity.takeoff_datum if identity.takeoff else request.tiles.home_datum
    if takeoff is not None:  # a height above what is not named says nothing
        known = datum if takeoff.alt_mm is not None and datum in ("ellipsoid", "amsl") else None
        takeoff = takeoff._replace(alt_mm=takeoff.alt_mm if known else None, alt_datum=known)
        if known == "amsl":
            from provisioning.area.geoid import above_ellipsoid

            found = above_ellipsoid(takeoff)
            takeoff = takeoff._replace(alt_mm=found.alt_mm, alt_datum="ellipsoid") if found else takeoff
    end = identity.not_after
    last = f"{end}T23:59:59Z" if end and "T" not in end else end
    return manifest.FlightPart(identity.id, identity.aircraft, takeoff, identity.sector_class, last)


def host(request: Request) -> manifest.Host:
    """Return the host tuple of the generation, with the precision of its descriptors."""
    network = request.descriptor_network
    return manifest.Host(**network.host._asdict(), precision=network.backbone.precision)


def _engine(network: NetworkRequest, record: ArtifactRecord) -> manifest.EngineEntry:
    return manifest.EngineEntry(
        path=network.engine.name,
        bytes=record.bytes,
        sha256=record.sha256,
        model=network.name,
        role=network.backbone.role,
        onnx_sha256=network.source.sha256,
        key=network.engine.key,
        precision=network.backbone.precision,
        input=_input(network) if network.backbone.role == "descriptor" else None,
    )


def _input(network: NetworkRequest) -> manifest.ImageInput:
    """Return the image that the descriptor network takes. ManifestError where it is not known: it is never left out."""
    if network.shape is None:
        raise ManifestError(
            f"the image size of backbone {network.name} could not be read",
            next_step="run `doit` again: it is learned anew",
        )
    return manifest.ImageInput(network.shape.height, network.shape.width, resolved(network.backbone).fit_how)


def _index(request: Request, record: ArtifactRecord, built: index.IndexInfo) -> manifest.IndexEntry:
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
        transform=built.transform,
        rotations=request.flight.index.rotations,
        overlap=request.overlap if request.overlap > 1 else None,
    )


def _calibration_names(calibration: Sequence[tuple[Calibration, Sha256]]) -> list[str]:
    """Return the names of the calibration files in a generation: their own, as far as a Manifest can hold them.

    Any other character becomes `_`; a name that is taken then gets `-2`, `-3`, … before its suffix.
    """
    names: list[str] = []
    for entry, _ in calibration:
        stem, dot, suffix = _safe(entry.path.name).rpartition(".")
        stem, suffix = (stem, dot + suffix) if stem else (suffix, "")
        free = (f"{stem}{f'-{n}' if n > 1 else ''}{suffix}" for n in itertools.count(1))
        taken = {name.lower() for name in names}
        names.append(next(name for name in free if f"calibration/{name}".lower() not in taken))
        names[-1] = f"calibration/{names[-1]}"
    return names


def _safe(name: str) -> str:
    safe = "".join(each if each in IN_NAMES else "_" for each in name)[-MAX_NAME:]
    return safe if safe[0] not in ".=,@-" and not safe.lower().endswith(publish.SIDECAR) else f"_{safe}_"


def _calibration(name: str, calibration: Calibration, digest: Sha256) -> manifest.CalibrationEntry:
    return manifest.CalibrationEntry(name, os.stat(calibration.path).st_size, digest, calibration.purpose)


def _other(target: Target, record: ArtifactRecord) -> manifest.FileEntry:
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
