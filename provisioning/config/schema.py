"""flight.toml as frozen values: every key with its unit, default and reason, in one place.

`parse.py` fills these from TOML; `flightcache init` and the reference page are printed from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from provisioning.base.frozen import dataclass
from provisioning.base.geometry.angles import BBox, Origin

NO_PATH = Path()
"""A path that was not given; one that was is absolute."""
DERIVED = ("root", "build_dir", "store")
"""Fields of the values below that are no keys of the file, unless they are declared by `setting`."""


def is_key(field: dataclasses.Field[Any]) -> bool:
    """Return whether a field is a key of flight.toml: `descriptors.store` is one, the store of a program is none."""
    return field.name not in DERIVED or "doc" in field.metadata


def setting(default: Any, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    """Declare one key of flight.toml: its default, what it means (with its unit), and its range."""
    meta = {"doc": doc, "low": low, "high": high}
    if default is ...:
        return field(metadata=meta)
    return field(default_factory=dict, metadata=meta) if default is dict else field(default=default, metadata=meta)


REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "gates.self_localisation": "was replaced by gates.recognition, which sees tiles as flights do: delete this line",
        "index.nlist": "was removed with the index kind ivf-sq8: delete this line",
        "index.kind = ivf-sq8": 'the kind ivf-sq8 was removed: write "hrq", or "auto"',
        "index.kind = hnsw-sq8": 'the kind hnsw-sq8 was removed: write "hrq", or "auto"',
    }
)
"""Keys, and values of keys, that earlier versions knew, with what to write in their place."""


@dataclass(frozen=True, kw_only=True)
class FlightIdentity:
    """[flight]: who flies, from where. Changing it only signs again, unless a mission's legs to take-off move."""

    id: str | None = setting(None, "flight id, checked at take-off (printable ASCII without spaces)")
    aircraft: str | None = setting(None, "aircraft id, checked at take-off (printable ASCII without spaces)")
    sector_class: str = setting("default", "sector class: names a freshness policy [sector.<name>]")
    takeoff: Origin | None = setting(
        None, "take-off point {lat, lon [degree], alt_m [metre, optional]}; a mission's first and last legs go there"
    )
    takeoff_datum: Literal["ellipsoid", "amsl"] = setting(
        "ellipsoid", "what takeoff.alt_m is above: the WGS 84 ellipsoid, or mean sea level"
    )
    not_after: str | None = setting(
        None, "last day (2027-03-01) or second (2027-03-01T06:00:00Z), UTC, on which verifiers accept the cache"
    )


@dataclass(frozen=True, kw_only=True)
class AreaPart:
    """[[area.part]]: one piece of the area; exactly one of bbox, geojson, mission."""

    bbox: BBox | None = setting(None, "[west, south, east, north], degree; west > east crosses the antimeridian")
    geojson: Path | None = setting(None, "area file: GeoJSON, KML, GPX, GeoPackage, Shapefile, fence of a .plan")
    mission: Path | None = setting(
        None, "mission file: .plan, QGC WPL, INAV, DJI, Litchi, GPX, KML; its home is the default take-off point"
    )
    buffer_m: Decimal | None = setting(
        None, "metres added around a geojson (default 0) or a mission (default 1000)", low=0, high=200_000
    )
    zooms: tuple[int, ...] = setting((), "zoom levels of this part; empty: those of [area]", low=0, high=24)


@dataclass(frozen=True, kw_only=True)
class Area:
    """[area]: what must be covered."""

    bbox: BBox | None = setting(None, "[west, south, east, north], degree; west > east crosses the antimeridian")
    geojson: Path | None = setting(None, "area file: GeoJSON, KML, GPX, GeoPackage, Shapefile, fence of a .plan")
    mission: Path | None = setting(
        None, "mission file: .plan, QGC WPL, INAV, DJI, Litchi, GPX, KML; its home is the default take-off point"
    )
    buffer_m: Decimal | None = setting(
        None, "metres added around a geojson (default 0) or a mission (default 1000)", low=0, high=200_000
    )
    zooms: tuple[int, ...] = setting((), "zoom levels of the corpus", low=0, high=24)
    min_coverage: dict[int, Decimal] = setting(
        dict, "least share of expected tiles per zoom, 0–1; default 1 for the finest zoom, 0 for others", low=0, high=1
    )
    accepted_by: str = setting(
        "", "who accepted that `min_coverage` asks for less than all; `init` writes its own name: write yours"
    )
    diversions: Literal["points", "legs", "required"] = setting(
        "points", "of rally points and fence return: the points alone | the ways there and home too | and required"
    )
    part: tuple[AreaPart, ...] = setting((), "more parts of the area, each with its own zooms")

    @property
    def parts(self) -> tuple[AreaPart, ...]:
        """All parts, the one written directly in [area] first, each with its zoom levels filled in."""
        own = AreaPart(bbox=self.bbox, geojson=self.geojson, mission=self.mission, buffer_m=self.buffer_m)
        first = (own,) if self.bbox or self.geojson or self.mission else ()
        return tuple(
            AreaPart(
                bbox=p.bbox, geojson=p.geojson, mission=p.mission, buffer_m=p.buffer_m, zooms=p.zooms or self.zooms
            )
            for p in (*first, *self.part)
        )

    @property
    def all_zooms(self) -> tuple[int, ...]:
        """Every zoom level asked for, ascending."""
        return tuple(sorted({zoom for part in self.parts for zoom in part.zooms}))


@dataclass(frozen=True, kw_only=True)
class TileSource:
    """[[tiles.source]]: a store of tiles."""

    path: Path = setting(
        NO_PATH, "directory of tiles, .mbtiles, .gpkg, .sqlitedb, .pmtiles, GeoTIFF or a folder of sheets"
    )
    plugin: str = setting(
        "", "instead of path: a store in Python, package.module:Class or an entry point's name (docs/tiles.md)"
    )
    options: dict[str, Any] = setting(dict, "plugin: keyword arguments of the store, as its author documents them")
    name: str = setting("", "source name in ids and Manifest; empty: the file or directory name, made legal")
    kind: Literal["auto", "xyz", "mbtiles", "geopackage", "sqlitedb", "pmtiles", "geotiff"] = setting(
        "auto", "what it is; auto looks at the bytes"
    )
    pattern: str = setting(
        "{z}/{x}/{y}", "xyz: path of a tile below `path`, without its extension (docs/tiles.md, Layouts)"
    )
    table: str = setting("", "geopackage: the tile table; empty: the only one")
    evidence: Literal["check", "ignore"] = setting(
        "check", "files and headers that say where the tiles lie must agree with how they are read | are not asked"
    )
    values: tuple[int, ...] = setting(
        (), "geotiff of more than 8 bits: [low, high], pixel values that become 0 and 255"
    )
    scheme: Literal["auto", "xyz", "tms"] = setting(
        "auto", "row order; auto: xyz for directories, as the format says for containers"
    )
    priority: int = setting(0, "where sources overlap the highest is taken; equal ones are all taken")
    zoom_priority: dict[int, int] = setting(dict, "priority at single zoom levels, instead of `priority`")
    zooms: tuple[int, ...] = setting((), "zoom levels taken from this source; empty: all", low=0, high=24)
    captured: str = setting(
        "", "capture date YYYY-MM-DD of all tiles, or 'metadata', 'mtime', or a CSV file z,x,y,date"
    )
    root: Path = field(default=NO_PATH, repr=False, compare=False)
    """Where flight.toml lies, for a plugin."""
    store: Any = field(default=None, repr=False, compare=False)
    """An opened store of a program that builds by `rules.build(cache, tiles=…)`; no key of flight.toml."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """[tiles]: where the imagery comes from and how it is inspected."""

    source: tuple[TileSource, ...] = setting((), "one table [[tiles.source]] for each source")
    on_error: Literal["fail", "skip"] = setting(
        "fail", "a tile that cannot be decoded fails the build, or is skipped and listed"
    )
    max_empty: Decimal = setting(
        Decimal("0.5"), "a tile with more than this share of transparent or nodata pixels is no tile", low=0, high=1
    )
    blank: Literal["hole", "keep"] = setting(
        "hole",
        "black, white and one-colour areas, and a picture that is (nearly) the same in 4 or more places: no imagery | imagery",
    )
    nodata: tuple[int, ...] = setting((), "grey level or [r, g, b] that means nodata; empty: none", low=0, high=255)
    max_pixels: int = setting(4_194_304, "pixels of one tile image before it is refused as a decompression bomb", low=1)
    scan: Literal["stat", "dirs", "full"] = setting(
        "stat", "find changed tiles by each file's stat | trust unmoved directory times | hash all"
    )
    on_board: Literal["none", "pmtiles"] = setting(
        "none", "put the imagery itself into the generation as tiles.pmtiles"
    )


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """[[backbone]]: an ONNX model and its preprocessing."""

    name: str = setting(..., "model name in engine file names (letters, digits, dash, dot)")
    onnx: str = setting(
        "builtin:gist-color",
        "ONNX file, or builtin:efficientnet-lite0 (192-d, needs the extra [builtin]), builtin:gist-color (544-d, needs nothing, knows "
        "places from straight above at a known heading only) or builtin:gist-gray (512-d)",
    )
    role: str = setting(
        "descriptor",
        "descriptor: exactly one, indexed; matcher: local features for --second-stage; any other name: compiled only",
    )
    preset: str = setting(
        "", "preprocessing of a known backbone: imagenet, mixvpr, dinov3-sat, …; docs/backbones.md has them all"
    )
    precision: Literal["fp32", "fp16", "int8"] = setting("fp32", "precision of the compiled network")
    input: str = setting("", "name of the image input; empty: the only one")
    output: str = setting("", "name of the descriptor output; empty: the only one")
    size: tuple[int, ...] = setting((), "input height and width, pixel; empty: as the model fixes it", low=1, high=8192)
    fit: Literal["resize", "crop", "pad", "keep-aspect"] = setting(
        "resize",
        "bring a tile to `size`: resize both sides | resize and centre-crop | resize and pad | longer side to that of `size` and "
        "no other aspect taken (hloc; needs a model with free image size)",
    )
    resample: Literal["antialiased", "bilinear", "bicubic"] = setting(
        "antialiased",
        "filter of `fit`: Pillow's bilinear (as torchvision on images) | four nearest pixels (as OpenCV's INTER_LINEAR) "
        "| Pillow's bicubic",
    )
    layout: Literal["nchw", "nhwc"] = setting("nchw", "axis order of the model's input")
    channels: Literal["rgb", "bgr", "gray"] = setting("rgb", "channel order of the model's input")
    scale: Decimal = setting(Decimal("0.00392156862745098"), "pixels are multiplied by this first (1/255)")
    mean: tuple[Decimal, ...] = setting((), "then this is subtracted, per channel; empty: 0")
    std: tuple[Decimal, ...] = setting((), "then divided by this, per channel; empty: 1")
    pooling: Literal["none", "avg", "gem", "cls"] = setting(
        "none", "pool a feature map or token sequence into one vector"
    )
    output_layout: Literal["auto", "nchw", "nhwc", "ntd", "ndt"] = setting(
        "auto", "axis order of a feature map (c, h, w) or of tokens (t tokens of d numbers); auto: `layout`, ntd"
    )
    gem_power: Decimal = setting(Decimal(3), "pooling gem: its power p", low=0.01, high=100)
    skip_tokens: int = setting(0, "pooling avg, gem: first tokens left out (class, registers)", low=0, high=64)
    constants: dict[str, Decimal] = setting(
        dict, "values of the model's further inputs: {name = number}, in every element"
    )
    normalise: Literal["l2", "none"] = setting("l2", "descriptor normalisation; the index compares by inner product")
    keep_fp32: tuple[str, ...] = setting((), "fp16, int8: nodes (names or operator types) kept in fp32")
    calibration_tiles: int = setting(256, "int8: number of corpus tiles that calibrate the ranges", low=1)
    calibration_method: Literal["minmax", "entropy", "percentile"] = setting(
        "minmax", "int8: range of a tensor: mean of each tile's extremes | least divergence | 99.999 percent of values"
    )
    profile: dict[str, int] = setting(
        dict, "tensorrt batch profile {min, opt, max}; default {1, engine.batch, engine.batch}", low=1
    )
    custom_ops: Path | None = setting(None, "shared library with custom operators for onnxruntime")

    @property
    def fit_how(self) -> str:
        """How a tile is brought to `size`, in one word: `fit`, with the filter where it is not the usual one."""
        return self.fit if self.resample == "antialiased" else f"{self.fit}-{self.resample}"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """[engine]: how backbones are compiled."""

    backend: Literal["auto", "onnxruntime", "tensorrt", "tensorrt_rtx"] = setting(
        "auto", "auto: tensorrt where it imports and a GPU answers, else onnxruntime"
    )
    host: dict[str, str] = setting(dict, 'target other than this machine, for backends that cross-compile: {sm = "86"}')
    command: tuple[str, ...] = setting(
        (),
        "instead of compiling here: command that compiles on the target, whose whole tuple is `host`; written by fleet",
    )
    batch: int = setting(8, "tiles per network call", low=1, high=1024)
    workspace_mb: int = setting(1024, "tensorrt builder workspace limit, MiB", low=1)
    timeout_s: int = setting(7200, "longest time for one compile, second", low=1)
    timing_cache: bool = setting(True, "tensorrt: keep kernel timings between compiles on one host")


@dataclass(frozen=True, kw_only=True)
class Descriptors:
    """[descriptors]: how tiles go through the network and where the results are kept."""

    store: Path = setting(Path(".build/descriptors"), "descriptor store; one store can serve several caches")
    dtype: Literal["float32", "float16"] = setting("float32", "stored precision")
    threads: int = setting(0, "worker threads; 0: one per core", low=0, high=1024)
    executor: Literal["threads", "dask"] = setting("threads", "threads here, or a dask cluster (extra [dask])")
    scheduler: str = setting("", "dask scheduler address, tls://host:port, or tcp:// without TLS")
    tls_ca: Path | None = setting(None, "dask: certificate of the authority that signed the cluster's, PEM")
    tls_certificate: Path | None = setting(None, "dask: this computer's certificate, PEM")
    tls_key: Path | None = setting(None, "dask: its private key, PEM; not the key that signs caches")
    task_tiles: int = setting(250, "dask: tiles per task", low=1)


@dataclass(frozen=True, kw_only=True)
class Index:
    """[index]: the nearest-neighbour index over the descriptors."""

    kind: Literal["auto", "flat", "sqfp16", "sq8", "hrq", "sq4"] = setting(
        "auto", "auto chooses from size, memory, latency and recall by the rule in docs/index.md"
    )
    memory_mb: int = setting(4096, "memory budget of the index on board and of its build, MiB", low=1)
    latency_ms: Decimal | None = setting(
        None, "auto: longest expected time for one query, millisecond; not set: 50 is aimed at, not required", low=0
    )
    recall: Decimal | None = setting(
        None, "least expected recall@10; not set: the most that fits memory_mb and latency_ms", low=0, high=1
    )
    transform: str = setting(
        "none", "none | center | pca(d) | pca-whiten(d), learned on the corpus | auto: what the gates' views find best"
    )
    rotations: int = setting(1, "headings at which each tile is indexed", low=1, high=36)
    overlap: int = setting(
        1,
        "1: tiles only | 2: also cuts half a tile apart across neighbours, up to four times the descriptors | "
        "0: 2 where that keeps the rule in docs/index.md",
        low=0,
        high=2,
    )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """[[calibration]]: a file that flies with the cache unchanged."""

    path: Path = setting(..., "file, copied to calibration/<file name>")
    purpose: str = setting("camera", "what it calibrates (printable ASCII without spaces)")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """[camera]: the camera that looks for the place; what photos say themselves goes before `height_m`, not before the lens."""

    width_px: int | None = setting(None, "width of the photos that the lens is for, pixel; absent: any", low=1)
    height_px: int | None = setting(None, "their height", low=1)
    focal_px: Decimal | None = setting(
        None, "focal length, pixel; needs width_px and height_px; or focal_mm, or fov_deg, or calibration", low=1
    )
    focal_mm: Decimal | None = setting(None, "focal length, millimetre; needs sensor_width_mm", low=0.1)
    sensor_width_mm: Decimal | None = setting(None, "width of the sensor, millimetre", low=0.1)
    fov_deg: Decimal | None = setting(None, "horizontal field of view, degree", low=1, high=170)
    principal_px: tuple[Decimal, ...] = setting((), "principal point [x, y], pixel; empty: the middle of the photo")
    distortion_model: Literal["brown", "fisheye"] = setting(
        "brown", "brown: k1, k2, p1, p2[, k3[, k4, k5, k6]] as in OpenCV | fisheye: k1 to k4 (Kalibr: equidistant)"
    )
    distortion: tuple[Decimal, ...] = setting((), "coefficients of the distortion; empty: none")
    calibration: Path | None = setting(None, "OpenCV, ROS or Kalibr YAML with all of the above, instead of it")
    angles_of: Literal["camera", "body"] = setting(
        "camera", "whose yaw, pitch and roll a list of photos gives: the camera's (a gimbal's) or the airframe's"
    )
    mounting_yaw_deg: Decimal = setting(Decimal(0), "camera against the airframe: yaw, degree", low=-360, high=360)
    mounting_pitch_deg: Decimal = setting(
        Decimal(-90), "its pitch, degree; -90 looks straight down; also where a photo gives none", low=-180, high=90
    )
    mounting_roll_deg: Decimal = setting(Decimal(0), "its roll, degree", low=-180, high=180)
    height_m: Decimal | None = setting(None, "height above ground where a photo does not give one, metre", low=1)
    ground_m: Decimal | None = setting(
        None,
        "elevation of the ground, metre, on the datum of the photos' absolute altitude; then the height is the "
        "difference, instead of the height above take-off",
        low=-500,
        high=9000,
    )


@dataclass(frozen=True, kw_only=True)
class Gates:
    """[gates]: measured quality below which nothing is published."""

    samples: int = setting(64, "corpus tiles measured (deterministic sample)", low=1)
    fidelity_cosine: dict[str, Decimal] = setting(
        dict,
        "least median cosine of engine against onnxruntime fp32, per precision; default fp32 0.9999, fp16 0.999, int8 0.97",
        low=-1,
        high=1,
    )
    fidelity_agreement: dict[str, Decimal] = setting(
        dict,
        "least share of samples that find the same neighbour, per precision; default fp32 0.99, fp16 0.97, int8 0.85",
        low=0,
        high=1,
    )
    index_recall: Decimal = setting(Decimal("0.9"), "least recall@10 of the index against exact search", low=0, high=1)
    recognition: Decimal = setting(
        Decimal("0.5"),
        "least recall@1, above chance, of tiles seen as in flight with the heading known; the built-in network only warns",
        low=0,
        high=1,
    )
    heading: Literal["any", "known"] = setting(
        "any", "any: warn where flights are not found at any heading | known: the aircraft always knows its heading"
    )
    max_degenerate: Decimal = setting(
        Decimal("0.2"), "largest share of low-variance or near-duplicate tiles", low=0, high=1
    )


@dataclass(frozen=True, kw_only=True)
class Sector:
    """[sector.<class>]: how old imagery may be in a sector of this class."""

    max_age_days: int | None = setting(None, "oldest capture allowed, day; absent: no limit", low=1)
    action: Literal["fail", "warn"] = setting("fail", "what an older tile, or one without a date, does to the build")


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """[[waiver]]: a gate knowingly passed over, recorded in the Manifest."""

    gate: str = setting(..., "gate waived: freshness, coverage, fidelity, index_recall, recognition, degenerate")
    by: str = setting(..., "who waives it")
    reason: str = setting(..., "why")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """[coverage]: the walk before publishing."""

    strict: bool = setting(True, "an unlisted or missing file refuses to publish; false: only warns")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """[lock]: one builder at a time."""

    timeout_s: Decimal = setting(Decimal(0), "how long to wait for another build, second; 0: refuse at once", low=0)


@dataclass(frozen=True, kw_only=True)
class Signing:
    """[signing]: who signs the Manifest."""

    key: Path | None = setting(None, "Ed25519 private key, PEM, readable by its owner only, outside this directory")
    public_key: Path | None = setting(None, "its public half, PEM; default: `key` with .pub.pem instead of .pem")
    command: tuple[str, ...] = setting(
        (), "instead of key: command that gets the bytes on stdin and writes the 64-byte signature"
    )
    password_env: str = setting(
        "FLIGHTCACHE_KEY_PASSWORD", "environment variable with the password of an encrypted key"
    )


@dataclass(frozen=True, kw_only=True)
class Publish:
    """[publish]: what is kept and added."""

    keep_generations: int = setting(2, "published generations kept, the current one included", low=1, high=100)
    recheck_days: int = setting(
        7, "a build with nothing to do reads what is published in full after so many days; 0: never", low=0, high=3650
    )
    keep_build_days: int = setting(
        30,
        "after a build, what was not used in .build for so many days, or is one of very many, is removed; 0: never",
        low=0,
        high=3650,
    )
    provenance: bool = setting(False, "add a CycloneDX ML-BOM and an in-toto provenance statement")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What decides which tiles of which stores are the corpus. Paths below `root` move with it."""

    root: Path
    tiles: Tiles
    area: Area
    takeoff: Origin | None = None
    sector_class: str = "default"


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What flight.toml says of the cache itself, parsed and checked: all but who may build and sign it.

    Paths are absolute; `root` is the cache directory. `build_dir` is its `.build` (targets, catalogue, stores, doit's
    database), or elsewhere where nothing may be written there.
    """

    root: Path
    build_dir: Path = field(default=Path())
    flight: FlightIdentity = FlightIdentity()
    area: Area = Area()
    tiles: Tiles = Tiles()
    backbone: tuple[Backbone, ...] = ()
    engine: Engine = Engine()
    descriptors: Descriptors = Descriptors()
    index: Index = Index()
    calibration: tuple[Calibration, ...] = ()
    camera: Camera = Camera()
    gates: Gates = Gates()
    sector: dict[str, Sector] = field(default_factory=dict)
    waiver: tuple[Waiver, ...] = ()
    coverage: Coverage = Coverage()
    publish: Publish = Publish()

    def __post_init__(self) -> None:
        if self.build_dir == Path():
            object.__setattr__(self, "build_dir", self.root / ".build")

    @property
    def selection(self) -> Selection:
        """What decides the corpus."""
        who = self.flight
        return Selection(
            root=self.root, tiles=self.tiles, area=self.area, takeoff=who.takeoff, sector_class=who.sector_class
        )

    @property
    def descriptor_store(self) -> Path:
        """The directory of the descriptor store."""
        return self.root / self.descriptors.store

    @property
    def descriptor_backbone(self) -> Backbone:
        """The one backbone whose output is indexed."""
        return next(b for b in self.backbone if b.role == "descriptor")


@dataclass(frozen=True, kw_only=True)
class Flight(BuildSettings):
    """The whole of flight.toml. What needs no key takes `BuildSettings`."""

    lock: Lock = Lock()
    signing: Signing = Signing()
