"""ivf-sq8: 8-bit codes in inverted lists, for millions of vectors; a learned codebook stays, lists are merged."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from provisioning.base.events import progress
from provisioning.index import kmeans, layout
from provisioning.index.codec import encoder
from provisioning.index.ids import Bytes, Int64s
from provisioning.index.kmeans import Labels, Points
from provisioning.index.memo import recall
from provisioning.index.parallel import cores, in_order
from provisioning.index.stream import Job, blocks, write_all


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows of the last index by their place in the new one: list (or -1), and place in that list; where lists begin."""

    file: Bytes
    lists: Labels
    within: Int64s
    begin: Int64s

    def codes(self, number: int, which: Int64s, width: int) -> Bytes:
        """Return the codes of the places `which` in list `number`, uint8 [n, width]."""
        begin = int(self.begin[number])
        found: Bytes = self.file[begin : begin + (int(which.max()) + 1) * width].reshape(-1, width)[which]
        return found


def write_lists(job: Job, centroids: Points, output: Path) -> int:
    """Write an ivf-sq8 index to `output`; return how many rows were assigned and encoded rather than copied."""
    kept = _kept(job, centroids)
    labels = kept.lists.copy()
    fresh = np.flatnonzero(labels < 0)
    with tempfile.TemporaryFile(dir=output.parent) as codes, open(output, "wb", buffering=0) as file:
        labels[fresh] = _encode(job, centroids, fresh, codes)
        sizes = np.bincount(labels, minlength=len(centroids)).astype(np.int64)
        write_all(file, _head(job, centroids, sizes))
        _write_each(job, kept, labels, fresh, codes, file)
    return len(fresh)


def _head(job: Job, centroids: Points, sizes: Int64s) -> bytes:
    count, nprobe = int(sizes.sum()), min(job.choice.nprobe, len(centroids))
    return layout.before_lists(job.trained, kmeans.as_floats(centroids), sizes, vectors=count, nprobe=nprobe)


def _encode(job: Job, centroids: Points, fresh: Int64s, codes: BinaryIO) -> Labels:
    """Assign and encode the rows `fresh`, their codes to the file `codes`; return their lists."""
    encode, nearest = encoder("sq8", job.trained.dimension, job.trained.range), kmeans.finder(centroids)
    labels = np.empty(len(fresh), np.int32)

    def made(block: slice) -> tuple[Labels, Bytes]:
        rows = job.rows(fresh[block])
        return nearest(kmeans.points(rows)), encode(rows)

    cut = list(blocks(len(fresh), job.trained.dimension))
    for block, (found, encoded) in zip(cut, in_order(made, cut, cores()), strict=True):
        labels[block] = found
        codes.write(encoded.data)
        progress("corpus", block.stop, len(fresh), unit="vectors")
    codes.flush()
    return labels


def _write_each(job: Job, kept: Kept, labels: Labels, fresh: Int64s, codes: BinaryIO, file: BinaryIO) -> None:
    """Write list after list: codes, then ids, in the order of ids."""
    width = job.trained.dimension
    new = np.memmap(codes, np.uint8, "r", shape=(len(fresh), width)) if len(fresh) else np.empty((0, width), np.uint8)
    place = np.empty(len(labels), np.int64)
    place[fresh] = np.arange(len(fresh))
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(labels.max() + 1), side="right")
    start = 0
    for number, end in enumerate(ends):
        rows = order[start:end]
        old = kept.lists[rows] >= 0
        found = np.empty((len(rows), width), np.uint8)
        found[~old] = new[place[rows[~old]]]
        if old.any():
            found[old] = kept.codes(number, kept.within[rows[old]], width)
        write_all(file, found.data)
        write_all(file, job.ids[rows].astype("<i8").data)
        start = end


def _kept(job: Job, centroids: Points) -> Kept:
    """Return what of the last index stays: nothing, if its descriptors or its codebook were others."""
    count = len(job.ids)
    lists, within = np.full(count, -1, np.int32), np.zeros(count, np.int64)
    nothing = Kept(np.empty(0, np.uint8), lists, within, np.empty(0, np.int64))
    last = None if job.history is None else recall(job.history.folder)
    if job.history is None or last is None or last.made_by != job.history.made_by:
        return nothing
    mapped = np.memmap(last.path, np.uint8, "r")
    sizes = _sizes_of(mapped, job, centroids, len(last.ids))
    if sizes is None:
        return nothing
    width = job.trained.dimension
    begin = len(_head(job, centroids, sizes)) + np.concatenate([[0], np.cumsum(sizes * (width + 8))])[:-1]
    by_id = np.argsort(_ids(mapped, begin + sizes * width, sizes))
    place = last.place_of(job.ids, job.history.content)
    stayed = place >= 0
    row = by_id[place[stayed]]
    lists[stayed] = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[row]
    within[stayed] = (np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes))[row]
    return Kept(mapped, lists, within, begin)


def _sizes_of(mapped: Bytes, job: Job, centroids: Points, count: int) -> Int64s | None:
    """Return the size of each list of the last index; None if it is another index."""
    nlist = len(centroids)
    full = np.zeros(nlist, np.int64)
    full[0] = count
    head = len(_head(job, centroids, full)) - len(layout.list_sizes(full))
    sizes = layout.read_list_sizes(mapped[head : head + 16 + 16 * nlist].tobytes(), nlist)
    if sizes is None or sizes.sum() != count:
        return None
    start = _head(job, centroids, sizes)
    return sizes if mapped[: len(start)].tobytes() == start else None


def _ids(mapped: Bytes, places: Int64s, sizes: Int64s) -> Int64s:
    """Return the ids of the last index, list by list; those of a list begin at its one of `places`."""
    parts = [mapped[at : at + 8 * size] for at, size in zip(places.tolist(), sizes.tolist(), strict=True)]
    return np.concatenate(parts).view("<i8")
