"""The steps of a build as plain functions of a request; rules/ declares when each runs."""

from provisioning.steps.corpus import build_index, describe, measure, survey
from provisioning.steps.generation import draw_report, publish_staged, stage
from provisioning.steps.housekeeping import record, reset
from provisioning.steps.networks import compile_network, make_onnx

__all__ = [
    "build_index",
    "compile_network",
    "describe",
    "draw_report",
    "make_onnx",
    "measure",
    "publish_staged",
    "record",
    "reset",
    "stage",
    "survey",
]
