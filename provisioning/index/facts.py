"""What decides the bytes of `corpus.index`, known when the rules load, without numpy or FAISS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from provisioning.base.errors import IndexingError
from provisioning.base.hashing import Fact, digest_of
from provisioning.catalogue import Corpus
from provisioning.config import Flight
from provisioning.index.choice import REFERENCE, Choice, choose_kind, speed_matters
from provisioning.index.host import instruction_set, recorded_speed
from provisioning.index.training import Training, may_train, training_for

FORMAT = 1
"""Raised when our own code would give other bytes for the same input."""


def choose(flight: Flight, corpus: Corpus, dimension: int, training: Training | None = None) -> Choice:
    """Return the kind of index for `corpus` with descriptors of `dimension` components; IndexingError if none fits."""
    index, vectors = flight.index, corpus.count * flight.index.rotations
    decides = speed_matters(index, vectors=vectors, dimension=dimension)
    speed = recorded_speed(flight.build_dir) if decides else REFERENCE
    choice = choose_kind(index, vectors=vectors, dimension=dimension, speed=speed)
    return choice if training is None else training.keep(choice)


def made_by(flight: Flight, descriptor_keys: Sequence[str]) -> str:
    """Return the digest of what made the vectors of an index."""
    return digest_of({"descriptors": tuple(descriptor_keys), "transform": flight.index.transform})


def index_facts(
    flight: Flight, corpus: Corpus | None, dimension: int | None, descriptor_keys: Sequence[str]
) -> Mapping[str, Fact]:
    """Return the facts of the index of `corpus`, beside its coverage digest; one descriptor key per heading.

    With a known descriptor `dimension` they hold the kind chosen, without one everything that the choice depends on.
    """
    index = flight.index
    common: dict[str, Fact] = {
        "format": FORMAT,
        "faiss": version("faiss-cpu"),
        "made_by": made_by(flight, descriptor_keys),
        "rotations": index.rotations,
        "sources": corpus.sources if corpus else (),
    }
    if corpus is None:
        return {**common, "kind": index.kind}
    training = training_for(flight, corpus, made_by(flight, descriptor_keys))
    choice = None if dimension is None else _choice_or_none(flight, corpus, dimension, training)
    return {**common, **(_undecided(flight, corpus, training) if choice is None else _decided(choice, training))}


def _decided(choice: Choice, training: Training) -> Mapping[str, Fact]:
    return {
        "kind": choice.kind,
        "lists": (choice.nlist, choice.nprobe),
        "learned": training.coverage_sha256 if choice.kind == "ivf-sq8" else None,
        "isa": instruction_set() if choice.kind == "hnsw-sq8" else None,
    }


def _undecided(flight: Flight, corpus: Corpus, training: Training) -> Mapping[str, Fact]:
    index = flight.index
    auto = index.kind == "auto"
    return {
        "kind": index.kind,
        "nlist": index.nlist,
        "auto": (index.memory_mb, index.latency_ms, index.recall) if auto else None,
        "speed": dataclasses.astuple(recorded_speed(flight.build_dir)) if auto else None,
        "learned": training.coverage_sha256 if may_train(flight, corpus.count * index.rotations) else None,
        "isa": instruction_set() if index.kind == "hnsw-sq8" else None,
    }


def _choice_or_none(flight: Flight, corpus: Corpus, dimension: int, training: Training) -> Choice | None:
    """Return the choice, or None where none fits: the build says so, a list of tasks does not fail for it."""
    try:
        return choose(flight, corpus, dimension, training)
    except IndexingError:
        return None
