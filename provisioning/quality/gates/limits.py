"""Thresholds from flight.toml, each with a default and a next step; every failed gate is named in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, NamedTuple

from provisioning.base.errors import GateError
from provisioning.catalogue import Corpus
from provisioning.config import Backbone
from provisioning.config.check import BUILTINS
from provisioning.config.schema import Gates, Waiver
from provisioning.flight.manifest import GateEntry
from provisioning.quality.gates.values import Figure, Requirements

COSINE = MappingProxyType({"fp32": Decimal("0.9999"), "fp16": Decimal("0.999"), "int8": Decimal("0.97")})
AGREEMENT = MappingProxyType({"fp32": Decimal("0.99"), "fp16": Decimal("0.97"), "int8": Decimal("0.85")})
BATCH_DIFFERENCE = MappingProxyType({"fp32": Decimal("0.0001"), "fp16": Decimal("0.005"), "int8": Decimal("0.02")})
"""Largest difference of one component between a tile alone and in a batch; kernels for other batch sizes may round
otherwise, a network that looks at its neighbours differs by far more."""

BETTER = (
    "take a backbone trained to recognise places (flightcache init --backbone), tiles of a finer zoom, or "
    "index.rotations where the heading is not known; see docs/evaluation.md"
)


class Limit(NamedTuple):
    """What a figure is held to, and what to do where it fails. No `threshold`: the figure is only reported."""

    threshold: Decimal | None
    at_least: bool
    next_step: str
    action: Literal["fail", "warn"] = "fail"

    def holds(self, measured: Decimal) -> bool:
        """Return whether `measured` passes."""
        assert self.threshold is not None
        return measured >= self.threshold if self.at_least else measured <= self.threshold


def network_limits(gates: Gates, backbone: Backbone) -> Mapping[str, Limit]:
    """Return the limits of what is measured with the network and the index.

    A network that the user chose must recognise. The built-in one is what a bare machine has: it builds, and it says
    what it cannot do.
    """
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


def family(gate: str) -> str:
    """Return the name by which a gate is waived: `coverage` for `coverage.z15`."""
    return gate.partition(".")[0]


def enforce(
    figures: Mapping[str, Figure], limits: Mapping[str, Limit], waivers: Sequence[Waiver] = ()
) -> Mapping[str, GateEntry]:
    """Return the Manifest entry of each figure; GateError lists every gate that failed and is not waived.

    A figure that has a threshold and could not be measured warns. A figure without a limit, or a limit without a
    figure, is a mistake of the caller and raises ValueError: nothing passes by being forgotten.
    """
    if figures.keys() != limits.keys():
        raise ValueError(f"figures and limits differ: {sorted(figures.keys() ^ limits.keys())}")
    waived = {waiver.gate for waiver in waivers}
    verdicts = {name: _verdict(figures[name], limits[name], waived={name, family(name)} & waived) for name in figures}
    failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
    if failed:
        raise _failure(failed, figures, limits)
    return {name: _entry(figures[name], limits[name], verdicts[name]) for name in sorted(figures)}


def _verdict(figure: Figure, limit: Limit, *, waived: set[str]) -> str:
    if limit.threshold is None:
        return "pass"
    if figure.measured is None:
        return "warn"
    if limit.holds(Decimal(figure.measured)):
        return "pass"
    return "waived" if waived else limit.action


def _entry(figure: Figure, limit: Limit, verdict: str) -> GateEntry:
    threshold = None if limit.threshold is None else f"{limit.threshold.normalize():f}"
    assert verdict in ("pass", "warn", "waived")
    return GateEntry(figure.measured, threshold, verdict, figure.detail)  # type: ignore[arg-type]


def _failure(failed: Sequence[str], figures: Mapping[str, Figure], limits: Mapping[str, Limit]) -> GateError:
    facts = {}
    for name in failed:
        figure, limit = figures[name], limits[name]
        side = "at least" if limit.at_least else "at most"
        facts[name] = f"{figure.measured}, {side} {limit.threshold} is asked ({figure.detail}); {limit.next_step}"
    return GateError(
        f"{len(failed)} of {len(figures)} quality gates failed; nothing is published",
        facts=facts,
        next_step="correct what each line says, or pass a gate over knowingly with [[waiver]] gate, by, reason",
    )
