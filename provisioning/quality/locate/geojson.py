"""Matches as GeoJSON: a point for each position found and each known one, a line between them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.quality.locate.search import Match


def to_geojson(found: Iterable[tuple[str, Origin | None, tuple[Match, ...]]]) -> bytes:
    """Return a FeatureCollection (RFC 7946) of (photo name, its position if known, its matches)."""
    features = [feature for name, position, matches in found for feature in _features(name, position, matches)]
    return collection(features)


def _features(name: str, position: Origin | None, matches: tuple[Match, ...]) -> Iterator[dict[str, Any]]:
    if position:
        yield feature("Point", degrees(position), {"photo": name, "kind": "position in the photo"})
    for rank, match in enumerate(matches, 1):
        properties = {"photo": name, "kind": "match", "rank": rank, **as_json(match)}
        yield feature("Point", degrees(match.position), properties)
    if position and matches:
        line = [degrees(position), degrees(matches[0].position)]
        yield feature("LineString", line, {"photo": name, "kind": "error", "distance_m": matches[0].distance_m})


def collection(features: list[dict[str, Any]]) -> bytes:
    """Return a FeatureCollection as text, UTF-8 with a final newline."""
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1, sort_keys=True).encode() + b"\n"


def feature(kind: str, coordinates: list[Any], properties: dict[str, Any]) -> dict[str, Any]:
    """Return a feature with a geometry of `kind`, degrees, longitude first."""
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def degrees(origin: Origin) -> list[float]:
    """Return a point as coordinates of a geometry."""
    return [origin.lon_e7 / E7, origin.lat_e7 / E7]


def as_json(match: Match) -> dict[str, object]:
    """Return a match as JSON values; keys are stable."""
    return {
        "tile": f"{match.z}/{match.x}/{match.y}",
        "cut": match.cut,
        "source": match.source,
        "similarity": round(match.similarity, 4),
        "stands_out": round(match.standing, 2),
        "lat": match.position.lat_e7 / E7,
        "lon": match.position.lon_e7 / E7,
        "heading_deg": round(match.heading_deg, 1),
        "distance_m": None if match.distance_m is None else round(match.distance_m, 1),
    }
