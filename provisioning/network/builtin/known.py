"""The built-in backbones by name, the one to take on this machine, and what each cannot do; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from provisioning.network.builtin.weights import EFFICIENTNET_LITE0, INSTALL, file_of

EFFICIENTNET = "builtin:efficientnet-lite0"
GIST_COLOR = "builtin:gist-color"
GIST_GRAY = "builtin:gist-gray"

_GIST = (
    "GIST knows a place from straight above and at a known heading only: oblique photos, an unknown heading or another "
    f"season are not found; {INSTALL} brings a network that does better"
)
LIMITS: Mapping[str, str] = {GIST_COLOR: _GIST, GIST_GRAY: _GIST}
"""What a built-in backbone cannot do, in words for whoever plans a flight with it."""


def recommended() -> str:
    """Return the built-in backbone that knows places best of those whose weights are installed here."""
    return EFFICIENTNET if file_of(EFFICIENTNET_LITE0) else GIST_COLOR
