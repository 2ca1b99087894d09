"""Gates: measured quality below which nothing is published. Importing this package loads neither numpy nor FAISS.

`gates.measure.measure` takes the figures and compares them with the thresholds; `GateResult.to_json` keeps them, `read`
reads them.
"""

from provisioning.quality.gates.facts import gate_facts, transform_facts
from provisioning.quality.gates.judging import Limit, judge
from provisioning.quality.gates.values import Figure, GateResult, entries, read, recognition_of

__all__ = [
    "Figure",
    "GateResult",
    "Limit",
    "entries",
    "gate_facts",
    "judge",
    "read",
    "recognition_of",
    "transform_facts",
]
