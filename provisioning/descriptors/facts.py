"""What decides a descriptor besides the tile's bytes: its key, and the headings at which tiles are described."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from provisioning.base.hashing import Fact, Sha256
from provisioning.config import Backbone
from provisioning.network.backbone import resolved

FORMAT = 1
"""Raised whenever the same tile and engine give another descriptor."""


def heading_names(rotations: int) -> tuple[str, ...]:
    """Return the headings at which a tile is indexed `rotations` times: fractions of a turn clockwise from north.

    In lowest terms, so that equal ones of different counts share their descriptors: 2/4 is 1/2. Without `fractions`,
    which takes a hundredth of bare doit's time to import.
    """
    return "0", *(f"{n // gcd(n, rotations)}/{rotations // gcd(n, rotations)}" for n in range(1, rotations))


def descriptor_facts(
    engine_key: Sha256,
    backbone: Backbone,
    decoder_facts: Mapping[str, Fact],
    dtype: str,
    heading: str,
) -> Mapping[str, Fact]:
    """Return the facts that key a descriptor: engine, how a tile becomes its input, stored precision, heading."""
    return {
        "descriptor_format": FORMAT,
        "engine": engine_key,
        "fit": resolved(backbone).fit_how,
        "decoder": decoder_facts,
        "dtype": dtype,
        "heading": heading,
    }
