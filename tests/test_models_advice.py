"""What an error or a failed gate says to do is done here, and then the build succeeds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import models
from tests.building import GIST, Built, build, edit, new_cache
from tests.models import FLOAT

GATES = "[gates]\nrecognition = 0\nmax_degenerate = 1\nfidelity_agreement = {int8 = 0, fp32 = 0}\n"


def cache_for(tmp_path: Path, model: onnx.ModelProto, *lines: str, gates: str = GATES) -> Path:
    """Return a cache directory, not built, whose backbone is `model` under the `lines` of flight.toml."""
    onnx.save(model, str(tmp_path / "net.onnx"))
    cache = new_cache(tmp_path, side=3, network=GIST)
    edit(cache, 'name = "gist-color"\n', f'name = "net"\nonnx = "{tmp_path}/net.onnx"\n')
    edit(cache, "\n# onnx = ", "\n# was: onnx = ")
    edit(cache, "[gates]\n", gates)
    for name in re.findall(r"^(\w+) =", gates, re.MULTILINE):
        edit(cache, f"\n# {name} = ", f"\n# was: {name} = ")
    put(cache, *lines)
    return cache


def put(cache: Path, *lines: str) -> None:
    """Set `lines` in the table of the backbone, instead of what is there."""
    for line in lines:
        key = line.partition(" = ")[0]
        file = cache / "flight.toml"
        text = file.read_text()
        start = text.index("[[backbone]]")
        text = text[:start] + re.sub(rf"(?m)^(# )?{key} = .*\n", "", text[start:], count=1)
        file.write_text(text.replace("[[backbone]]\n", f"[[backbone]]\n{line}\n", 1))


def succeeded(done: Built) -> bool:
    assert done.outcome == "SUCCESS", str(done.failure)
    return True


def user(nodes, weights, shape, *, side=64, free="n"):
    ports = ("image", FLOAT, [free, 3, side, side]), ("out", FLOAT, shape)
    arrays = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    return models._model(nodes, *ports, arrays, 17, 8)


def hostile_to_int8() -> onnx.ModelProto:
    """Return a network one of whose layers reads a channel that is fifty times the others and hardly counts."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((16, 3, 8, 8)) * 0.1
    spread[0] = 1.2
    narrow = rng.standard_normal((16, 16, 1, 1))
    narrow[:, 0] = 1e-4
    nodes = [
        helper.make_node("Conv", ["image", "spread"], ["wide"], name="spread", strides=[8, 8]),
        helper.make_node("Conv", ["wide", "narrow"], ["thin"], name="hostile"),
        helper.make_node("Conv", ["thin", "last"], ["map"], name="last", strides=[2, 2]),
        helper.make_node("Flatten", ["map"], ["out"], name="flatten"),
    ]
    weights = {"spread": spread, "narrow": narrow, "last": rng.standard_normal((8, 16, 2, 2))}
    return user(nodes, weights, ["n", 8 * 16])


def test_the_layers_that_int8_loses_in_are_named_and_the_line_helps(tmp_path):
    cache = cache_for(tmp_path, hostile_to_int8(), 'precision = "int8"')
    error = build(cache).failure
    assert error is not None
    assert "fidelity.cosine" in error.facts
    assert str(error.facts["layers that lose most"]).startswith("hostile ")
    assert error.facts["layers tried"] == "3 of 3"
    line = str(error.next_step).removeprefix("set ").partition(", or")[0]
    assert '"hostile"' in line
    assert '"last"' not in line
    put(cache, line)
    assert succeeded(build(cache))


def saturating() -> onnx.ModelProto:
    """Return a network that takes pixels from 0 to 1 and sees nothing in larger ones."""
    nodes = [
        helper.make_node("Clip", ["image", "zero", "one"], ["seen"]),
        helper.make_node("AveragePool", ["seen"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["cells", "half"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["out"]),
    ]
    return user(nodes, {"zero": 0, "one": 1, "half": 0.5}, ["n", 192])


@pytest.mark.parametrize("wrong", ["scale = 1", pytest.param("scale = 16", marks=pytest.mark.slow)])
def test_wrong_preprocessing_is_named_and_the_line_helps(tmp_path, wrong):
    gates = "[gates]\nrecognition = 0.1\nmax_degenerate = 0.5\nfidelity_agreement = {fp32 = 0}\n"
    cache = cache_for(tmp_path, saturating(), wrong, gates=gates)
    error = build(cache).failure
    assert error is not None
    assert {"degenerate", "recognition"} & set(error.facts)
    assert error.facts["likely cause"] == "the preprocessing declared"
    lines = str(error.next_step).removeprefix("set ").partition(", without")[0].split("; ")
    put(cache, *lines)
    assert succeeded(build(cache))


def test_right_preprocessing_is_not_blamed(tmp_path):
    gates = "[gates]\nrecognition = 1\nfidelity_agreement = {fp32 = 0}\nmax_degenerate = 0.9\n"
    error = build(cache_for(tmp_path, saturating(), gates=gates)).failure
    assert error is not None
    assert "recognition" in error.facts
    assert "the preprocessing is not" in str(error.facts["likely cause"])


def batch_dependent() -> onnx.ModelProto:
    """Return a network with batch normalisation in training mode: a tile's descriptor depends on its neighbours."""
    rng = np.random.default_rng(1)
    ones = np.ones(16, np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], strides=[8, 8]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n1", "rm", "rv"], training_mode=1),
        helper.make_node("Flatten", ["n1"], ["out"]),
    ]
    weights = {"w": rng.standard_normal((16, 3, 8, 8)), "s": ones, "b": 0 * ones, "m": 0 * ones, "v": ones}
    return user(nodes, weights, ["n", 16 * 64])


def test_a_network_that_looks_at_its_neighbours_is_built_with_a_batch_of_one(tmp_path):
    cache = cache_for(tmp_path, batch_dependent())
    error = build(cache).failure
    assert error is not None
    assert "engine.batch = 1" in str(error.facts["batch_invariance"])
    edit(cache, "[engine]\n", "[engine]\nbatch = 1\n")
    edit(cache, "\n# batch = ", "\n# was: batch = ")
    assert succeeded(build(cache))


def test_int8_before_the_first_scan_is_built_by_doit(tmp_path):
    cache = cache_for(tmp_path, models.linear(size=64), 'precision = "int8"')
    error = build(cache, "engine").failure
    assert "run `doit`" in str(error.next_step)  # type: ignore[union-attr]
    assert succeeded(build(cache))


def refusals(model: onnx.ModelProto) -> dict[str, tuple[onnx.ModelProto, tuple[str, ...]]]:
    """Return models that are refused, by what is wrong, each with lines that do not help."""
    free = models.linear(size="side")
    two = models.with_second_output(models.linear(size=64))
    return {"no size": (free, ()), "two outputs": (two, ()), "arrives as fp16": (model, ('precision = "int8"',))}


@pytest.mark.parametrize("name", ["no size", "two outputs", "arrives as fp16"])
def test_what_a_refusal_says_to_set_is_enough(tmp_path, name):
    from provisioning.network.typing.fp16 import to_fp16

    model, lines = refusals(to_fp16(models.linear(size=64), ()))[name]
    cache = cache_for(tmp_path, model, *lines)
    error = build(cache).failure
    assert error is not None
    assert error.next_step is not None
    line = re.sub(r",? or .*", "", error.next_step.removeprefix("set ")).replace("[height, width]", "[16, 16]")
    put(cache, line)
    assert succeeded(build(cache))


def test_numpy_is_what_the_saturating_network_computes(tmp_path):
    """The stand-in above is a network at all: cells of pixels between 0 and 1, centred."""
    from tests.test_backbone import images, nchw, prepared, run, unit

    cells = (nchw(images(2, 64)) / 255).reshape(2, 3, 8, 8, 8, 8).mean((3, 5)) - 0.5
    np.testing.assert_allclose(
        run(prepared(tmp_path, saturating()), images(2, 64)), unit(cells.reshape(2, -1)), atol=1e-5
    )
    assert numpy_helper.to_array(saturating().graph.initializer[0]) == 0
