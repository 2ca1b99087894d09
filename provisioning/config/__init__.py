"""flight.toml as frozen values."""

from provisioning.base.geometry.angles import BBox, Origin
from provisioning.config.schema import (
    Area,
    AreaPart,
    Backbone,
    BuildSettings,
    Calibration,
    Engine,
    Flight,
    FlightIdentity,
    Gates,
    Index,
    Sector,
    Selection,
    Signing,
    Tiles,
    TileSource,
    Waiver,
)

__all__ = [
    "Area",
    "AreaPart",
    "BBox",
    "Backbone",
    "BuildSettings",
    "Calibration",
    "Engine",
    "Flight",
    "FlightIdentity",
    "Gates",
    "Index",
    "Origin",
    "Sector",
    "Selection",
    "Signing",
    "TileSource",
    "Tiles",
    "Waiver",
]
