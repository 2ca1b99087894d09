"""report.html and coverage.geojson: what the aircraft will know, for people."""

from provisioning.report.changes import changes
from provisioning.report.geojson import coverage_geojson
from provisioning.report.model import (
    Cell,
    Change,
    LonLat,
    Mosaic,
    ReportModel,
    SkippedTile,
    SourceRow,
    Step,
    TileMap,
    TileMark,
)
from provisioning.report.mosaic import Thumbnail, make_mosaic, mosaic_places, mosaic_zoom
from provisioning.report.page import render
from provisioning.report.tilemap import Run, tile_map

__all__ = [
    "Cell",
    "Change",
    "LonLat",
    "Mosaic",
    "ReportModel",
    "Run",
    "SkippedTile",
    "SourceRow",
    "Step",
    "Thumbnail",
    "TileMap",
    "TileMark",
    "changes",
    "coverage_geojson",
    "make_mosaic",
    "mosaic_places",
    "mosaic_zoom",
    "render",
    "tile_map",
]
