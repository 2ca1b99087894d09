"""What decides a gate result besides engines and index: thresholds, waivers, sample, age of the imagery."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

from provisioning.base.hashing import Fact
from provisioning.catalogue import Corpus
from provisioning.config import Index
from provisioning.config.schema import Gates
from provisioning.index.transform.spec import AUTO
from provisioning.quality.gates.corpus import stale_on
from provisioning.quality.gates.values import Requirements

FORMAT = 6
"""Raised when the same input would give other figures or lists."""
TRANSFORM_FORMAT = 1
"""Raised when the same tiles would make `auto` take another transform: with the views, or the rule."""


def gate_facts(asked: Requirements, corpus: Corpus | None, *, today: dt.date) -> Mapping[str, Fact]:
    """Return the facts of the gates of `corpus`; of `today` only whether the imagery has become too old counts."""
    return {
        "format": FORMAT,
        "gates": dataclasses.asdict(asked.gates),
        "min_coverage": {str(zoom): share for zoom, share in asked.min_coverage.items()},
        "waivers": tuple(dataclasses.asdict(waiver) for waiver in asked.waivers),
        "sector": dataclasses.asdict(asked.sector) if asked.sector else None,
        "required_missing": corpus.required_missing if corpus else None,
        "area": corpus.area_sha256 if corpus else None,
        "captured": (corpus.oldest_capture, corpus.undated) if corpus else None,
        "stale": stale_on(corpus, asked.policy, today=today) if corpus else None,
    }


def transform_facts(index: Index, gates: Gates) -> Mapping[str, Fact]:
    """Return what decides the transform that `auto` takes beside tiles and network; nothing where one is named."""
    if index.transform != AUTO:
        return {}
    return {"transform_choice": (TRANSFORM_FORMAT, gates.samples, gates.heading)}
