"""Take every figure, compare it with its threshold, and return what is recorded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial

from provisioning.base.events import event, progress
from provisioning.config import Backbone
from provisioning.engines import Network
from provisioning.engines.accuracy.fidelity import Fidelity, batch_invariance, measure_fidelity
from provisioning.engines.vehicle.returned import GOLDEN_COSINE
from provisioning.quality.gates.cached import cached
from provisioning.quality.gates.corpus import corpus_figures
from provisioning.quality.gates.degenerate import degenerate, distinct
from provisioning.quality.gates.limits import Limit, corpus_limits, enforce, network_limits
from provisioning.quality.gates.recognition import is_decided, recognition
from provisioning.quality.gates.retrieval import index_recall, retrieve_views
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure, GateResult, decimal

BATCH = 8
FIRST_COMPARED = 16
"""Tiles on which an engine is compared first; all of the sample, unless these leave no doubt."""


def measure(
    subject: Subject,
    reference: Callable[[], Network],
    *,
    backbone: Backbone,
    today: dt.date,
    stands_for: str = "engine",
    calibration: str | None = None,
    on_target: tuple[int, str] | None = None,
) -> GateResult:
    """Return every gate of `subject` with its verdict; GateError lists all that failed.

    `backbone` is the one that describes. `reference` gives the network in fp32 as the engine is held to it.
    `stands_for`: `engine`, or `typed` where the engine is for another computer and its ONNX was run
    instead. `calibration` is the digest of the tiles that gave an int8 network its ranges; it goes on record with the
    fidelity. `on_target`: golden tiles that an engine compiled on its target was tried on there, and their least cosine
    to what its ONNX gives.
    """
    views = retrieve_views(subject, partial(is_decided, subject))
    recognised = recognition(subject, views)
    bad, named = degenerate(subject)
    asked = subject.asked
    limits = {**corpus_limits(asked, subject.corpus), **network_limits(asked.gates, backbone)}
    least = limits["fidelity.cosine"].threshold or Decimal(0)
    figures: dict[str, Figure] = {
        **corpus_figures(subject.corpus, asked.policy, today=today),
        **cached(subject, stands_for, lambda: _fidelity(subject, reference(), least, stands_for, calibration)),
        **cached(subject, "batch", lambda: {"batch_invariance": _batch(subject)}),
        "index_recall": index_recall(subject, views),
        **recognised.figures,
        "degenerate": bad,
        "distinct": distinct(subject),
    }
    if on_target is not None:
        said = f"least cosine of the engine, run on its target, against its ONNX, {on_target[0]} tiles"
        figures["fidelity.target"] = Figure(on_target[1], said)
        limits["fidelity.target"] = limits["fidelity.cosine"]._replace(
            threshold=Decimal(str(GOLDEN_COSINE[backbone.precision]))
        )
    if subject.transform is not None:
        figures["transform"], limits["transform"] = subject.transform, Limit(None, at_least=True, next_step="")
    entries = enforce(figures, limits, asked.waivers)
    for name, entry in entries.items():
        event("gate", gate=name, **entry._asdict())
    return GateResult(entries, {"recognition": recognised.table}, {"degenerate": named}, recognised.missed)


def _fidelity(
    subject: Subject, reference: Network, limit: Decimal, stands_for: str, calibration: str | None
) -> Mapping[str, Figure]:
    compare = partial(
        measure_fidelity,
        reference,
        subject.network,
        on_progress=lambda done, all_: progress("gates", done, all_, unit="runs"),
    )
    found = compare(subject.first_images(FIRST_COMPARED))
    if not _is_beyond_doubt(found, limit):
        found = compare(subject.images)
    what = "the engine" if stands_for == "engine" else "the ONNX it was compiled from (the engine cannot run here)"
    cosine = f"median cosine of {what} against fp32, {found.samples} tiles; least {decimal(found.cosine_min, 5)}"
    if calibration is not None:
        cosine += f"; calibrated on the tiles with digest {calibration}"
    agreement = f"share of perturbed tiles with the same neighbour; ten nearest agree to {decimal(found.overlap_at_10)}"
    if found.non_finite:
        bad = f"{found.non_finite} of {found.samples} descriptors are not finite"
        return {"fidelity.cosine": Figure("-1", bad), "fidelity.agreement": Figure("0", bad)}
    return {
        "fidelity.cosine": Figure(decimal(found.cosine_median, 5), cosine),
        "fidelity.agreement": Figure(decimal(found.agreement), agreement),
    }


def _is_beyond_doubt(found: Fidelity, limit: Decimal) -> bool:
    """Return whether an engine is so near to its reference that no other tile can show a difference that matters."""
    allowed = float(1 - limit) / 100
    return not found.non_finite and found.agreement == 1 and found.cosine_min >= 1 - allowed


def _batch(subject: Subject) -> Figure:
    images = subject.first_images(BATCH)
    worst = batch_invariance(subject.network, images)
    return Figure(decimal(worst, 7), f"largest difference of a component, {len(images)} tiles alone and in one batch")
