"""What a scan already decides of a build, found before any engine or descriptor: a second, not hours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from provisioning import index
from provisioning.base.disk.artifacts import ArtifactRecord, Target
from provisioning.base.disk.files import make_dirs, require_free_bytes, require_free_inodes, write_durably
from provisioning.base.errors import GateError, ManifestError
from provisioning.base.hashing import Sha256
from provisioning.build.generation import contents
from provisioning.build.request import MAP_FILE, Request, requirements_of
from provisioning.descriptors.store.lookup import BYTES_PER_COMPONENT, count_lacking
from provisioning.flight import manifest
from provisioning.flight.manifest import GateEntry
from provisioning.quality.gates.corpus import corpus_figures
from provisioning.quality.gates.limits import corpus_limits, enforce

INODES_PER_TARGET = 3
"""Its directory, file and artifact record."""
INODES_OF_GENERATION = 12
"""The Manifest's three files, stage, generation and calibration directory, and a few temporary ones."""
STAND_IN = ArtifactRecord(Sha256("0" * 64), 1, 0, 0, {})


def preflight(request: Request) -> None:
    """Raise what a build of `request` is bound to end with; writes nothing.

    GateError for coverage, required tiles and freshness; IndexingError where no index fits; ManifestError where the
    Manifest cannot hold what flight.toml asks for. Nothing is checked of a descriptor whose length is not known yet.
    """
    entries = corpus_gates(request)
    shape = request.descriptor_network.shape
    if shape is not None:
        choice = chosen_index(request, shape.dimension)
        _require_manifest(request, contents.Made(_stand_in, _index_of(choice.kind, shape.dimension), entries))


def corpus_gates(request: Request) -> Mapping[str, GateEntry]:
    """Return the gates that need no network. Raises GateError naming all that fail."""
    asked, corpus = requirements_of(request.flight), request.tiles
    figures = corpus_figures(corpus, asked.policy, today=dt.datetime.now(dt.timezone.utc).date())
    return enforce(figures, corpus_limits(asked, corpus), asked.waivers)


def require_room(request: Request) -> None:
    """Refuse before hours of work what the disk cannot hold. FilesystemError gives the bytes, or the inodes."""
    flight, shape = request.flight, request.descriptor_network.shape
    make_dirs(flight.build_dir)
    require_free_inodes(flight.build_dir, _inodes_to_make(request), what="the artefacts and the generation")
    if shape is None:
        return
    store = flight.descriptor_store
    missing = count_lacking(flight.build_dir, store, request.descriptor_keys, overlap=request.overlap)
    make_dirs(store)
    needed = missing * shape.dimension * BYTES_PER_COMPONENT[flight.descriptors.dtype]
    require_free_bytes(store, needed, what=f"{missing} descriptors")
    needed += chosen_index(request, shape.dimension).bytes
    require_free_bytes(flight.build_dir, needed, what="descriptors and index")


def _inodes_to_make(request: Request) -> int:
    """Return how many files and directories a build makes at least: those of missing targets and of a generation."""
    targets = (
        *(target for network in request.networks for target in (network.typed, network.engine)),
        *(request.index, request.index_info, request.gates, *request.extras),
    )
    missing = sum(not target.path.exists() for target in targets)
    on_board = len(contents.targets(request)) + len(request.calibration)
    return missing * INODES_PER_TARGET + on_board + INODES_OF_GENERATION


def draw_holes(request: Request, error: GateError) -> GateError:
    """Write `.build/coverage.geojson` with the gaps of the area, and return `error` with the file that shows them."""
    from provisioning.build.generation.report_model import area_maps, line
    from provisioning.report.geojson import coverage_geojson

    build_dir, area = request.build_dir, request.area
    drawn = coverage_geojson(
        bbox=request.tiles.bbox,
        maps=tuple(area_maps(request, area)),
        outline=tuple(map(line, area.rings)),
        routes=tuple(map(line, area.routes)),
        takeoff=request.flight.flight.takeoff or request.tiles.takeoff,
    )
    write_durably(build_dir / MAP_FILE, drawn)
    error.facts["shown in"] = build_dir / MAP_FILE
    return error


def _require_manifest(request: Request, made: contents.Made) -> None:
    """Compose the Manifest of `request` over stand-ins for what is not made yet, and read it as a verifier would."""
    composed = contents.compose(request, counter=1, of=made)
    try:
        manifest.parse(manifest.to_bytes(composed))
    except ManifestError as error:
        error.file = str(request.flight.root / "flight.toml")
        error.next_step = "change what the line above names in flight.toml"
        raise


def chosen_index(request: Request, dimension: int) -> index.Choice:
    """Return the kind of index that a build of `request` makes of descriptors of `dimension`. Raises IndexingError."""
    return index.choose(request.flight.index, vectors=request.vectors, dimension=dimension)


def _stand_in(_target: Target) -> ArtifactRecord:
    return STAND_IN


def _index_of(kind: str, dimension: int) -> index.IndexInfo:
    return index.IndexInfo(kind=kind, dimension=dimension, vectors=1, bytes=1, transform="none")
