"""What decides a descriptor besides the tile's bytes: its key, and the headings at which tiles are described."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from provisioning.base.hashing import Fact, Sha256
from provisioning.config import Backbone
from provisioning.network.backbone import resolved

FORMAT = 1
"""Raised whenever the same tile and engine give another descriptor."""


def headings(rotations: int) -> tuple[Fraction, ...]:
    """Return the headings at which a tile is indexed `rotations` times: fractions of a turn clockwise from north.

    Fractions of different counts that are equal share their descriptors: 1/2 and 2/4 are one key.
    """
    return tuple(Fraction(n, rotations) for n in range(rotations))


def descriptor_facts(
    engine_key: Sha256,
    backbone: Backbone,
    decoder_facts: Mapping[str, Fact],
    dtype: str,
    heading: Fraction,
) -> Mapping[str, Fact]:
    """Return the facts that key a descriptor: engine, how a tile becomes its input, stored precision, heading."""
    return {
        "descriptor_format": FORMAT,
        "engine": engine_key,
        "fit": resolved(backbone).fit_how,
        "decoder": decoder_facts,
        "dtype": dtype,
        "heading": str(heading),
    }
