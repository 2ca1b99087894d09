"""What a build takes of which nothing is remembered: from a short trial of its network on this computer."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.errors import Error
from provisioning.build.request import Request
from provisioning.catalogue import iter_tiles, open_reader
from provisioning.config import Tiles
from provisioning.network import apart
from provisioning.network.backbone import resolved
from provisioning.network.shape import Shape

if TYPE_CHECKING:
    from provisioning.network.rehearsal import Rehearsal

TILES = 8
RUNS_OF_A_SAMPLE = 8
"""Images of a sampled tile that go through the network: two views, and four for fidelity, two of them not optimised."""


@dataclass(frozen=True)
class Estimate:
    """Seconds by task, for `descriptors` those of one descriptor; or why there are none.

    shape: of the descriptor network; None where only a build learns it.
    """

    shape: Shape | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    why_not: str = ""


class _Seen(NamedTuple):
    """Seconds to read, decode and fit a tile, and to make all the views of it that the gates look up."""

    decode_s: float
    views_s: float


def estimate(request: Request, build_dir: Path) -> Estimate:
    """Try the descriptor network for about two seconds, and decode a few tiles of the catalogue in `build_dir`.

    What cannot be tried is unknown and says why; only a network without a shape is an error. Raises BackboneError.
    """
    network = request.descriptor_network
    if network.host.backend != "onnxruntime" or request.flight.engine.command:
        return Estimate(_shape(request), why_not=f"{network.host.backend} has to compile {network.name} first")
    try:
        tried = apart.rehearsed(network.backbone, network.source)
        seen = _seen(request.flight.tiles, build_dir, resolved(network.backbone).fit_how, tried.shape)
    except (Error, OSError, MemoryError) as error:
        what = error.what if isinstance(error, Error) else str(error) or "not enough memory"
        return Estimate(_shape(request), why_not=f"{network.name} could not be tried: {what}")
    return Estimate(tried.shape, _seconds(request, tried, seen))


def _shape(request: Request) -> Shape:
    network = request.descriptor_network
    return network.shape or Shape(*apart.measured(network.backbone, network.source))


def _seconds(request: Request, tried: Rehearsal, seen: _Seen) -> dict[str, float]:
    flight, name = request.flight, request.descriptor_network.name
    threads = flight.descriptors.threads or len(os.sched_getaffinity(0))
    sampled = min(flight.gates.samples, request.tiles.count)
    looks = (
        9 * seen.decode_s + seen.views_s + RUNS_OF_A_SAMPLE * tried.each_s
    )  # a tile is seen with the eight around it
    return {
        f"onnx:{name}": tried.prepare_s,
        f"engine:{name}": tried.open_s,
        "descriptors": (tried.each_s + seen.decode_s / flight.index.rotations) / threads,
        "gates": sampled * looks / threads,
    }


def _seen(tiles: Tiles, build_dir: Path, how: str, shape: Shape) -> _Seen:
    """Decode a few tiles, and look at the last of them as the gates do. TileError if one cannot be read."""
    import numpy as np

    from provisioning.catalogue import decode
    from provisioning.quality.gates.perturb import VIEWS
    from provisioning.sources.pixels.fitting import fit

    some = list(itertools.islice(iter_tiles(build_dir), TILES))
    with open_reader(tiles.source, build_dir) as reader:
        began = time.perf_counter()
        for tile in some:
            pixels = decode(reader.read(tile), max_pixels=tiles.max_pixels)
            fit(pixels, shape[:2], how)
    decoded = time.perf_counter()
    scene = np.pad(pixels, [(side // 2, side // 2) for side in pixels.shape[:2]] + [(0, 0)], mode="symmetric")
    for view in VIEWS.values():
        fit(view(scene, 0, None), shape[:2], how)
    return _Seen((decoded - began) / len(some), time.perf_counter() - decoded)
