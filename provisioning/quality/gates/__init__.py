"""Gates: measured quality below which nothing is published. Importing this package loads neither numpy nor FAISS.

`gates.measure.measure` takes the figures and compares them with the thresholds; `GateResult.to_json` keeps them, `read`
reads them.
"""

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.quality.gates.facts import gate_facts, transform_facts
from provisioning.quality.gates.values import Figure, GateResult, Requirements, entries, read, recognition_of

if TYPE_CHECKING:
    from provisioning.quality.gates.limits import Limit, enforce
else:
    __getattr__ = on_demand(__name__, {"provisioning.quality.gates.limits": ["Limit", "enforce"]})

__all__ = [
    "Figure",
    "GateResult",
    "Limit",
    "Requirements",
    "enforce",
    "entries",
    "gate_facts",
    "read",
    "recognition_of",
    "transform_facts",
]
