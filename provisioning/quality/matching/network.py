"""Local features by a network on board: the engine of a backbone of role `matcher`, over images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import EngineError, Error
from provisioning.engines import Network
from provisioning.flight.manifest import EngineEntry, Manifest
from provisioning.flight.verify import Verdict
from provisioning.network.points import BESIDE, MATCHER, POINTS, points_of
from provisioning.quality.locate.search import verified_network
from provisioning.quality.matching.features import CLASSICAL, Extractor, Features, classical

Pixels = NDArray[np.uint8]
Flags = NDArray[np.bool_]
MARGIN = 32
"""Pixels at the inner edges of a window in which its points are left to the window beside it."""
RATIO = 0.95
"""Of XFeat's features nearly twice as many agree at the right place as with ORB's 0.85, and no more at others
(docs/evaluation.md)."""
EDGE = 8
"""Pixels from what is not shown in which there are no points, as with ORB and SIFT."""


def extractor_of(name: str, verdict: Verdict, *, custom_ops: Path | None = None) -> Extractor:
    """Return what finds features under `name`: orb, sift, matcher, or a backbone of that role in a verified cache.

    Error where the cache has none, or several and `name` does not say which; EngineError where it cannot run here.
    """
    if name in CLASSICAL:
        return classical(name)
    return learned(verified_network(verdict, _entry(name, verdict.require()), custom_ops))


def _entry(name: str, manifest: Manifest) -> EngineEntry:
    there = [engine for engine in manifest.engines if engine.role == MATCHER]
    named = there if name == MATCHER else [engine for engine in there if engine.model == name]
    if len(named) == 1:
        return named[0]
    if named:
        raise Error(
            "this cache has several networks that give local features",
            facts={"backbones": ", ".join(engine.model for engine in named)},
            next_step=f"name one: --second-stage {named[0].model}",
        )
    raise Error(
        f"this cache has no network that gives local features{'' if name == MATCHER else f' by the name {name}'}",
        key="backbone.role",
        facts={"backbones of role matcher": ", ".join(engine.model for engine in there) or "none"},
        next_step="name one of these, or orb or sift"
        if there
        else f'add [[backbone]] with role = "{MATCHER}" (docs/backbones.md) and build, or use --second-stage orb',
    )


def learned(network: Network) -> Extractor:
    """Return the features that `network`, a matcher's engine, finds in images of any size, by windows of its own."""
    if network.dimension % POINTS or network.dimension // POINTS <= BESIDE:
        raise EngineError(
            "this engine gives no table of points: its cache was built before matchers were prepared",
            facts={"numbers": network.dimension},
            next_step="build again: doit",
        )

    def extract(image: Pixels, shown: Flags) -> Features:
        allowed = _inside(shown)
        parts = [_of_window(network, image, rows, columns) for rows, columns in _windows(image.shape[:2], network.size)]
        points, scores, descriptors = (np.concatenate(each) for each in zip(*parts, strict=True))
        x, y = np.rint(points).astype(np.int64).T.clip(0, np.array(allowed.shape[::-1])[:, None] - 1)
        kept = np.flatnonzero(allowed[y, x])
        order = kept[np.argsort(-scores[kept], kind="stable")]
        return Features(points[order].astype(np.float64), descriptors[order], RATIO)

    return extract


Span = tuple[int, float, float]
"""Where a window begins, and between which pixels its points count."""


def _of_window(network: Network, image: Pixels, rows: Span, columns: Span) -> tuple[NDArray[np.float32], ...]:
    """Return the points, scores and descriptors of one window, points in pixels of the whole image."""
    (top, above, below), (left, west, east) = rows, columns
    height, width = network.size
    window = image[top : top + height, left : left + width]
    missing = [(0, size - have) for size, have in zip((height, width), window.shape, strict=False)]
    points, scores, descriptors = points_of(network(np.pad(window, (*missing, (0, 0)), mode="symmetric")[None])[0])
    points = points + np.array([left, top], np.float32)
    x, y = points.T
    own = (x >= west) & (x < min(east, image.shape[1])) & (y >= above) & (y < min(below, image.shape[0]))
    return points[own], scores[own], descriptors[own]


def _windows(size: tuple[int, ...], window: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
    """Yield windows that cover an image, each pixel counting in one of them."""
    rows, columns = (list(_spans(length, side)) for length, side in zip(size, window, strict=True))
    yield from ((row, column) for row in rows for column in columns)


def _spans(length: int, side: int) -> Iterator[Span]:
    count = 1 + max(0, -(-(length - side) // (side - 2 * MARGIN)))
    starts = [round(n * (length - side) / max(1, count - 1)) for n in range(count)]
    cuts = [(first + second + side) / 2 for first, second in pairwise(starts)]
    yield from zip(starts, [-np.inf, *cuts], [*cuts, np.inf], strict=True)


def _inside(shown: Flags) -> Flags:
    """Return where everything within EDGE pixels is shown; beyond the image counts as shown."""
    hidden = np.pad(~shown, EDGE).astype(np.int32)
    sums = np.pad(hidden.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    span = 2 * EDGE + 1
    return np.asarray(sums[span:, span:] - sums[:-span, span:] - sums[span:, :-span] + sums[:-span, :-span] == 0)
