"""The tiles that a flight would not find, each beside the tile that it was taken for."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from html import escape

from provisioning.base.geometry import geo
from provisioning.report.html import Markup, paragraph, section
from provisioning.report.map import mercator
from provisioning.report.map.mosaic import MOST_PICTURED, PICTURE_SIDE
from provisioning.report.model import Failure, Picture, ReportModel


def failures(model: ReportModel) -> str:
    """Return the section; an empty string where every tile was found or none was asked for."""
    if not model.failures:
        return ""
    pictured = model.failures[:MOST_PICTURED]
    said = paragraph(
        f"Of the tiles that were looked up as a flight sees them, {len(model.failures)} were not found. "
        "Left: the tile. Right: the tile that the index gave instead. The map marks them, too."
    )
    rest = len(model.failures) - len(pictured)
    more = paragraph(f"{rest} more without picture; the map marks them.", "soft") if rest else ""
    return section("failures", "Tiles not recognised", said, _pairs(pictured), more)


def _pairs(pictured: Iterable[Failure]) -> Markup:
    items = "".join(
        f'<li><div class="pair">{_image(failure.tile)}<span aria-hidden="true">→</span>{_image(failure.taken_for)}'
        f"</div><p>{escape(_caption(failure))}</p></li>"
        for failure in pictured
    )
    return Markup(f'<ul class="mistakes">{items}</ul>')


def _image(picture: Picture) -> str:
    name = escape(f"{place(picture)} of {picture.source}")
    if picture.jpeg is None:
        return f'<span class="no-picture">{name}: cannot be read</span>'
    data = base64.b64encode(picture.jpeg).decode()
    size = f'width="{PICTURE_SIDE}" height="{PICTURE_SIDE}"'
    return f'<img {size} alt="{name}" title="{name}" src="data:image/jpeg;base64,{data}">'


def _caption(failure: Failure) -> str:
    away = mercator.distance(distance_m(failure.tile, failure.taken_for))
    source = f" of {failure.taken_for.source}" if failure.taken_for.source != failure.tile.source else ""
    return f"{place(failure.tile)} taken for {place(failure.taken_for)}{source}, {away} away: {failure.why}"


def place(picture: Picture) -> str:
    """Return the address of a tile for reading."""
    return f"{picture.z}/{picture.x}/{picture.y}"


def distance_m(one: Picture, other: Picture) -> float:
    """Return the distance of two tiles of one zoom level on the ground, metre, by the scale at the first."""
    side = 1 << one.z
    across = abs(one.x - other.x)
    lat_e7 = round(geo.row_edge_deg(one.z, one.y) * geo.E7)
    return math.hypot(min(across, side - across), one.y - other.y) * mercator.metres_per_tile(lat_e7, one.z)
