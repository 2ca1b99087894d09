"""Tiles seen as in flight, through the network and the index; and whether the index finds what exact search does."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import GateError
from provisioning.base.events import progress
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.index.ids import Floats, Int64s
from provisioning.index.read import search
from provisioning.index.transform.space import into_space
from provisioning.index.write.stream import blocks
from provisioning.quality.gates.cached import cached_store
from provisioning.quality.gates.perturb import VIEWS, Colours, colours_of
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure, decimal

NEIGHBOURS = 10
TIE = 1e-5
"""Neighbours whose exact scores differ by less are equally good."""
BLOCK_BYTES = 16 << 20
MOST_THREADS = 8
FORMAT = b"flight-cache-query/3"
FIRST_ASKED = 32
"""Tiles after which it is asked whether the others can still change what is said of the network."""


@dataclass(frozen=True, eq=False)
class Views:
    """Descriptors of perturbed views, float32 [perturbations, sample, d], and what the index found for each.

    `found` int64 [perturbations, sample, k] ids; `truth` int64 [sample] ids of the tiles seen.
    """

    names: tuple[str, ...]
    queries: Floats
    found: Int64s
    truth: Int64s


def retrieve_views(subject: Subject, is_decided: Callable[[Views], bool]) -> Views:
    """Take perturbed views of the sample through network and index; of its first tiles only, where these decide."""
    views = _retrieve(subject, subject.sample[:FIRST_ASKED])
    rest = subject.sample[FIRST_ASKED:]
    if not len(rest) or is_decided(views):
        return views
    more = _retrieve(subject, rest)
    return Views(
        views.names,
        np.concatenate([views.queries, more.queries], axis=1),
        np.concatenate([views.found, more.found], axis=1),
        np.concatenate([views.truth, more.truth]),
    )


def _retrieve(subject: Subject, rows: Int64s) -> Views:
    described = described_views(subject, rows)
    _, ids = search(subject.index, described.reshape(-1, described.shape[-1]), NEIGHBOURS)
    found = ids.reshape(*described.shape[:2], -1)
    return Views(tuple(VIEWS), described, found, subject.rows.ids[rows])


def described_views(subject: Subject, rows: Int64s) -> Floats:
    """Return the descriptors of every view of `rows`, float32 [perturbations, rows, d]; asks no index."""
    keys = [_key(subject, int(row), name) for name in VIEWS for row in rows]
    described = _described(subject, rows, keys)
    if not np.isfinite(described).all():
        raise GateError(
            "the network gives a descriptor that is not finite for a perturbed tile",
            next_step="compile it with precision fp32, or keep the overflowing nodes in fp32 with keep_fp32",
        )
    return described.reshape(len(VIEWS), len(rows), -1)


def _key(subject: Subject, row: int, name: str) -> bytes:
    """Return the digest of everything that decides a view: the tiles around, how it is seen, the colours lent to it."""
    digest = hashlib.sha256(FORMAT + name.encode() + subject.number(row).to_bytes(8, "big"))
    for near in (*subject.neighbours(row), subject.lender(row)):
        digest.update(b"\0" * 32 if near is None else subject.rows.shas[near].tobytes())
    return digest.digest()


def _described(subject: Subject, rows: Int64s, keys: list[bytes]) -> Floats:
    """Return the descriptors of the views `keys` (perturbation-major), computing those not kept from last time."""
    with cached_store(subject) as store:
        return _through(subject, rows, keys, store)


def _through(subject: Subject, rows: Int64s, keys: list[bytes], store: DescriptorStore | None) -> Floats:
    """Return the descriptors of `keys`; those that `store` lacks go through the network, a tile's views at a time."""
    wanted = set(keys if store is None else store.missing(keys))
    count = len(rows)
    columns = [column for column in range(count) if wanted.intersection(keys[column::count])]
    columns.sort(key=lambda column: int(rows[column]))  # neighbours after each other share decoded tiles
    found: dict[bytes, Floats] = {}
    for done, (column, vectors) in enumerate(zip(columns, _all_views(subject, rows[columns]), strict=True), start=1):
        found.update(zip(keys[column::count], vectors, strict=True))
        progress("gates", done, len(columns), unit="tiles")
    if store is None:
        return np.stack([found[key] for key in keys])
    new = [key for key in found if key in wanted]
    if new:
        store.append(new, np.stack([found[key] for key in new]))
    return store.gather(keys)


def _all_views(subject: Subject, rows: Int64s) -> Iterator[Floats]:
    """Yield for the tile of each row the descriptors of all its views, float32 [perturbations, d]."""
    local = threading.local()

    def described(row: int) -> Floats:
        if not hasattr(local, "network"):
            local.network = subject.network.clone()
        scene, number, colours = subject.scene(row), subject.number(row), _colours(subject, row)
        images = [subject.seen(perturb(scene, number, colours)) for perturb in VIEWS.values()]
        found: Floats = local.network(np.stack(images))
        return found

    threads = subject.threads or os.cpu_count() or 1
    with ThreadPoolExecutor(min(threads, MOST_THREADS)) as pool:
        yield from pool.map(described, rows.tolist())


def _colours(subject: Subject, row: int) -> Colours | None:
    """Return the colours of a tile of another source, None where there is none that can be read."""
    lender = subject.lender(row)
    pixels = None if lender is None else subject.pixels_or_none(lender)
    return None if pixels is None else colours_of(pixels)


def index_recall(subject: Subject, views: Views) -> Figure:
    """Return recall@10 of the index against exact search in the space that the index compares in."""
    count = len(views.truth)
    queries = into_space(subject.index, views.queries[0])
    best = np.full((count, 0), 0, np.float32)
    for block in blocks(len(subject.rows.ids), max(queries.shape), BLOCK_BYTES):
        scores = np.concatenate([best, queries @ into_space(subject.index, subject.gather(block)).T], axis=1)
        best = np.partition(scores, -min(NEIGHBOURS, scores.shape[1]), axis=1)[:, -NEIGHBOURS:]
    best = np.sort(best, axis=1)
    found = _scores_of(subject, queries, views.found[0])
    right = found[:, : best.shape[1]] >= best[:, :1] - TIE
    detail = f"share of the ten exact neighbours that the index finds, {count} tiles seen as in flight"
    return Figure(decimal(float(right.mean())), detail)


def _scores_of(subject: Subject, queries: Floats, found: Int64s) -> NDArray[np.float32]:
    """Return the exact scores of the ids found, float32 [q, k]; -inf where nothing was found."""
    rows = np.searchsorted(subject.rows.ids, np.maximum(found, 0).ravel())
    vectors = into_space(subject.index, subject.gather(rows.astype(np.int64)))
    scores = np.einsum("qd,qkd->qk", queries, vectors.reshape(*found.shape, -1))
    return np.where(found < 0, -np.inf, scores).astype(np.float32)
