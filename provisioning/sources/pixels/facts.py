"""Facts that decide pixels, found without importing what they are about."""

from __future__ import annotations

from functools import cache

from provisioning.base.distributions import installed_version
from provisioning.base.named import NamedTuple

FILL_RULE = "mean-of-opaque/1"
"""How transparent pixels are filled; changed with the rule in `image.py`."""


class InspectionSettings(NamedTuple):
    """What `inspect_tile` takes beside the bytes of a tile."""

    max_pixels: int
    nodata: tuple[int, ...] = ()
    blank: bool = True


def decoder_facts() -> dict[str, str]:
    """Return the versions and rules that decide the pixels `decode` gives; part of every descriptor's key."""
    return {"pillow": _version("pillow"), "simplejpeg": _version("simplejpeg"), "fill": FILL_RULE}


@cache
def _version(package: str) -> str:
    return installed_version(package) or "none"
