"""The range check of fp16 depends on tiles: it is keyed by them, and due when they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from provisioning.build.request import read_request
from tests import models
from tests.building import GIST, NORTH, WEST, ZOOM, Built, build, edit, new_cache


def blue_overflows(path: Path) -> None:
    """Write a network that overflows fp16 on tiles of one blue and never on black, white or noise.

    Its convolution measures blue minus red and green; white and black cancel, and noise averages out.
    """
    model = models.linear(size=64)
    conv = np.zeros((3, 3, 1, 1), np.float32)
    conv[0, :, 0, 0] = (-3.4e4, -3.4e4, 6.8e4)
    conv[1:, :, 0, 0] = models.KERNEL[:2]
    pool = model.graph.node[0]
    pool.input[0] = "seen"
    for name, values in (("kernel", conv / 64), ("gain", np.float32(64)), ("loss", np.float32(2.0**-15))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["above", "gain"], ["large"], name="gain"))
    model.graph.node.insert(1, onnx.helper.make_node("Mul", ["large", "loss"], ["seen"], name="loss"))
    model.graph.node.insert(0, onnx.helper.make_node("Relu", ["mapped"], ["above"], name="relu"))
    model.graph.node.insert(0, onnx.helper.make_node("Conv", ["smooth", "kernel"], ["mapped"], name="conv"))
    smooth = onnx.helper.make_node(
        "AveragePool", ["image"], ["smooth"], kernel_shape=[16, 16], strides=[1, 1], auto_pad="SAME_UPPER", name="blur"
    )
    model.graph.node.insert(0, smooth)
    onnx.save(model, str(path))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache in fp16 whose tiles are unlike black, white and noise."""
    blue_overflows(tmp_path / "net.onnx")
    cache = new_cache(tmp_path, side=2, network=GIST)
    edit(cache, 'name = "gist-color"\n', f'name = "net"\nonnx = "{tmp_path}/net.onnx"\nprecision = "fp16"\n')
    for key in ("onnx", "precision"):
        edit(cache, f"\n# {key} = ", f"\n# was: {key} = ")
    edit(cache, "[gates]", "[gates]\nrecognition = 0\nmax_degenerate = 1\nfidelity_agreement = {fp16 = 0}\n")
    for name in ("recognition", "max_degenerate", "fidelity_agreement"):
        edit(cache, f"# {name} = ", f"# was: {name} = ")
    return cache


def paint(cache: Path, column: int, colour: tuple[int, int, int]) -> None:
    path = cache.parent / "tiles" / str(ZOOM) / str(WEST + column) / f"{NORTH}.jpg"
    grey = np.random.default_rng(column).integers(40, 200, (32, 32, 1)).repeat(8, 0).repeat(8, 1).repeat(3, 2)
    grey[64:192, 64:192] = colour
    Image.fromarray(grey.astype(np.uint8)).save(path, quality=95)


def refused(done: Built) -> bool:
    return done.failure is not None and "overflows in fp16" in str(done.failure)


def test_engine_first_does_not_skip_the_check_on_tiles(cache: Path) -> None:
    paint(cache, 0, (0, 0, 255))
    assert build(cache, "engine").outcome == "SUCCESS"
    done = build(cache)
    assert refused(done)
    assert not (cache / "current").exists()
    assert refused(build(cache))


def test_engines_alone_need_no_tiles_and_the_check_stays_due(cache: Path) -> None:
    first = build(cache)
    assert first.outcome == "SUCCESS", str(first.failure)
    (cache.parent / "tiles" / str(ZOOM)).rename(cache.parent / "unplugged")
    network = read_request(cache).descriptor_network
    assert network.checked is not None
    for made in (network.typed, network.engine, network.checked):
        made.path.unlink()
    assert build(cache, "engine").outcome == "SUCCESS"
    assert not network.checked.path.exists()
    (cache.parent / "unplugged").rename(cache.parent / "tiles" / str(ZOOM))
    assert build(cache).failure is None
    assert network.checked.path.exists()


def test_a_tile_that_is_added_is_checked_and_nothing_is_compiled_again(cache: Path) -> None:
    first = build(cache)
    assert first.outcome == "SUCCESS", first.failure
    paint(cache, 1, (60, 130, 60))
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    assert done.report.engines_built == 0
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    paint(cache, 1, (0, 0, 255))
    assert refused(build(cache))


def test_the_line_of_the_refusal_makes_it_succeed(cache: Path) -> None:
    paint(cache, 0, (0, 0, 255))
    step = str(build(cache).failure.next_step)  # type: ignore[union-attr]
    line = step.removeprefix("set ").partition(", or")[0]
    assert line.startswith("keep_fp32 = [")
    edit(cache, 'precision = "fp16"\n', f'precision = "fp16"\n{line}\n')
    edit(cache, "\n# keep_fp32 = ", "\n# was: keep_fp32 = ")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
