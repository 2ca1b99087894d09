"""Where was this photo taken? Answered by a verified cache, on the ground or in flight."""

from provisioning.quality.locate.asking import Answered, Assumed, Question, answer, look
from provisioning.quality.locate.geojson import as_json, to_geojson
from provisioning.quality.locate.photo import Photo, read_photo, turned_north_up
from provisioning.quality.locate.places import Places, Prior
from provisioning.quality.locate.search import Locator, Match, distance_m, evenly_turned
from provisioning.quality.locate.sheet import Row, contact_sheet, map_tiles

__all__ = [
    "Answered",
    "Assumed",
    "Locator",
    "Match",
    "Photo",
    "Places",
    "Prior",
    "Question",
    "Row",
    "answer",
    "as_json",
    "contact_sheet",
    "distance_m",
    "evenly_turned",
    "look",
    "map_tiles",
    "read_photo",
    "to_geojson",
    "turned_north_up",
]
