"""Thresholds from flight.toml, with the default of each and what to do where it fails."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

from provisioning.catalogue import Corpus
from provisioning.config import Backbone
from provisioning.config.check import BUILTINS
from provisioning.config.schema import Gates
from provisioning.quality.gates.values import Requirements

if TYPE_CHECKING:
    from provisioning.quality.gates.judging import Limit

COSINE = MappingProxyType({"fp32": Decimal("0.9999"), "fp16": Decimal("0.999"), "int8": Decimal("0.97")})
AGREEMENT = MappingProxyType({"fp32": Decimal("0.99"), "fp16": Decimal("0.97"), "int8": Decimal("0.85")})
BATCH_DIFFERENCE = MappingProxyType({"fp32": Decimal("0.0001"), "fp16": Decimal("0.005"), "int8": Decimal("0.02")})
"""Largest difference of one component between a tile alone and in a batch; kernels for other batch sizes may round
otherwise, a network that looks at its neighbours differs by far more."""

BETTER = (
    "take a backbone trained to recognise places (flightcache init --backbone), tiles of a finer zoom, or "
    "index.rotations where the heading is not known; see docs/evaluation.md"
)


def network_limits(gates: Gates, backbone: Backbone) -> Mapping[str, Limit]:
    """Return the limits of what is measured with the network and the index.

    A network that the user chose must recognise. The built-in one is what a bare machine has: it builds, and it says
    what it cannot do.
    """
    from provisioning.quality.gates.judging import Limit

    precision = backbone.precision
    engine = "rebuild the engine (doit clean engine && doit), try precision fp32 or keep_fp32, or report the compiler"
    return {
        "fidelity.cosine": Limit(gates.fidelity_cosine.get(precision, COSINE[precision]), True, engine),  # noqa: FBT003
        "fidelity.agreement": Limit(
            gates.fidelity_agreement.get(precision, AGREEMENT[precision]), at_least=True, next_step=engine
        ),
        "batch_invariance": Limit(
            BATCH_DIFFERENCE[precision],
            at_least=False,
            next_step="export the network without batch statistics or dynamic quantisation, or set engine.batch = 1",
        ),
        "index_recall": Limit(
            gates.index_recall,
            at_least=True,
            next_step='take a finer index.kind ("sq8", "sqfp16", "flat") or keep more components in index.transform',
        ),
        "recognition": Limit(
            gates.recognition,
            at_least=True,
            next_step=BETTER,
            action="warn" if backbone.onnx in BUILTINS else "fail",
        ),
        "recognition.any_heading": Limit(
            None if gates.heading == "known" else gates.recognition, at_least=True, next_step=BETTER, action="warn"
        ),
        "degenerate": Limit(
            gates.max_degenerate,
            at_least=False,
            next_step="leave out areas without texture (water, snow), or take a backbone that tells them apart",
        ),
        "distinct": Limit(
            Decimal("0.000001"),
            at_least=True,
            next_step="the network answers the same for every tile: check its weights and the preprocessing declared",
        ),
    }


def corpus_limits(asked: Requirements, corpus: Corpus) -> Mapping[str, Limit]:
    """Return the limits of coverage at each zoom and of the age of the imagery."""
    from provisioning.quality.gates.judging import Limit

    finest = max(corpus.per_zoom, default=0)
    limits = {
        f"coverage.z{zoom}": Limit(
            asked.min_coverage.get(zoom, Decimal(1) if zoom == finest else Decimal(0)),
            at_least=True,
            next_step="add the missing tiles (coverage.geojson shows the holes), or set area.min_coverage",
        )
        for zoom in corpus.per_zoom
    }
    if corpus.required:
        limits["coverage.required"] = Limit(
            Decimal(1), at_least=True, next_step="add these tiles: without them the flight is blind there"
        )
    most = asked.policy.max_age_days
    limits["freshness"] = Limit(
        None if most is None else Decimal(most),
        at_least=False,
        next_step=f"get newer imagery for sector class {asked.sector_class}, or set tiles.source.captured",
        action=asked.policy.action,
    )
    return limits
