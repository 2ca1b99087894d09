"""Presets are what the authors' code does: one row of the page for each, and the keys that it fills."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from provisioning.config import Backbone
from provisioning.config.check import PRESETS as NAMES
from provisioning.network.backbone.presets import PRESETS, resolved

PAGE = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text()


def test_configuration_and_network_know_the_same_presets():
    assert set(NAMES) - {""} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_has_its_row_with_size_filter_and_lengths(name):
    (row,) = re.findall(rf"(?m)^\| `{name}` \|.*$", PAGE)
    _, _, size, resample, lengths, *_ = (cell.strip() for cell in row.split("|"))
    preset = PRESETS[name]
    assert size.partition(",")[0] == (str(preset.size[0]) if preset.size else "yours")
    assert resample == (preset.resample or "antialiased")
    assert ("crop" in size) == (preset.fit == "crop")
    assert lengths == (", ".join(map(str, preset.dimensions)) or "any")


def test_a_preset_fills_fit_and_filter_and_what_is_set_stays():
    assert resolved(Backbone(name="m", onnx="m.onnx", preset="clip")).fit_how == "crop-bicubic"
    assert resolved(Backbone(name="m", onnx="m.onnx", preset="boq-dinov2")).fit_how == "resize-bicubic"
    assert (
        resolved(Backbone(name="m", onnx="m.onnx", preset="boq-dinov2", resample="bilinear")).fit_how
        == "resize-bilinear"
    )
    assert resolved(Backbone(name="m", onnx="m.onnx", preset="mixvpr")).fit_how == "resize"
    assert resolved(Backbone(name="m", onnx="m.onnx", preset="dinov3-sat")).mean == tuple(
        map(Decimal, ("0.430", "0.411", "0.296"))
    )
