"""What is asked for: flight.toml, this host and the last scan, as the addresses of every artefact they decide."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning import catalogue, descriptors, engines, index
from provisioning.area.area import Area
from provisioning.base.disk.artifacts import Target
from provisioning.base.distributions import own_version
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact, Sha256, digest_of, sha256_file
from provisioning.catalogue import Corpus, not_scanned
from provisioning.config import Backbone, BuildSettings, Calibration, Flight, Index
from provisioning.config.parse import read_flight
from provisioning.engines import HostTuple
from provisioning.flight import signing
from provisioning.network.backbone import OnnxSource, onnx_source
from provisioning.network.shape import Shape, known_shape, shape_target
from provisioning.quality import gates

if TYPE_CHECKING:
    from provisioning.engines import Backend

INDEX_FILE = "corpus.index"
REPORT_FILE = "report.html"
MAP_FILE = "coverage.geojson"
IMAGERY_FILE = "tiles.pmtiles"
REPORT_FORMAT = 4
PROVENANCE_FORMAT = 1


@dataclass(frozen=True)
class NetworkRequest:
    """One backbone: where its ONNX comes from, its typed ONNX, and its engine for `host`.

    `shape` is None until the network was prepared once, and for a backbone that describes no tiles; `calibration` is
    the digest of the tiles that calibrate it, for int8.
    """

    backbone: Backbone
    source: OnnxSource
    host: HostTuple
    shape: Shape | None
    typed: Target
    engine: Target
    calibration: Sha256 | None = None
    checked: Target | None = None
    """The record that the network, which becomes fp16, stays in the range of fp16 on these tiles; None for others."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.backbone.name


@dataclass(frozen=True)
class Request:
    """Everything that decides a generation. Until the first scan `corpus` is None, and the targets are stand-ins."""

    flight: BuildSettings
    signer: signing.Signer
    backend: Backend
    corpus: Corpus | None
    networks: tuple[NetworkRequest, ...]
    descriptor_keys: tuple[Sha256, ...]
    """One for each heading at which tiles are indexed."""
    index: Target
    index_info: Target
    gates: Target
    extras: tuple[Target, ...]
    """report.html, coverage.geojson and, where asked for, tiles.pmtiles and the two files of provenance."""
    calibration: tuple[tuple[Calibration, Sha256], ...]
    overlap: int = 1
    """2 where cuts half a tile apart are described beside the tiles."""

    @property
    def vectors(self) -> int:
        """How many vectors the index has at most."""
        return index.most_vectors(self.flight.index, tiles=self.tiles.count, overlap=self.overlap)

    @property
    def report(self) -> Target:
        """report.html."""
        return self.extras[0]

    @property
    def cache(self) -> Path:
        """The cache directory."""
        return self.flight.root

    @property
    def build_dir(self) -> Path:
        """Its `.build`."""
        return self.flight.build_dir

    @property
    def area(self) -> Area:
        """The area, as measured for the last scan; AreaError if it cannot be understood."""
        return catalogue.area_of(self.flight.area, self.flight.flight.takeoff, self.build_dir)

    @property
    def descriptor_network(self) -> NetworkRequest:
        """The network whose output is indexed."""
        return next(network for network in self.networks if network.backbone.role == "descriptor")

    @property
    def tiles(self) -> Corpus:
        """The corpus; EmptyCorpusError before the first scan."""
        if self.corpus is None:
            raise not_scanned()
        return self.corpus


_IN_HAND: dict[Path, Flight] = {}


@contextlib.contextmanager
def in_hand(flight: Flight) -> Iterator[None]:
    """Let `read_request` take `flight` for its cache: a build works from one state of flight.toml, parsed once."""
    _IN_HAND[flight.root] = flight
    try:
        yield
    finally:
        del _IN_HAND[flight.root]


def read_request(root: Path, read: Callable[[Path], Flight] = read_flight) -> Request:
    """Return the request of the cache directory `root`, whose flight is `read`, as of its last scan; writes nothing.

    Raises ConfigError, BackboneError, EngineError.
    """
    flight = _IN_HAND.get(root.absolute()) or read(root)
    corpus = catalogue.last_corpus(flight.selection, flight.build_dir)
    return make_request(flight, corpus, today=dt.datetime.now(dt.timezone.utc).date())


def make_request(
    flight: Flight,
    corpus: Corpus | None,
    *,
    today: dt.date,
    scanned: Path | None = None,
    networks: tuple[NetworkRequest, ...] | None = None,
) -> Request:
    """Return the request of `flight` over `corpus`; `today` decides whether imagery has become too old.

    `scanned` is where the catalogue of `corpus` is, if that is not its `.build`: `flightcache plan` scans aside.
    `networks` are taken as they are, calibrated on whatever tiles they were, in place of those that `corpus` would
    decide.
    """
    backend, signer = engines.select(flight.engine), signing.Signer(flight.signing)
    networks = networks or tuple(_networks(flight, backend, corpus, scanned or flight.build_dir))
    coverage = corpus.coverage_sha256 if corpus else None
    describing = next(n for n in networks if n.backbone.role == "descriptor")
    keys = tuple(_descriptor_keys(flight, describing))
    dimension = describing.shape.dimension if describing.shape else None
    overlap = index.overlap_of(flight.index, tiles=corpus.count if corpus else None, dimension=dimension)
    index_facts = {
        "tiles": coverage,
        "keys": keys,
        **_index_facts(flight.index, corpus, dimension, overlap),
        **gates.transform_facts(flight.index, flight.gates),
    }
    index_target = _target(flight, "index", INDEX_FILE, index_facts)
    gates_target = _target(
        flight,
        "gates",
        "gates.json",
        {
            "engines": [n.engine.key for n in networks],
            "index": index_target.key,
            **gates.gate_facts(requirements_of(flight), corpus, today=today),
        },
    )
    calibration = tuple((c, sha256_file(c.path)) for c in flight.calibration)
    return Request(
        flight=flight,
        signer=signer,
        backend=backend,
        corpus=corpus,
        networks=networks,
        descriptor_keys=keys,
        index=index_target,
        index_info=_target(flight, "index", "corpus.index.json", index_facts),
        gates=gates_target,
        extras=tuple(_extras(flight, signer, coverage, gates_target, calibration)),
        calibration=calibration,
        overlap=overlap,
    )


def requirements_of(flight: BuildSettings) -> gates.Requirements:
    """Return what `flight` asks of the gates."""
    sector = flight.flight.sector_class
    return gates.Requirements(flight.gates, flight.area.min_coverage, sector, flight.sector.get(sector), flight.waiver)


def _index_facts(asked: Index, corpus: Corpus | None, dimension: int | None, overlap: int) -> Mapping[str, Fact]:
    vectors = index.most_vectors(asked, tiles=corpus.count, overlap=overlap) if corpus else None
    sources = corpus.sources if corpus else ()
    return index.index_facts(asked, vectors=vectors, dimension=dimension, sources=sources, overlap=overlap)


def _target(flight: BuildSettings, kind: str, name: str, facts: Mapping[str, Fact]) -> Target:
    return Target(flight.build_dir / "store", kind, name, facts)


def _networks(
    flight: BuildSettings, backend: Backend, corpus: Corpus | None, scanned: Path
) -> Iterator[NetworkRequest]:
    host = backend.probe()
    for backbone in flight.backbone:
        source = onnx_source(backbone, flight.root, flight.build_dir / "onnx-digests.json")
        calibration = (
            descriptors.calibration_digest(scanned, corpus.coverage_sha256, backbone.calibration_tiles)
            if corpus is not None and backbone.precision == "int8"
            else None
        )
        facts = engines.typed_facts(backbone, source, calibration, backend=host.backend)
        typed = _target(flight, "onnx", f"{backbone.name}.onnx", facts)
        engine = _target(
            flight,
            "engine",
            engines.engine_name(backbone.name, host, backbone.precision),
            engines.engine_facts(typed.key, host, backbone, flight.engine),
        )
        shape = (
            known_shape(shape_target(flight.build_dir / "store", backbone, source))
            if backbone.role == "descriptor"
            else None
        )
        checked = None
        if corpus is not None and (backbone.role, backbone.precision) == ("descriptor", "fp16"):
            tiles = descriptors.calibration_digest(scanned, corpus.coverage_sha256, engines.RANGE_TILES)
            range_facts = engines.range_facts(typed.key, tiles)
            checked = _target(flight, "range", f"{backbone.name}.range.json", range_facts)
        yield NetworkRequest(backbone, source, host, shape, typed, engine, calibration, checked)


def _descriptor_keys(flight: BuildSettings, network: NetworkRequest) -> Iterator[Sha256]:
    decoder, dtype = catalogue.decoder_facts(), flight.descriptors.dtype
    for heading in descriptors.heading_names(flight.index.rotations):
        facts = descriptors.descriptor_facts(network.engine.key, network.backbone, decoder, dtype, heading)
        # One tile at a time is what a network gets that looks at its neighbours; other batches give the same.
        yield digest_of(facts if flight.engine.batch > 1 else {**facts, "batch": 1})


def _extras(
    flight: BuildSettings,
    signer: signing.Signer,
    coverage: Sha256 | None,
    gates_target: Target,
    calibration: tuple[tuple[Calibration, Sha256], ...],
) -> Iterator[Target]:
    """What is on board beside engines, index and calibration."""
    above_sea = flight.flight.takeoff_datum == "amsl" or any(part.mission for part in flight.area.parts)
    shown: dict[str, Fact] = {
        "format": REPORT_FORMAT,
        "tool": own_version(),
        "gates": gates_target.key,
        "flight": asdict(flight.flight),
        "accepted_by": flight.area.accepted_by,
        "geoid": _geoid() if above_sea else None,
        "calibration": {c.path.name: digest for c, digest in calibration},
    }
    yield _target(flight, "report", REPORT_FILE, shown)
    yield _target(flight, "report", MAP_FILE, shown)
    if flight.tiles.on_board == "pmtiles":
        yield _target(flight, "imagery", IMAGERY_FILE, {"format": catalogue.PMTILES_FORMAT, "tiles": coverage})
    if flight.publish.provenance:
        signed = {
            **shown,
            "format": PROVENANCE_FORMAT,
            "on_board": flight.tiles.on_board,
            "key": signer.public_key.fingerprint,
        }
        from provisioning.build.generation.provenance import BOM_FILE, STATEMENT_FILE

        yield _target(flight, "provenance", BOM_FILE, signed)
        yield _target(flight, "provenance", STATEMENT_FILE, signed)


def _geoid() -> str | None:
    from provisioning.area.geoid import installed

    return installed()
