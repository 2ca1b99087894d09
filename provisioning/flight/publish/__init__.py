"""Generations: staged whole, verified by the caller, committed by one rename of `current`, pruned afterwards.

The order is the promise: files → fsync → directories → fsync → (the caller verifies) → `generations/NNNNNN` → fsync →
rename of `current` → fsync → counter → prune. Whatever is cut off in between, `current` names a whole generation.
All of it happens under the build lock.
"""

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.flight.publish.generations import (
    CURRENT,
    GENERATIONS,
    MANIFEST,
    MANIFEST_FILES,
    SIDECAR,
    SIGNATURE,
    current_generation,
    current_number,
    dir_name,
    earlier_generation,
    next_counter,
    remember,
)
from provisioning.flight.publish.recovery import add_signatures, forget_above, recover, refuse_directory, refuse_links

if TYPE_CHECKING:
    from provisioning.flight.publish.committing import commit, return_to
    from provisioning.flight.publish.staging import rollback, stage
else:
    __getattr__ = on_demand(
        __name__,
        {
            "provisioning.flight.publish.committing": ["commit", "return_to"],
            "provisioning.flight.publish.staging": ["rollback", "stage"],
        },
    )

__all__ = [
    "CURRENT",
    "GENERATIONS",
    "MANIFEST",
    "MANIFEST_FILES",
    "SIDECAR",
    "SIGNATURE",
    "add_signatures",
    "commit",
    "current_generation",
    "current_number",
    "dir_name",
    "earlier_generation",
    "forget_above",
    "next_counter",
    "recover",
    "refuse_directory",
    "refuse_links",
    "remember",
    "return_to",
    "rollback",
    "stage",
]
