"""What decides the bytes of `corpus.index`, known when the rules load, without numpy or FAISS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioning.base.distributions import version
from provisioning.base.errors import IndexingError
from provisioning.base.hashing import Fact
from provisioning.config.schema import Index
from provisioning.index.choice import choose

FORMAT = 3
"""Raised when our own code would give other bytes for the same input."""
HRQ_FORMAT = 4
"""The same for kind hrq."""


def index_facts(
    index: Index, *, vectors: int | None, dimension: int | None, sources: Sequence[str], overlap: int = 1
) -> Mapping[str, Fact]:
    """Return what decides the index of `vectors` descriptors of `dimension` components, beside those descriptors.

    `vectors` counts each heading and cut; `overlap` is 2 where there are cuts; `sources` are the names of the tile
    sources in the order of their numbers. Where both numbers are known the facts hold the kind chosen, else everything
    that the choice depends on.
    """
    kind = _kind(index, vectors, dimension)
    return {
        "format": HRQ_FORMAT if kind["kind"] in ("hrq", "auto") else FORMAT,
        "faiss": version("faiss-cpu"),
        "transform": index.transform,
        "rotations": index.rotations,
        "sources": tuple(sources),
        **({"overlap": overlap} if overlap > 1 else {}),
        **kind,
    }


def _kind(index: Index, vectors: int | None, dimension: int | None) -> Mapping[str, Fact]:
    """Return the kind; where none fits the build says so, and listing the tasks does not fail."""
    if index.kind != "auto":
        return {"kind": index.kind}
    if vectors is not None and dimension is not None:
        try:
            return {"kind": choose(index, vectors=vectors, dimension=dimension).kind}
        except IndexingError:
            pass
    return {"kind": "auto", "auto": (index.memory_mb, index.latency_ms, index.recall)}
