"""The index of a whole corpus: from its tiles and descriptor stores to `corpus.index`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from provisioning.base.errors import IndexingError
from provisioning.base.events import event
from provisioning.catalogue import Corpus, corpus_table
from provisioning.config import Flight
from provisioning.index.build import build_index
from provisioning.index.facts import choose, made_by
from provisioning.index.ids import Floats, Rows, rows_of
from provisioning.index.info import IndexInfo
from provisioning.index.memo import History
from provisioning.index.training import index_dir, training_for

Gatherer = Callable[[Sequence[bytes]], Floats]
"""From SHA-256 digests of tiles (32 bytes each) to their descriptors, float32 [n, d]."""


def corpus_rows(flight: Flight) -> Rows:
    """Return the rows of the index of the corpus of the last scan."""
    ids, shas = corpus_table(flight)
    return rows_of(ids, shas, rotations=flight.index.rotations)


def build_corpus_index(
    flight: Flight,
    corpus: Corpus,
    rows: Rows,
    gatherers: Sequence[Gatherer],
    output: Path,
    *,
    descriptor_keys: Sequence[str],
) -> IndexInfo:
    """Write the index of `corpus` to `output`; one gatherer and one descriptor key per heading.

    Raises IndexingError where no kind fits, or a descriptor is zero or not finite.
    """
    if len(gatherers) != flight.index.rotations or len(descriptor_keys) != flight.index.rotations:
        raise IndexingError(f"{len(gatherers)} descriptor stores for index.rotations = {flight.index.rotations}")
    gather = rows.gather(gatherers)
    maker = made_by(flight, descriptor_keys)
    training = training_for(flight, corpus, maker)
    choice = choose(flight, corpus, int(gather(slice(0, 1)).shape[1]), training)
    event("index.choice", kind=choice.kind, reason=choice.reason, bytes=choice.bytes, latency_us=choice.latency_us)
    history = History(index_dir(flight.build_dir), maker, rows.shas, corpus.coverage_sha256, training)
    return build_index(choice, rows.ids, gather, output, transform=flight.index.transform, history=history)
