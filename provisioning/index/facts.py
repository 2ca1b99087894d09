"""What decides the bytes of `corpus.index`, known when the rules load, without numpy or FAISS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version

from provisioning.config import Flight
from provisioning.errors import IndexError_
from provisioning.hashing import Fact
from provisioning.index.choice import MANY_VECTORS, Choice, choose_kind
from provisioning.index.host import instruction_set, recorded_speed
from provisioning.index.training import trained_on
from provisioning.tiles import Corpus

FORMAT = 1
"""Raised when our own code would give other bytes for the same input."""


def choose(flight: Flight, corpus: Corpus, dimension: int) -> Choice:
    """Return the kind of index for `corpus` with descriptors of `dimension` components; IndexError_ if none fits."""
    choice = choose_kind(
        flight.index,
        vectors=corpus.count * flight.index.rotations,
        dimension=dimension,
        speed=recorded_speed(flight.build_dir),
    )
    return trained_on(flight, corpus).keep(choice)


def index_facts(flight: Flight, corpus: Corpus | None, dimension: int | None = None) -> Mapping[str, Fact]:
    """Return the facts of the index of `corpus`, beside its coverage digest and the keys of its descriptors.

    With a known descriptor `dimension` they hold the kind chosen, without one everything that the choice depends on.
    """
    index = flight.index
    common: dict[str, Fact] = {
        "format": FORMAT,
        "faiss": version("faiss-cpu"),
        "transform": index.transform,
        "rotations": index.rotations,
        "sources": corpus.sources if corpus else (),
    }
    if corpus is None:
        return {**common, "kind": index.kind}
    return {**common, **_kind(flight, corpus, dimension)}


def _kind(flight: Flight, corpus: Corpus, dimension: int | None) -> Mapping[str, Fact]:
    index, vectors = flight.index, corpus.count * flight.index.rotations
    learned = trained_on(flight, corpus).coverage_sha256
    choice = None if dimension is None else _choice_or_none(flight, corpus, dimension)
    if choice is not None:
        return {
            "kind": choice.kind,
            "lists": (choice.nlist, choice.nprobe),
            "learned": learned if choice.kind == "ivf-sq8" else None,
            "isa": instruction_set() if choice.kind == "hnsw-sq8" else None,
        }
    return {
        "kind": index.kind,
        "nlist": index.nlist,
        "auto": (index.memory_mb, index.latency_ms, index.recall) if index.kind == "auto" else None,
        "speed": dataclasses.astuple(recorded_speed(flight.build_dir)) if index.kind == "auto" else None,
        "learned": learned if index.kind == "ivf-sq8" or (index.kind == "auto" and vectors >= MANY_VECTORS) else None,
        "isa": instruction_set() if index.kind == "hnsw-sq8" else None,
    }


def _choice_or_none(flight: Flight, corpus: Corpus, dimension: int) -> Choice | None:
    """Return the choice, or None where none fits: the build says so, a list of tasks does not fail for it."""
    try:
        return choose(flight, corpus, dimension)
    except IndexError_:
        return None
