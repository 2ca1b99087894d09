"""Heights above mean sea level → heights above the ellipsoid, where a geoid model is installed; nothing is fetched."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from provisioning.base.geometry.angles import Origin

MODELS = (
    ("EGM2008", "us_nga_egm08_25.tif"),
    ("EGM96", "us_nga_egm96_15.tif"),
    ("EGM96", "egm96_15.gtx"),
)
"""Geoid models and the grids of PROJ that hold them, the better one first."""
SYSTEM_FOLDERS = (Path("/usr/share/proj"), Path("/usr/local/share/proj"))


class Converted(NamedTuple):
    """A height above the WGS 84 ellipsoid, millimetre, and the model that it was converted by."""

    alt_mm: int
    model: str


def above_ellipsoid(place: Origin) -> Converted | None:
    """Return the height of a place whose `alt_mm` is above mean sea level; None where no geoid model is installed.

    The model is a grid of PROJ on this computer, read by pyproj: https://proj.org/operations/transformations/vgridshift.html
    """
    if place.alt_mm is None:
        return None
    for model, grid in _grids():
        try:
            import pyproj  # only where there is a grid for it
        except ImportError:
            return None
        shift = pyproj.Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad"
            f' +step +proj=vgridshift +grids="{grid}" +multiplier=1'
        )
        *_, height_m = shift.transform(place.lon_e7 / 1e7, place.lat_e7 / 1e7, place.alt_mm / 1000)
        if math.isfinite(height_m):
            return Converted(round(height_m * 1000), model)
    return None


def installed() -> str | None:
    """Return the name of the geoid model on this computer, None without one."""
    return next((model for model, _ in _grids()), None)


def _grids() -> Iterator[tuple[str, Path]]:
    """Yield model and file of each grid that is here; PROJ cannot be given a path with a quotation mark in it."""
    places = folders()
    for model, name in MODELS:
        for folder in places:
            if (folder / name).is_file() and '"' not in str(folder):
                yield model, folder / name


def folders() -> tuple[Path, ...]:
    """Return the folders in which PROJ's grids may lie: those that the user names, the user's, pyproj's, the system's.

    https://proj.org/resource_files.html
    """
    names = ("PROJ_USER_WRITABLE_DIRECTORY", "PROJ_DATA", "PROJ_LIB")
    named = [Path(part) for name in names for part in os.environ.get(name, "").split(os.pathsep)]
    named.append(Path(os.environ.get("XDG_DATA_HOME") or Path(os.path.expanduser("~")) / ".local" / "share") / "proj")
    spec = find_spec("pyproj")
    named += [Path(place) / "proj_dir" / "share" / "proj" for place in (spec and spec.submodule_search_locations) or ()]
    return (*(folder for folder in named if folder.is_absolute()), *SYSTEM_FOLDERS)
