"""The steps of a build as plain functions of a request; rules/ declares when each runs."""

from provisioning.build.steps.corpus import build_index, check_scan, describe, measure, survey
from provisioning.build.steps.generation import draw_report, publish_generation, walk
from provisioning.build.steps.housekeeping import record, reset
from provisioning.build.steps.networks import compile_network, make_onnx

__all__ = [
    "build_index",
    "check_scan",
    "compile_network",
    "describe",
    "draw_report",
    "make_onnx",
    "measure",
    "publish_generation",
    "record",
    "reset",
    "survey",
    "walk",
]
