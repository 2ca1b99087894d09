"""What decides a gate result besides engines and index: thresholds, waivers, sample, age of the imagery."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

from provisioning.base.hashing import Fact
from provisioning.catalogue import Corpus
from provisioning.config import Flight
from provisioning.index.transform_spec import AUTO
from provisioning.quality.gates.corpus import stale_on

FORMAT = 6
"""Raised when the same input would give other figures or lists."""
TRANSFORM_FORMAT = 1
"""Raised when the same tiles would make `auto` take another transform: with the views, or the rule."""


def gate_facts(flight: Flight, corpus: Corpus | None, *, today: dt.date) -> Mapping[str, Fact]:
    """Return the facts of the gates of `corpus`; of `today` only whether the imagery has become too old counts."""
    policy = flight.sector.get(flight.flight.sector_class)
    return {
        "format": FORMAT,
        "gates": dataclasses.asdict(flight.gates),
        "min_coverage": {str(zoom): share for zoom, share in flight.area.min_coverage.items()},
        "waivers": tuple(dataclasses.asdict(waiver) for waiver in flight.waiver),
        "sector": dataclasses.asdict(policy) if policy else None,
        "required_missing": corpus.required_missing if corpus else None,
        "area": corpus.area_sha256 if corpus else None,
        "captured": (corpus.oldest_capture, corpus.undated) if corpus else None,
        "stale": stale_on(flight, corpus, today=today) if corpus else None,
    }


def transform_facts(flight: Flight) -> Mapping[str, Fact]:
    """Return what decides the transform that `auto` takes beside tiles and network; nothing where one is named."""
    if flight.index.transform != AUTO:
        return {}
    return {"transform_choice": (TRANSFORM_FORMAT, flight.gates.samples, flight.gates.heading)}
