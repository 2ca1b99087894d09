"""Everything that decides the bytes of `corpus.index`, known when the rules load, without numpy or FAISS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from provisioning.config.schema import Index
from provisioning.hashing import Fact, Sha256
from provisioning.index.choice import Choice

FORMAT = 1
"""Raised when our own code would give other bytes for the same input."""


def index_facts(
    index: Index,
    choice: Choice,
    *,
    descriptor_keys: Sequence[str],
    coverage_sha256: Sha256,
    sources: Sequence[str],
    trained_on: str | None = None,
    isa: str = "",
) -> Mapping[str, Fact]:
    """Return the facts of the index of a corpus.

    `descriptor_keys`: one per heading. `sources`: names in the order of their numbers in the ids. `trained_on`: what
    the codebook of ivf-sq8 was learned from (`codebooks.training`). `isa`: instruction set of this host, for the one
    kind whose bytes depend on it (hnsw-sq8).
    """
    return {
        "format": FORMAT,
        "faiss": version("faiss-cpu"),
        "kind": choice.kind,
        "nlist": choice.nlist,
        "nprobe": choice.nprobe,
        "transform": index.transform,
        "rotations": index.rotations,
        "descriptors": tuple(descriptor_keys),
        "coverage": coverage_sha256,
        "sources": tuple(sources),
        "trained_on": trained_on,
        "isa": isa if choice.kind == "hnsw-sq8" else None,
    }
