"""The built-in backbone is GIST as published, and finds places again that were seen in other light."""

import io
import os
import platform
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from provisioning.base.hashing import sha256_bytes
from provisioning.catalogue import decode
from provisioning.config import Backbone
from provisioning.network.backbone import onnx_source, prepare
from provisioning.network.builtin.gist import GRID, ORIENTATIONS, SCALES, SIDE, gist, kernels, transfer
from provisioning.network.builtin.making import onnx_bytes
from provisioning.sources.pixels.fitting import fit


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Return a function from uint8 images to descriptors, for each of the two built-in backbones."""
    root = tmp_path_factory.mktemp("gist")

    def load(name):
        backbone = Backbone(name="g", onnx=f"builtin:gist-{name}")
        prepare(backbone, onnx_source(backbone, root, None), root / f"{name}.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            (root / f"{name}.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        return lambda images: session.run(None, {"tiles": images})[0]

    return {name: load(name) for name in ("color", "gray")}


def scenes(count, seed=0):
    """Return smooth textures with edges, uint8 [count, 128, 128, 3]."""
    rng = np.random.default_rng(seed)
    layers = [
        np.kron(rng.uniform(0, 1, (count, n, n, 3)), np.ones((1, SIDE // n, SIDE // n, 1))) for n in (4, 8, 16, 32)
    ]
    mixed = sum(layer * weight for layer, weight in zip(layers, (0.4, 0.3, 0.2, 0.1), strict=True))
    return np.ascontiguousarray((mixed * 255).astype(np.uint8))


def reference(image):
    """LMgist with FFTs over the whole image, each scale centred and normalised: float64 [512]."""
    grey = np.log(image @ np.array([0.299, 0.587, 0.114]) + 1)
    pad, full = 32, SIDE + 64
    grey = np.pad(grey, pad, mode="reflect")
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(full) * full, np.fft.fftfreq(full) * full, indexing="ij"))
    low = np.exp(-((cycles * (SIDE + 10) / full) ** 2) / (4 / np.sqrt(np.log(2))) ** 2)
    high = grey - np.fft.ifft2(np.fft.fft2(grey) * low).real
    local = np.sqrt(np.abs(np.fft.ifft2(np.fft.fft2(high**2) * low).real))
    spectrum = np.fft.fft2(high / (0.2 + local))
    parts = []
    for scale in SCALES:
        responses = [np.abs(np.fft.ifft2(spectrum * transfer(scale.frequency, o, full))) for o in range(ORIENTATIONS)]
        inner = np.stack(responses)[:, pad:-pad, pad:-pad]
        cells = inner.reshape(ORIENTATIONS, GRID, SIDE // GRID, GRID, SIDE // GRID).mean((2, 4)).ravel()
        parts.append((cells - cells.mean()) / np.linalg.norm(cells - cells.mean()))
    return np.concatenate(parts) / 2


def test_graph_agrees_with_the_published_formula(network):
    images = scenes(4)
    cosines = [float(found @ reference(image)) for found, image in zip(network["gray"](images), images, strict=True)]
    assert min(cosines) > 0.95, cosines


def test_dimensions(network):
    assert network["color"](scenes(2)).shape == (2, 544)
    assert network["gray"](scenes(2)).shape == (2, 512)


def test_any_batch_gives_the_same_bits(network):
    images = scenes(9)
    alone = np.concatenate([network["color"](image[None]) for image in images])
    np.testing.assert_array_equal(network["color"](images), alone)


def test_grey_descriptor_does_not_see_colour(network):
    grey = np.repeat(scenes(3).mean(axis=3, keepdims=True), 3, axis=3).astype(np.uint8)
    assert (network["gray"](grey) * network["gray"](scenes(3))).sum(1).min() > 0.5
    tinted = np.clip(grey * [1.2, 1.0, 0.7], 0, 255).astype(np.uint8)
    assert (network["gray"](grey) * network["gray"](tinted)).sum(1).min() > 0.99
    assert (network["color"](grey) * network["color"](tinted)).sum(1).max() < 0.95


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_tile_has_a_direction_of_its_own(network, level):
    blank = np.full((1, SIDE, SIDE, 3), level, np.uint8)
    found = network["color"](blank)[0]
    assert abs(np.linalg.norm(found) - 1) < 1e-5
    assert np.ptp(found) < 1e-3


def test_noise_on_a_blank_tile_is_not_blown_up(network):
    noise = np.random.default_rng(0).integers(127, 130, (2, SIDE, SIDE, 3)).astype(np.uint8)
    first, second = network["color"](noise)
    assert first @ second > 0.8


def test_only_ordinary_operators():
    model = gist(colour=True)
    used = {node.op_type for node in model.graph.node}
    assert used <= {
        "Add", "AveragePool", "Concat", "Conv", "Div", "Flatten", "Log", "MatMul", "Mul", "Pad", "ReduceL2",
        "ReduceMean", "ReduceSum", "Relu", "Reshape", "Slice", "Sqrt", "Sub",
    }  # fmt: skip
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("builtin:gist-color", "332c7bfdd1e2de737ac41a51d24387a657e6a744589adf850cd1345a38ec1412"),
        ("builtin:gist-gray", "3d2852f1ea308f06cc470b386e0cff69406271c502baf652fdb73b42bdbb0188"),
    ],
)
def test_the_same_bytes_on_every_host(name, digest):
    """Other bytes mean that every cache compiles and describes anew: raise BUILTIN_FORMULA, and say it in the changelog."""
    assert sha256_bytes(onnx_bytes(name)) == digest


def test_weights_do_not_hang_on_the_last_bit_of_exp():
    """No weight lies so near the middle of two steps that a host's error in exp or FFT, below 1e-8 steps, decides."""
    for scale in SCALES:
        exact = kernels(scale) * 2**24
        assert np.abs(0.5 - np.abs(exact - np.round(exact))).min() > 1e-5


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names features of x86-64")
def test_the_same_bytes_where_the_c_library_and_numpy_use_no_vectors():
    """So exp, hypot and atan2 end in other bits: what is zero but for these had another sign there."""
    features = {
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable,-FMA_Usable,-AVX2,-FMA",
        "NPY_DISABLE_CPU_FEATURES": " ".join(_dispatched()),
    }
    program = "from provisioning.network.builtin.making import onnx_bytes; import sys; sys.stdout.buffer.write(onnx_bytes(sys.argv[1]))"
    words = [sys.executable, "-c", program, "builtin:gist-gray"]
    done = subprocess.run(words, env={**os.environ, **features}, check=True, capture_output=True)
    assert done.stdout == onnx_bytes("builtin:gist-gray")


def _dispatched():
    """Return the features that this NumPy uses here beyond those that it cannot do without."""
    found = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    return [name for name in found if not name.startswith("X86_V2")]


def perturbed(image, rng):
    """Another season: 8 % shift, 5 degrees, light, blur, noise, strong JPEG."""
    side = image.shape[0]
    wide = Image.fromarray(np.pad(image, ((side, side), (side, side), (0, 0)), mode="symmetric")).rotate(
        rng.uniform(-5, 5), Image.Resampling.BILINEAR
    )
    left, top = (side + rng.uniform(-0.08, 0.08, 2) * side).astype(int)
    view = wide.crop((left, top, left + side, top + side)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))
    view = ImageEnhance.Brightness(view).enhance(rng.uniform(0.75, 1.25))
    noisy = np.clip(np.asarray(view) + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("count", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_real_places_are_found_again(network, shared_data, count):
    """Recall@1 over 64 drone tiles of one town, chance 1.6 %; over 16 of them chance is 6 %."""
    paths = sorted(shared_data.glob("tiles/oam_banepa/**/*.*"))
    tiles = [decode(p.read_bytes(), max_pixels=1 << 22) for p in paths[:: len(paths) // count]]
    rng = np.random.default_rng(0)
    described = network["color"](np.stack([fit(t, (SIDE, SIDE), "resize") for t in tiles]))
    seen = network["color"](np.stack([fit(perturbed(t, rng), (SIDE, SIDE), "resize") for t in tiles]))
    recall = ((seen @ described.T).argmax(1) == np.arange(len(tiles))).mean()
    assert len(tiles) == count
    assert recall >= 0.95
