"""Which kind of index, decided from numbers alone: vectors, dimension, memory, and the recall and latency asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

from provisioning.base.errors import IndexingError
from provisioning.base.frozen import dataclass
from provisioning.base.geometry.geo import MOST_ROTATIONS_WITH_CUTS
from provisioning.config.schema import Index
from provisioning.index.transform.spec import TransformSpec

ID_BYTES = 8
HEADER_BYTES = 1024
EXACT_UP_TO_BYTES = 64 << 20
"""Up to this size exact search costs nothing worth saving."""
SAMPLE_ROWS = 16_384
"""Rows from which a transform is learned."""
BLOCKS_BYTES = 16 << 20
"""What streaming holds at a time."""
LATENCY_AIM_US = 50_000
"""Where index.latency_ms is not set, slower kinds are passed over if a faster one fits; none is refused."""
HRQ_REFINE = 100
"""hrq ranks this many times k candidates again with their 8-bit codes."""
AUTO_DESCRIPTORS = 200_000
"""Most descriptors for which cuts are described where index.overlap is not set: an hour at 60 a second, which a small
network reaches on four cores."""
PCA_TRIED = (512, 256, 128, 64)
"""Components that a refusal proposes for index.transform, the most first."""


@dataclass(frozen=True)
class Measured:
    """What one kind was measured to do: recall@10 against exact search, and the scan of one query on one core.

    `scan_ps` is in picoseconds for each component of each stored vector.
    """

    recall: Decimal
    scan_ps: int


MEASURED: Mapping[str, Measured] = MappingProxyType(
    {
        "flat": Measured(Decimal(1), 150),
        "sqfp16": Measured(Decimal("0.999"), 66),
        "sq8": Measured(Decimal("0.98"), 60),
        "hrq": Measured(Decimal("0.97"), 30),
        "sq4": Measured(Decimal("0.95"), 100),
    }
)
"""The kinds, the most exact first. Source: `bench/index.py`, the tables in docs/index.md. The scan is that of 1,000,000
vectors of 512 components on one core of an x86-64 server: codes come from memory and not from a cache. This table
decides and not the host that builds, which is not the aircraft."""


@dataclass(frozen=True)
class Choice:
    """A kind with what it costs: bytes on board, bytes of memory while it is built, microseconds for one query."""

    kind: str
    bytes: int
    build_bytes: int
    latency_us: int
    recall: Decimal
    """Expected recall@10."""

    @property
    def reason(self) -> str:
        """Return what is expected of this index, in one sentence. It follows from the key of the index alone."""
        return (
            f"expected recall@10 {self.recall}, {self.latency_us / 1000:.1f} ms a query on the reference core, "
            f"{self.bytes / 1e6:.1f} MB"
        )

    @property
    def latency_ms(self) -> int:
        """Return the least whole index.latency_ms that admits this index."""
        return -(-self.latency_us // 1000)

    @property
    def memory_mb(self) -> int:
        """Return the least index.memory_mb with which this index can be built and loaded, MiB."""
        return -(-max(self.bytes, self.build_bytes) >> 20)


def rotated(dimension: int) -> int:
    """Return the length of a vector of `dimension` components after the rotation of hrq: the next power of two."""
    return 1 << max(0, dimension - 1).bit_length()


def code_bytes(kind: str, dimension: int) -> int:
    """Return the bytes that one vector of `dimension` components takes in an index of `kind`, without its id."""
    return {
        "flat": 4 * dimension,
        "sqfp16": 2 * dimension,
        "sq8": dimension,
        "hrq": dimension + rotated(dimension) // 8 + 8,
        "sq4": (dimension + 1) // 2,
    }[kind]


def costs(index: Index, *, vectors: int, dimension: int) -> Mapping[str, Choice]:
    """Return what each kind would cost for `vectors` of `dimension` components (before the transform)."""
    spec = TransformSpec.parse(index.transform)
    spec.require(vectors)
    stored = spec.output(dimension)
    learning = 0 if spec.name == "none" else 4 * dimension * (min(vectors, SAMPLE_ROWS) + 6 * dimension)
    matrix = 4 * dimension * stored if spec.components else 4 * dimension
    return {kind: _cost(kind, vectors, stored, learning=learning, matrix=matrix) for kind in MEASURED}


def _cost(kind: str, vectors: int, dimension: int, *, learning: int, matrix: int) -> Choice:
    size = vectors * (code_bytes(kind, dimension) + ID_BYTES) + matrix + 8 * rotated(dimension) + HEADER_BYTES
    build = BLOCKS_BYTES + (size if kind == "hrq" else 0)
    scanned = vectors * (rotated(dimension) if kind == "hrq" else dimension)
    latency_us = scanned * MEASURED[kind].scan_ps // 1_000_000
    return Choice(kind, size, max(learning, build), latency_us, MEASURED[kind].recall)


def overlap_of(index: Index, *, tiles: int | None, dimension: int | None) -> int:
    """Return 2 where cuts are described beside tiles, else 1: index.overlap, or the rule that stands for 0.

    By the rule 2, if ids have room for the headings of every cut, all descriptors are at most AUTO_DESCRIPTORS, and
    `choose` finds a kind for them, where the network's `dimension` is known. A pure function of the flight and the
    corpus: it does not ask for time or host.
    """
    if index.overlap:
        return index.overlap
    if tiles is None or index.rotations > MOST_ROTATIONS_WITH_CUTS:
        return 1
    vectors = most_vectors(index, tiles=tiles, overlap=2)
    fits = vectors <= AUTO_DESCRIPTORS and (dimension is None or _chosen(index, vectors, dimension)[0])
    return 2 if fits else 1


def most_vectors(index: Index, *, tiles: int, overlap: int) -> int:
    """Return how many vectors `tiles` give at most: there are fewer cuts than tiles, by those at the rim."""
    return tiles * overlap**2 * index.rotations


def choose(index: Index, *, vectors: int, dimension: int) -> Choice:
    """Return the kind of index for `vectors` of `dimension` components (before the transform), and what it costs.

    A kind named in flight.toml is taken if it fits into index.memory_mb and may reach index.recall. `auto` takes, of
    the kinds that fit and keep index.recall and index.latency_ms where these are set, the first of flat (up to 64 MiB),
    sqfp16, sq8, hrq, sq4 that answers within index.latency_ms (50 ms where it is not set), else the fastest. Raises
    IndexingError that names the key, the nearest kind, and values that would do.
    """
    chosen, found = _chosen(index, vectors, dimension)
    if chosen is None:
        raise _refusal(index, vectors, dimension, found)
    return chosen


def _chosen(index: Index, vectors: int, dimension: int) -> tuple[Choice | None, Mapping[str, Choice]]:
    """Return the choice, if there is one, and the costs of the kinds that were considered."""
    found = costs(index, vectors=vectors, dimension=dimension)
    if index.kind != "auto":
        found = {index.kind: found[index.kind]}
    return _first(index, found.values()), found


def _first(index: Index, found: Iterable[Choice]) -> Choice | None:
    """Return the preferred of the kinds `found`, ordered by recall; None where none keeps what is required."""
    allowed = [cost for cost in found if not _changes(index, cost)]
    ordered = sorted(allowed, key=lambda cost: cost.kind == "flat" and cost.bytes > EXACT_UP_TO_BYTES)
    quick = (cost for cost in ordered if cost.latency_us <= LATENCY_AIM_US or index.latency_ms is not None)
    return next(quick, min(ordered, key=lambda cost: cost.latency_us, default=None))


def _changes(index: Index, cost: Choice) -> Mapping[str, object]:
    """Return the keys of `index` that stand against this kind, each with the nearest value that admits it."""
    changes: dict[str, object] = {}
    if cost.memory_mb > index.memory_mb:
        changes["memory_mb"] = cost.memory_mb
    if cost.recall < (index.recall or 0):
        changes["recall"] = cost.recall
    limit_ms = index.latency_ms if index.kind == "auto" else None  # who names a kind knows the aircraft
    if limit_ms is not None and cost.latency_us > limit_ms * 1000:
        changes["latency_ms"] = cost.latency_ms
    return changes


def _refusal(index: Index, vectors: int, dimension: int, found: Mapping[str, Choice]) -> IndexingError:
    """Return the error that names the key which stands against every kind, the figures of each, and ways out."""
    facts: dict[str, object] = {"vectors": vectors, "components": dimension}
    facts |= {cost.kind: f"{cost.reason}; needs index.memory_mb = {cost.memory_mb}" for cost in found.values()}
    left = [_changes(index, cost) for cost in found.values()]
    for key in ("memory_mb", "recall", "latency_ms"):  # a kind that one key rules out is not held against the next
        if all(key in changes for changes in left):
            break
        left = [changes for changes in left if key not in changes]
    subject = "no kind of index" if index.kind == "auto" else f"an index of kind {index.kind} does not"
    verb = "keeps" if index.kind == "auto" else "keep"
    fewer = ["set index.overlap = 1 (a quarter of the vectors)"] if index.overlap == 2 else []
    steps = (*_steps(index, found), *_shorter(index, vectors, dimension), *fewer)
    return IndexingError(
        f"{subject} {verb} index.{key} = {getattr(index, key)}",
        file="flight.toml",
        key=f"index.{key}",
        facts=facts,
        next_step=", or ".join(steps),
    )


def _steps(index: Index, found: Mapping[str, Choice]) -> Iterator[str]:
    """Yield the fewest changes of keys with which `choose` succeeds, for each set of keys those of the nearest kind."""
    ways = [(cost, _changes(index, cost)) for cost in found.values()]
    fewest = min(len(changes) for _, changes in ways)
    nearest: dict[tuple[str, ...], tuple[Choice, Mapping[str, object]]] = {}
    for cost, changes in sorted(ways, key=lambda way: _distance(way[0], way[1])):
        if len(changes) == fewest:
            nearest.setdefault(tuple(changes), (cost, changes))
    for cost, changes in nearest.values():
        yield f"set {' and '.join(f'index.{key} = {value}' for key, value in changes.items())} ({cost.kind})"


def _distance(cost: Choice, changes: Mapping[str, object]) -> tuple[object, ...]:
    memory_mb, recall = cost.memory_mb if "memory_mb" in changes else 0, cost.recall if "recall" in changes else 0
    return memory_mb, -recall, cost.latency_us


def _shorter(index: Index, vectors: int, dimension: int) -> Iterator[str]:
    """Yield the transform that keeps most components and makes `choose` succeed, if one does."""
    for components in PCA_TRIED if index.transform == "none" else ():
        shorter = replace(index, transform=f"pca({components})")
        if components < dimension and _chosen(shorter, vectors, dimension)[0]:
            yield f'set index.transform = "{shorter.transform}"'
            return
