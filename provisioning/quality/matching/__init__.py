"""The second stage of `locate`: local features of the photo against the imagery on board, for a position in metres."""

from provisioning.quality.matching.features import CLASSICAL, Features, classical
from provisioning.quality.matching.imagery import Ground, on_board
from provisioning.quality.matching.network import extractor_of, learned
from provisioning.quality.matching.stage import TRIED, Fix, SecondStage

__all__ = [
    "CLASSICAL",
    "TRIED",
    "Features",
    "Fix",
    "Ground",
    "SecondStage",
    "classical",
    "extractor_of",
    "learned",
    "on_board",
]
