"""Which kind of index, decided from numbers alone: vectors, dimension, memory, latency and the recall aimed at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from provisioning.base.errors import IndexingError
from provisioning.config.schema import Index
from provisioning.index.transform_spec import TransformSpec

ID_BYTES = 8
SHARE_OF_MEMORY = Decimal("0.6")
"""Part of `index.memory_mb` that an automatic choice may fill: the flight computer holds more than an index."""
EXACT_UP_TO_BYTES = 64 << 20
"""Up to here exact search costs nothing worth saving, so nothing is lost for it."""
SAMPLE_ROWS = 16_384
"""Rows from which a transform is learned."""
BLOCKS_BYTES = 16 << 20
"""What streaming holds at a time."""
MANY_VECTORS = 1_000_000
"""Below this an exhaustive scan of small codes beats inverted lists on cross-view queries (measured)."""
HRQ_COMPONENTS = 2048
"""The longest vectors that hrq takes: of 4096 components FAISS 1.15.1's fast scan finds none again (measured)."""
HRQ_REFINE = 30
"""hrq re-ranks this many times k candidates with their 8-bit codes."""

BEST_RECALL: Mapping[str, Decimal] = MappingProxyType(
    {
        "flat": Decimal(1),
        "sqfp16": Decimal("0.999"),
        "sq8": Decimal("0.99"),
        "hrq": Decimal("0.97"),
        "ivf-sq8": Decimal("0.95"),
    }
)
"""Highest recall aim at which each kind is still considered; the gate measures what it really gives."""


@dataclass(frozen=True)
class Speed:
    """Picoseconds that one query spends on one component of one stored vector, per kind of scan, on one core."""

    flat: int
    sqfp16: int
    sq8: int
    hrq: int

    def times(self, factor: float) -> Speed:
        """Return the speed of a host that takes `factor` times as long."""
        return Speed(*(max(1, round(each * factor)) for each in (self.flat, self.sqfp16, self.sq8, self.hrq)))


REFERENCE = Speed(flat=160, sqfp16=63, sq8=70, hrq=18)
"""Measured at d = 512 and 100 000 vectors on one core of a 4-core x86-64 server."""


@dataclass(frozen=True)
class Choice:
    """A kind with what it costs: bytes on board, bytes of memory while it is built, microseconds for one query."""

    kind: str
    reason: str
    bytes: int
    build_bytes: int
    latency_us: int
    nlist: int = 0
    nprobe: int = 0


def code_bytes(kind: str, dimension: int) -> int:
    """Return the bytes that one vector of `dimension` components takes in an index of `kind`, without its id."""
    rotated = 1 << max(0, dimension - 1).bit_length()
    return {
        "flat": 4 * dimension,
        "sqfp16": 2 * dimension,
        "sq8": dimension,
        "ivf-sq8": dimension,
        "hrq": dimension + rotated // 8 + 8,
        "hnsw-sq8": dimension + 4 * 64 + 16,
    }[kind]


def lists_for(vectors: int) -> int:
    """Return the number of inverted lists for `vectors`: the power of two nearest to 4·√n, at least 1."""
    return 1 << max(0, round(math.log2(4 * math.sqrt(max(1, vectors)))))


def _cost(kind: str, *, vectors: int, dimension: int, speed: Speed, nlist: int, learning: int) -> Choice:
    """Return what `kind` would cost; the reason is filled in by the caller."""
    nlist = min(vectors, nlist or lists_for(vectors)) if kind == "ivf-sq8" else 0
    nprobe = -(-nlist // 4)
    size = vectors * (code_bytes(kind, dimension) + ID_BYTES) + nlist * 4 * dimension + 8 * dimension
    scan = vectors * dimension
    picoseconds = {
        "flat": scan * speed.flat,
        "sqfp16": scan * speed.sqfp16,
        "sq8": scan * speed.sq8,
        "hrq": scan * speed.hrq,
        "ivf-sq8": scan * speed.sq8 // 4 + nlist * dimension * speed.flat,
        "hnsw-sq8": 1024 * dimension * speed.sq8,
    }[kind]
    build = max(learning, _build_bytes(kind, size, vectors, dimension, nlist))
    return Choice(kind, "", size, build, picoseconds // 1_000_000, nlist, nprobe)


def _build_bytes(kind: str, size: int, vectors: int, dimension: int, nlist: int) -> int:
    """Return the memory that building takes: a few blocks for the streamed kinds, the whole for the others."""
    return BLOCKS_BYTES + {
        "hrq": size,
        "hnsw-sq8": size + 4 * dimension * vectors,
        "ivf-sq8": min(512 << 20, 4 * dimension * min(vectors, 50 * nlist)) + 6 * dimension * nlist + 32 * vectors,
    }.get(kind, 0)


def choose_kind(index: Index, *, vectors: int, dimension: int, speed: Speed = REFERENCE) -> Choice:
    """Return the kind of index for `vectors` of `dimension` components (before the transform), with cost and reason.

    A kind named in flight.toml is taken as it is. `auto` takes the first of flat (while exact search is free, or when
    recall 1 is asked), sqfp16 (only for a recall above 0.97), sq8, hrq, ivf-sq8 (from a million vectors) that keeps
    memory, latency and the recall aimed at. Raises IndexingError with the bytes when nothing fits.
    """
    spec = TransformSpec.parse(index.transform)
    learning = 0 if spec.name == "none" else 4 * dimension * (SAMPLE_ROWS + 6 * dimension)
    dimension = spec.output(dimension)
    costs = {
        kind: _cost(kind, vectors=vectors, dimension=dimension, speed=speed, nlist=index.nlist, learning=learning)
        for kind in (*BEST_RECALL, "hnsw-sq8")
    }
    if dimension > HRQ_COMPONENTS:
        if index.kind == "hrq":
            raise _too_long(dimension)
        del costs["hrq"]
    if index.kind != "auto":
        return _asked(index, costs[index.kind])
    for kind in _order(index, vectors, costs):
        if not _objections(index, costs[kind]):
            return _with_reason(
                costs[kind],
                f"auto: first that keeps recall {index.recall}, {index.memory_mb} MiB, {index.latency_ms} ms",
            )
    raise _nothing_fits(index, vectors, dimension, costs)


def speed_matters(index: Index, *, vectors: int, dimension: int) -> bool:
    """Tell whether a host four times slower or faster than the reference would get another kind."""
    kinds = {_kind_or_none(index, vectors, dimension, REFERENCE.times(factor)) for factor in (0.25, 1, 4)}
    return len(kinds) > 1


def _kind_or_none(index: Index, vectors: int, dimension: int, speed: Speed) -> str | None:
    try:
        return choose_kind(index, vectors=vectors, dimension=dimension, speed=speed).kind
    except IndexingError:
        return None


def _order(index: Index, vectors: int, costs: Mapping[str, Choice]) -> tuple[str, ...]:
    """Return the kinds to try, the preferred first."""
    if index.recall == 1:
        return ("flat",)
    first = ("flat",) if costs["flat"].bytes <= EXACT_UP_TO_BYTES else ()
    finest = ("sqfp16",) if index.recall > BEST_RECALL["hrq"] else ()
    last = ("ivf-sq8",) if vectors >= MANY_VECTORS else ()
    preferred = (*first, *finest, "sq8", "hrq", *last)
    return tuple(kind for kind in preferred if kind in costs and index.recall <= BEST_RECALL[kind])


def _objections(index: Index, cost: Choice) -> list[str]:
    """Return why `cost` does not fit, in words with its numbers."""
    budget = index.memory_mb << 20
    limits = (
        (cost.bytes > SHARE_OF_MEMORY * budget, f"{cost.bytes} bytes on board"),
        (cost.build_bytes > budget, f"{cost.build_bytes} bytes to build"),
        (Decimal(cost.latency_us) > index.latency_ms * 1000, f"{cost.latency_us / 1000:.1f} ms a query"),
    )
    return [words for broken, words in limits if broken]


def _asked(index: Index, cost: Choice) -> Choice:
    budget = index.memory_mb << 20
    if max(cost.bytes, cost.build_bytes) > budget:
        raise IndexingError(
            f"an index of kind {cost.kind} does not fit in index.memory_mb",
            file="flight.toml",
            key="index.memory_mb",
            facts={"index bytes": cost.bytes, "bytes to build": cost.build_bytes, "budget bytes": budget},
            next_step='raise index.memory_mb, take a smaller kind (index.kind = "auto"), or fewer zooms or rotations',
        )
    return _with_reason(cost, "asked for in flight.toml")


def _too_long(dimension: int) -> IndexingError:
    return IndexingError(
        f"an index of kind hrq cannot hold vectors of {dimension} components",
        file="flight.toml",
        key="index.kind",
        facts={"components": dimension, "at most": HRQ_COMPONENTS},
        next_step='take "sq8", or shorten the vectors with index.transform = "pca(1024)"',
    )


def _with_reason(cost: Choice, reason: str) -> Choice:
    return Choice(cost.kind, reason, cost.bytes, cost.build_bytes, cost.latency_us, cost.nlist, cost.nprobe)


def _nothing_fits(index: Index, vectors: int, dimension: int, costs: Mapping[str, Choice]) -> IndexingError:
    """Return the refusal, naming for each kind what stands against it."""
    facts: dict[str, object] = {"vectors": vectors, "dimension": dimension, "budget bytes": index.memory_mb << 20}
    for kind, best in BEST_RECALL.items():
        if kind not in costs:
            facts[kind] = f"takes at most {HRQ_COMPONENTS} components"
            continue
        against = _objections(index, costs[kind])
        if index.recall > best:
            against.append(f"recall at most {best}")
        if kind == "ivf-sq8" and vectors < MANY_VECTORS:
            against.append(f"needs {MANY_VECTORS} vectors")
        facts[kind] = ", ".join(against) or "fits, but is not preferred"
    return IndexingError(
        "no kind of index keeps memory, latency and recall",
        file="flight.toml",
        key="index",
        facts=facts,
        next_step="raise index.memory_mb or index.latency_ms, lower index.recall, shrink the vectors with "
        'index.transform = "pca(256)", or take a smaller area',
    )
