"""Does the engine compute what the network computes: measured against ONNX Runtime in fp32 on real tiles.

Cosine alone misleads: two unlike tiles under an untrained network have been seen at 0.9993. What matters is whether a
tile that is a little shifted and rotated still finds the neighbours it would have found.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.config import Backbone
from provisioning.engines.ort.onnx_network import OnnxNetwork
from provisioning.engines.spec import Network
from provisioning.network import backbone as backbones

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Images = NDArray[np.uint8]

SHIFT = 0.05
"""Share of the side by which a query is shifted along each axis."""
TURN_DEGREE = 5.0
TIE = 1e-4
"""Neighbours whose reference scores differ by less are equally good: near-duplicate tiles are no errors."""
NEIGHBOURS = 10
CHUNK = 4


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """An engine against the fp32 reference, over `samples` tiles. Cosines and shares lie in [-1, 1] and [0, 1]."""

    samples: int
    non_finite: int
    """Tiles, upright or perturbed, whose descriptor holds NaN or infinity; any is a failure."""
    cosine_min: float
    cosine_p05: float
    cosine_median: float
    agreement: float
    """Share of perturbed tiles whose nearest tile is the one the reference finds."""
    overlap_at_10: float
    """Mean share of the reference's ten nearest that are among the engine's ten nearest."""
    distinct: float
    """1 minus the median cosine between unlike tiles under the engine; 0 means that all descriptors are alike."""

    @property
    def constant(self) -> bool:
        """True where the network answers the same for every tile."""
        return self.samples > 1 and self.distinct < 1e-6


def measure_fidelity(
    reference: Network, engine: Network, images: Images, *, on_progress: Callable[[int, int], None] | None = None
) -> Fidelity:
    """Return how far `engine` is from `reference` on `images` uint8 [n, H, W, 3], n >= 1, of the size they take.

    `on_progress` gets how many of how many images have gone through a network.
    """
    import numpy as np

    queries = np.stack([perturbed(image, number) for number, image in enumerate(images)])
    ran = _Counted(4 * len(images), on_progress)
    expected, expected_queries = (_describe(reference, part, ran) for part in (images, queries))
    actual, actual_queries = (_describe(engine, part, ran) for part in (images, queries))
    finite = np.isfinite(actual).all(1) & np.isfinite(actual_queries).all(1)
    actual, actual_queries = (
        _unit(np.nan_to_num(part, nan=0, posinf=0, neginf=0)) for part in (actual, actual_queries)
    )
    cosines = np.sum(_unit(expected) * actual, axis=1)
    truth, found = expected_queries @ expected.T, actual_queries @ actual.T
    return Fidelity(
        samples=len(images),
        non_finite=int(np.count_nonzero(~finite)),
        cosine_min=float(cosines.min()),
        cosine_p05=float(np.quantile(cosines, 0.05)),
        cosine_median=float(np.median(cosines)),
        agreement=_agreement(truth, found),
        overlap_at_10=_overlap(truth, found),
        distinct=_distinct(actual),
    )


def perturbed(image: Images, number: int) -> Images:
    """Return `image` shifted and turned a little, in one of four directions chosen by `number`; the same each time."""
    import numpy as np
    from PIL import Image

    height, width = image.shape[:2]
    down, right = round(height * SHIFT), round(width * SHIFT)
    margin = max(height, width) // 4
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    angle = TURN_DEGREE if number & 4 else -TURN_DEGREE
    turned = np.asarray(Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR))
    top = margin + (down if number & 1 else -down)
    left = margin + (right if number & 2 else -right)
    return np.ascontiguousarray(turned[top : top + height, left : left + width])


def batch_invariance(network: Network, images: Images) -> float:
    """Return the largest difference of a descriptor element computed alone and in a batch with `images`.

    Above 0 on a CPU, or above rounding on a GPU, a tile's descriptor depends on its neighbours: the network is
    dynamically quantised, or normalises over the batch.
    """
    import numpy as np

    together = network(images)
    alone = np.concatenate([network(image[None]) for image in images])
    return float(np.max(np.abs(together.astype(np.float64) - alone), initial=0))


def reference_network(backbone: Backbone, source: backbones.OnnxSource) -> OnnxNetwork:
    """Return the prepared backbone as ONNX Runtime computes it without fused kernels: what engines are held to."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        backbones.prepare(backbone, source, prepared)
        model = prepared.read_bytes()
        return OnnxNetwork.load(model, custom_ops=backbone.custom_ops, reference=True, weights=source.weights)


class _Counted:
    """Counts the images that went through a network, and says so."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def each(self, parts: Iterable[Floats]) -> Iterator[Floats]:
        """Yield `parts`, counting their rows."""
        for part in parts:
            self._done += len(part)
            if self._on_progress:
                self._on_progress(self._done, self._total)
            yield part


def _describe(network: Network, images: Images, ran: _Counted) -> Floats:
    """Return the descriptors of `images`; on a CPU one call for each core at a time, which changes no bit of them."""
    import numpy as np

    callers = os.cpu_count() if isinstance(network, OnnxNetwork) else 1
    with ThreadPoolExecutor(callers) as pool:
        return np.concatenate(list(ran.each(pool.map(network, _chunks(images)))))


def _chunks(images: Images) -> Iterator[Images]:
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK]


def _unit(rows: Floats) -> Floats:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(norms, np.float32(1e-12))
    return unit


def _agreement(truth: Floats, found: Floats) -> float:
    import numpy as np

    rows = np.arange(len(truth))
    return float(np.mean(truth[rows, found.argmax(1)] >= truth.max(1) - TIE))


def _overlap(truth: Floats, found: Floats) -> float:
    """Return the mean share of `found`'s ten best that score, in `truth`, at least as the tenth best there does."""
    import numpy as np

    count = min(NEIGHBOURS, len(truth))
    tenth = np.sort(truth, axis=1)[:, -count, None]
    best = np.argsort(-found, axis=1, kind="stable")[:, :count]
    return float(np.mean(np.take_along_axis(truth, best, axis=1) >= tenth - TIE))


def _distinct(rows: Floats) -> float:
    import numpy as np

    if len(rows) < 2:
        return 0.0
    above = np.triu_indices(len(rows), 1)
    return float(1 - np.median((rows @ rows.T)[above]))
