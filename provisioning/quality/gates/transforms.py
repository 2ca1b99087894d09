"""`index.transform = "auto"`: the transform under which views of the tiles, and other sources, are found most often.

No transform is taken unless another finds more by twice the standard deviation of chance: of the views that one finds
and the other does not, n in all, the difference has the variance n if neither is better (McNemar 1947). What is
measured follows from the tiles, the network and the sample alone, so that the same tiles give the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from provisioning.index.choice import SAMPLE_ROWS
from provisioning.index.ids import Floats, Int64s, evenly
from provisioning.index.transform.exact import Doubles, product
from provisioning.index.transform.learn import Transform, learn, transform_of
from provisioning.index.transform.spec import LEAST_VECTORS, TransformSpec
from provisioning.index.write.stream import blocks
from provisioning.quality.gates.perturb import ANY_HEADING, KNOWN_HEADING, VIEWS
from provisioning.quality.gates.recognition import Flags, around, paired, place_of, rows_elsewhere
from provisioning.quality.gates.retrieval import described_views
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import decimal

BY_CHANCE = 2.0
"""Standard deviations of chance by which a transform must find more than none."""
MOST_COMPONENTS = 128
LEAST_COMPONENTS = 16
ROWS_EACH = 4
"""Tiles for each component that whitening is learned from, at least: fewer say nothing of small variances."""
NONE = "none"


class Chosen(NamedTuple):
    """A transform as flight.toml would name it, the share of queries that it finds, and why it was chosen."""

    transform: str
    found: str
    reason: str


def choose_transform(subject: Subject) -> Chosen:
    """Return the transform to take for the corpus of `subject`, whose index is not made yet."""
    specs = candidates(len(subject.rows.ids), int(subject.gather(slice(0, 1)).shape[1]))
    learned = [transform_of(learn(TransformSpec.parse(each), lambda: _sample(subject))) for each in specs]
    found = np.concatenate([_views_found(subject, learned), _sources_found(subject, learned)])
    return decided(specs, found)


def _sample(subject: Subject) -> Floats:
    return subject.gather(evenly(len(subject.rows.ids), SAMPLE_ROWS))


def candidates(vectors: int, dimension: int) -> tuple[str, ...]:
    """Return the transforms tried for `vectors` descriptors of `dimension` components, `none` first."""
    most = min(MOST_COMPONENTS, dimension, vectors // ROWS_EACH)
    whitened = (f"pca-whiten({1 << (most.bit_length() - 1)})",) if most >= LEAST_COMPONENTS else ()
    return (NONE, *(("center",) if vectors >= LEAST_VECTORS else ()), *whitened)


def decided(specs: Sequence[str], found: Flags) -> Chosen:
    """Return the best of `specs`, none first, from which queries each finds, bool [queries, specs]."""
    asked = len(found)
    gains = [int(found[:, n].sum()) - int(found[:, 0].sum()) for n in range(len(specs))]
    differ = [int((found[:, n] != found[:, 0]).sum()) for n in range(len(specs))]
    better = [n for n in range(1, len(specs)) if gains[n] > BY_CHANCE * math.sqrt(differ[n])]
    best = max(better, key=lambda n: (gains[n], -n), default=0)
    counts = [f"{specs[n]} {int(found[:, n].sum())}" for n in range(len(specs))]
    why = "more than chance explains" if best else "no other finds more than chance explains"
    share = decimal(float(found[:, best].mean())) if asked else "0"
    return Chosen(specs[best], share, f"{specs[best]}: of {asked} queries are found by {', '.join(counts)}; {why}")


def _views_found(subject: Subject, transforms: Sequence[Transform]) -> Flags:
    """Return which views of the sample are answered with their tile or one beside it, bool [views, transforms]."""
    names = [KNOWN_HEADING] if subject.asked.gates.heading == "known" else [KNOWN_HEADING, ANY_HEADING]
    queries = described_views(subject, subject.sample)[[list(VIEWS).index(name) for name in names]]
    found = np.zeros((len(names), len(subject.sample), len(transforms)), bool)
    for column, row in enumerate(subject.sample):
        rows, beside = around(subject.rows, *place_of(int(subject.rows.ids[row])))
        best = _best(subject, queries[:, column], rows, transforms)
        found[:, column] = beside[best]
    return found.reshape(-1, len(transforms))


def _sources_found(subject: Subject, transforms: Sequence[Transform]) -> Flags:
    """Return which tiles that two sources or dates show are found by one another, bool [tiles, transforms]."""
    answers = [_of_source(subject, int(row), transforms) for row in paired(subject)]
    return np.array(answers, bool).reshape(-1, len(transforms))


def _of_source(subject: Subject, row: int, transforms: Sequence[Transform]) -> Flags:
    rows, right = rows_elsewhere(subject, int(subject.rows.ids[row]))
    query = subject.gather(np.array([row], np.int64))
    return np.asarray(right[_best(subject, query, rows, transforms)[0]])


def _best(subject: Subject, queries: Floats, rows: Int64s, transforms: Sequence[Transform]) -> Int64s:
    """Return for each query and transform the number of the most similar of `rows`, int64 [queries, transforms]."""
    columns = [np.ascontiguousarray(each.apply(queries).T, np.float64) for each in transforms]
    scores = [np.concatenate(parts) for parts in zip(*_scores(subject, columns, rows, transforms), strict=True)]
    return np.stack([each.argmax(axis=0) for each in scores], axis=1).astype(np.int64)


def _scores(
    subject: Subject, columns: Sequence[Doubles], rows: Int64s, transforms: Sequence[Transform]
) -> Iterator[list[Doubles]]:
    """Yield for block after block of `rows` the similarities under each transform, the same on every computer."""
    for block in blocks(len(rows), len(columns[0])):
        vectors = subject.gather(rows[block])
        yield [product(each.apply(vectors), column) for each, column in zip(transforms, columns, strict=True)]
