"""How long a network takes on this computer, from a few images: what a first `flightcache plan` says of time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from provisioning.config import Backbone
from provisioning.network.backbone import OnnxSource, prepare
from provisioning.network.session import open_session, run_limited
from provisioning.network.shape import Shape, shape_of

WITHIN_S = 2.0
"""Time for all images together, second; at least one is run, however long it takes up to LONGEST_S."""
LONGEST_S = 20.0
MOST_IMAGES = 16


class Rehearsal(NamedTuple):
    """Seconds to prepare the network, to open it, and for one image on one thread."""

    shape: Shape
    prepare_s: float
    open_s: float
    each_s: float


def rehearse(backbone: Backbone, source: OnnxSource, *, clock: Callable[[], float] = time.perf_counter) -> Rehearsal:
    """Prepare the network in fp32, open it and run it on images of noise, one at a time.

    BackboneError as `shape.measure`; EngineError where ONNX Runtime cannot run it, or not within LONGEST_S.
    """
    began = clock()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        prepare(backbone, source, prepared)
        shape, ready = shape_of(prepared), clock()
        graph = prepared.read_bytes()
        session = open_session(graph, backbone.custom_ops, level="ORT_ENABLE_EXTENDED", weights=source.weights)
    opened = clock()
    _run(session, shape)  # the first run also reserves memory
    each = _each(lambda: _run(session, shape), clock)
    return Rehearsal(shape, ready - began, opened - ready, each)


def _run(session: object, shape: Shape) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (1, shape.height, shape.width, 3), dtype=np.uint8)
    (port,) = session.get_inputs()  # type: ignore[attr-defined]
    run_limited(session, None, {port.name: noise}, within_s=LONGEST_S)


def _each(run: Callable[[], None], clock: Callable[[], float]) -> float:
    """Return the median of the runs that fit into WITHIN_S, second; of one at least."""
    took: list[float] = []
    while not took or (sum(took) < WITHIN_S and len(took) < MOST_IMAGES):
        began = clock()
        run()
        took.append(clock() - began)
    return sorted(took)[len(took) // 2]
