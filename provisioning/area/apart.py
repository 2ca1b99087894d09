"""Reading a file that draws an area or a mission, as a call into another process (`base.process.confined`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.area.files import BESIDE
from provisioning.area.shapes import Drawing, Margin, Note, Point, Polygon, Ring
from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Text = tuple[None, NDArray[np.uint8]]

LIMITS = confined.Limits(time_s=120.0)
"""For one file; the largest takes seconds."""
MOST_TEXT_BYTES = 256 << 20
"""JSON of a drawing; the largest that is read, 200 000 points in some shapes each, is about 50 MB."""


def read_area(path: Path) -> Drawing:
    """Return what an area file draws; AreaError. See `area.reading.read_area`."""
    return _apart("the area file", _read_area, path)


def read_mission(path: Path, *, takeoff: Origin | None, diversions: str) -> Drawing:
    """Return what the missions of a file fly; AreaError. See `area.reading.read_mission`."""
    return _apart("the mission", _read_mission, path, takeoff, diversions)


def _apart(name: str, function: Callable[..., Text], path: Path, *arguments: object) -> Drawing:
    """Call `function`, which returns the text of a drawing; AreaError over LIMITS, or if the answer is no drawing."""
    path = path.absolute()
    subject = confined.Subject(name, path, AreaError)
    _, text = confined.call(function, path, *arguments, subject=subject, reads=_reads(path), limits=LIMITS)
    if text.nbytes <= MOST_TEXT_BYTES:
        try:
            return _from_text(text.tobytes())
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError):
            pass  # the parser was taken over
    raise AreaError(f"what was read of {name} is no drawing", file=path,
                    next_step="look at where the file comes from: it may be made to harm")  # fmt: skip


def _reads(path: Path) -> set[Path]:
    """Return what may be opened: the file, and those that belong to a Shapefile, in capitals too."""
    suffixes = [suffix for found in BESIDE.values() for suffix in (*found, ".dbf")]
    return {path, *(path.with_suffix(each) for suffix in suffixes for each in (suffix, suffix.upper()) if path.name)}


def _from_text(data: bytes) -> Drawing:
    """Return the drawing that `_text` wrote; ValueError or TypeError if it is none."""
    lines, polygons, margins, routes, geodesic, takeoff, datum, notes = from_json(data)
    if datum not in (None, "ellipsoid", "amsl", "relative"):
        raise ValueError(datum)
    return Drawing(
        lines=_rings(lines),
        polygons=_polygons(polygons),
        margins=tuple(Margin(_finite(metres), _rings(rings), _polygons(areas)) for metres, rings, areas in margins),
        routes=_rings(routes),
        geodesic=bool(geodesic),
        takeoff=None if takeoff is None else _origin(*takeoff),
        takeoff_datum=datum,
        notes=tuple(Note(str(where), str(what), bool(missing)) for where, what, missing in notes),
    )


def _rings(raw: Iterable[Any]) -> tuple[Ring, ...]:
    return tuple(tuple(Point(_finite(lon), _finite(lat)) for lon, lat in ring) for ring in raw)


def _polygons(raw: Iterable[Any]) -> tuple[Polygon, ...]:
    return tuple(map(_rings, raw))


def _finite(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _origin(lat_e7: Any, lon_e7: Any, alt_mm: Any, alt_datum: Any) -> Origin:
    height = None if alt_mm is None else int(alt_mm)
    return Origin(int(lat_e7), int(lon_e7), height, None if alt_datum is None else str(alt_datum))


# in the other process


def _read_area(path: Path) -> Text:
    from provisioning.area import reading

    return _text(reading.read_area(path))


def _read_mission(path: Path, takeoff: Origin | None, diversions: str) -> Text:
    from provisioning.area import reading

    return _text(reading.read_mission(path, takeoff=takeoff, diversions=diversions))


def _text(drawing: Drawing) -> Text:
    """Return a drawing as JSON, its bytes as an array: it may be longer than an answer in JSON."""
    import numpy as np

    fields = (drawing.lines, drawing.polygons, drawing.margins, drawing.routes, drawing.geodesic, drawing.takeoff,
              drawing.takeoff_datum, drawing.notes)  # fmt: skip
    return None, np.frombuffer(json.dumps(fields, separators=(",", ":")).encode(), np.uint8)
