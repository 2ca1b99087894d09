"""Descriptors: every tile through the network once, kept under (tile SHA-256, descriptor key) for good.

Importing this package is cheap; `update` and `store` import numpy, and so do the two functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.base.hashing import Sha256
from provisioning.config import Backbone, Flight
from provisioning.descriptors.facts import descriptor_facts, headings, store_path
from provisioning.descriptors.store.receipts import is_described
from provisioning.network.backbone import OnnxSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from provisioning.catalogue import Tile
    from provisioning.descriptors.pipeline.sampling import calibration_digest
    from provisioning.descriptors.pipeline.update import Described
    from provisioning.engines import Backend
else:
    __getattr__ = on_demand(__name__, {"provisioning.descriptors.pipeline.sampling": ["calibration_digest"]})

__all__ = [
    "calibration_digest",
    "decoded_tiles",
    "describe",
    "descriptor_facts",
    "headings",
    "is_described",
    "sample_images",
    "store_path",
]


def describe(flight: Flight, *, engine: bytes, backend: Backend, keys: Sequence[Sha256], overlap: int = 1) -> Described:
    """Compute the descriptors that the corpus lacks. See `update.describe`."""
    from provisioning.descriptors.pipeline.update import describe as work

    return work(flight, engine=engine, backend=backend, keys=keys, overlap=overlap)


def decoded_tiles(flight: Flight) -> AbstractContextManager[Callable[[Tile], npt.NDArray[np.uint8]]]:
    """Open the corpus to decode tiles as they are. See `decoders.decoded_tiles`."""
    from provisioning.descriptors.pipeline.decoders import decoded_tiles as work

    return work(flight)


def sample_images(
    flight: Flight, backbone: Backbone, source: OnnxSource, count: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield corpus tiles as `backbone` takes them. See `samples.sample_images`."""
    from provisioning.descriptors.pipeline.samples import sample_images as work

    return work(flight, backbone, source, count)
