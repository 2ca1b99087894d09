"""What a Manifest can hold: asked of flight.toml before a build, and of the Manifest by every reader."""

from __future__ import annotations

MAX_FILES = 512
"""Files of a generation beside the Manifest's own three."""
MAX_TEXT = 4096
"""Characters of a reason, a name of a person, or a detail of a gate."""
MAX_SOURCES = 256
"""A source's number has 8 bits in the ids of the index."""
MAX_WAIVERS = 64
MAX_DECIMALS = 18
"""Digits behind the point of a figure or a threshold."""
