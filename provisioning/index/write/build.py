"""Build `corpus.index` from descriptors: choose, check, learn, transform, encode, write."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from provisioning.base.events import event
from provisioning.config.schema import Index
from provisioning.index.choice import SAMPLE_ROWS, Choice, choose
from provisioning.index.ids import Floats, Gather, Int64s, check_ids, evenly, steadily
from provisioning.index.info import IndexInfo
from provisioning.index.transform.learn import Transform, learn, transform_of
from provisioning.index.transform.spec import TransformSpec
from provisioning.index.write.codec import check_rows, learned_range
from provisioning.index.write.layout import Trained
from provisioning.index.write.parallel import idle_threads
from provisioning.index.write.stream import Job, blocks, write_streamed
from provisioning.index.write.whole import write_whole

RANGE_ROWS = 2_048
"""Rows from which the range of codes is learned; what lies outside is stored as the end of the range."""


def build(index: Index, ids: Int64s, gather: Gather, output: Path, *, planned: int | None = None) -> IndexInfo:
    """Write the FAISS index that `index`, the [index] section of flight.toml, asks for to `output`.

    `planned` is the number of vectors that the kind is chosen for; default: as many as there are. `ids` int64 [n],
    strictly ascending; `gather` gives the descriptors of a slice or of row numbers, float32 [m, d].
    The bytes do not depend on threads or on the kind of processor. Raises IndexingError where no kind fits, for bad
    ids, and for descriptors that are zero or not finite.
    """
    ids = check_ids(ids)
    dimension = int(gather(slice(0, 1)).shape[1])
    choice = choose(index, vectors=planned or len(ids), dimension=dimension)
    event("index.choice", reason=choice.reason, **dataclasses.asdict(choice))
    _write(_job(choice, TransformSpec.parse(index.transform), ids, gather, dimension), output)
    size = os.stat(output).st_size
    return IndexInfo(choice.kind, dimension, len(ids), size, index.transform, choice.reason)


def _job(choice: Choice, spec: TransformSpec, ids: Int64s, gather: Gather, dimension: int) -> Job:
    """Return the job over rows that are checked and have gone through the transform, which is learned here."""
    plain = Job(choice, Trained(dimension), ids, lambda which: check_rows(gather(which), ids[which]))
    if spec.name == "none":
        return plain
    with idle_threads():
        transform = transform_of(learn(spec, lambda: plain.rows(evenly(len(ids), SAMPLE_ROWS))))
    return _transformed(plain, transform)


def _transformed(job: Job, transform: Transform) -> Job:
    def rows(which: slice | Int64s) -> Floats:
        return check_rows(transform.apply(job.rows(which)), job.ids[which])

    return dataclasses.replace(job, trained=Trained(job.trained.input, transform.stages), rows=rows)


def _write(job: Job, output: Path) -> None:
    kind = job.choice.kind
    if kind not in ("sq8", "sq4", "hrq"):
        write_streamed(job, output)
        return
    sample = steadily(job.ids, RANGE_ROWS)
    parts = (job.rows(sample[block]) for block in blocks(len(sample), job.trained.dimension))
    trained = dataclasses.replace(job.trained, range=learned_range(kind, parts))
    job = dataclasses.replace(job, trained=trained)
    if kind == "hrq":
        write_whole(job, output)
    else:
        write_streamed(job, output)
