"""Descriptors: every tile through the network once, kept under (tile SHA-256, descriptor key) for good.

Importing this package is cheap; `pipeline` and `store` import numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.descriptors.facts import descriptor_facts, heading_names
from provisioning.descriptors.store.receipts import is_described

if TYPE_CHECKING:
    from provisioning.descriptors.pipeline.decoders import decoded_tiles
    from provisioning.descriptors.pipeline.samples import sample_images
    from provisioning.descriptors.pipeline.sampling import calibration_digest
    from provisioning.descriptors.pipeline.update import Engine, Wanted, describe
else:
    __getattr__ = on_demand(
        __name__,
        {
            "provisioning.descriptors.pipeline.decoders": ["decoded_tiles"],
            "provisioning.descriptors.pipeline.samples": ["sample_images"],
            "provisioning.descriptors.pipeline.sampling": ["calibration_digest"],
            "provisioning.descriptors.pipeline.update": ["Engine", "Wanted", "describe"],
        },
    )

__all__ = [
    "Engine",
    "Wanted",
    "calibration_digest",
    "decoded_tiles",
    "describe",
    "descriptor_facts",
    "heading_names",
    "is_described",
    "sample_images",
]
