"""Numbers as people's programs write them: with a decimal point, or a comma where the country has it."""

from __future__ import annotations

import math
from pathlib import Path

from provisioning.base.errors import AreaError


def degrees(text: str | None, path: Path, where: str) -> float:
    """Return a number; AreaError if `text` is none."""
    number = number_in(text)
    if number is None:
        raise AreaError(
            f"{where} is not a position", file=path, facts={"found": f"{text!r:.40}"},
            next_step="write it as decimal degrees of WGS 84",
        )  # fmt: skip
    return number


def number_in(text: str | None) -> float | None:
    """Return the finite number in `text`, None if there is none."""
    try:
        found = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
