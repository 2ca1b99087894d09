"""A flight as a sequence of photos: the answers of the cache and odometry in a filter, against dead reckoning."""

from provisioning.quality.track.drawing import to_geojson, to_svg
from provisioning.quality.track.figures import Figures, as_json, as_text, figures, per_step
from provisioning.quality.track.fly import Flown, Settings, Step, fly
from provisioning.quality.track.odometry import Leg, simulated

__all__ = [
    "Figures",
    "Flown",
    "Leg",
    "Settings",
    "Step",
    "as_json",
    "as_text",
    "figures",
    "fly",
    "per_step",
    "simulated",
    "to_geojson",
    "to_svg",
]
