"""report.html and coverage.geojson: what the aircraft will know, for people."""

from provisioning.report.changes import changes
from provisioning.report.geojson import coverage_geojson
from provisioning.report.map.mosaic import (
    MOST_PICTURED,
    Thumbnail,
    make_mosaic,
    mosaic_places,
    mosaic_zoom,
    small_picture,
)
from provisioning.report.map.tilemap import Run, tile_map
from provisioning.report.model import (
    Cell,
    Change,
    Failure,
    LonLat,
    Mosaic,
    Picture,
    ReportModel,
    SkippedTile,
    SourceRow,
    Step,
    TileMap,
    TileMark,
)
from provisioning.report.page import render

__all__ = [
    "MOST_PICTURED",
    "Cell",
    "Change",
    "Failure",
    "LonLat",
    "Mosaic",
    "Picture",
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
    "small_picture",
    "tile_map",
]
