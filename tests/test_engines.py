"""Engines of ONNX Runtime: the same bytes and the same bits each time, clear refusals, fidelity to the network."""

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from provisioning.base.errors import EngineError
from provisioning.base.hashing import digest_of
from provisioning.config import Backbone, Engine
from provisioning.engines import (
    EngineName,
    HostTuple,
    OnnxNetwork,
    OnnxRuntime,
    TensorRT,
    engine_facts,
    engine_name,
    engine_spec,
    parse_engine_name,
)
from provisioning.engines.accuracy.fidelity import batch_invariance, measure_fidelity, perturbed, reference_network
from provisioning.engines.compile import compile_engine
from provisioning.engines.selection import backend_of
from provisioning.network import backbone as backbones
from provisioning.network.typing.typed import make_typed
from tests import networks

HERE = OnnxRuntime().probe()


def compiled(model, tmp_path, *, name="engine", **settings):
    """Return the bytes of the ONNX Runtime engine of `model`, compiled as a build does it."""
    path = networks.save(model, tmp_path / f"{name}.onnx")
    spec = engine_spec(path, HERE, Backbone(name="net", **settings), Engine(), state=tmp_path / "state")
    compile_engine(spec, tmp_path / name, log=tmp_path / "log" / f"{name}.log")
    return (tmp_path / name).read_bytes()


def user_engine(path, tmp_path):
    """Return the engine of a user's model: prepared, typed, compiled."""
    backbone = Backbone(name="user", onnx=str(path))
    make_typed(backbone, backbones.onnx_source(backbone, tmp_path, None), tmp_path / "typed.onnx", lambda _count: ())
    spec = engine_spec(tmp_path / "typed.onnx", HERE, backbone, Engine(), state=tmp_path / "state")
    compile_engine(spec, tmp_path / "engine", log=tmp_path / "log")
    return (tmp_path / "engine").read_bytes()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return compiled(networks.network(), tmp_path_factory.mktemp("engine"))


WORDS = st.text("abcXYZ0189.-", min_size=1, max_size=12)


@given(
    model=WORDS,
    arch=st.one_of(st.sampled_from(["x86_64", "aarch64"]), st.integers(10, 999).map("sm{}".format)),
    platform=WORDS,
    backend=st.sampled_from(["tensorrt", "tensorrt_rtx", "onnxruntime"]),
    runtime=WORDS,
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
)
def test_engine_name_is_read_back(model, arch, platform, backend, runtime, precision):
    host = HostTuple(backend, runtime, arch, "any", platform)
    expected = EngineName(model, backend, runtime, arch, platform, precision)
    assert parse_engine_name(engine_name(model, host, precision)) == expected


def test_engine_name_is_as_documented():
    orin = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")
    assert engine_name("megaloc", orin, "fp16") == "megaloc_sm87_l4t36.4.3_trt10.3.0.30_fp16.engine"


@pytest.mark.parametrize(
    "name",
    ["", "a.engine", "m_sm87_l4t_trt10_fp64.engine", "m_sm87_l4t_trt10_fp16.plan", "../m_sm87_l_trt1_fp16.engine"],
)
def test_other_file_names_are_no_engine_names(name):
    with pytest.raises(EngineError, match="not an engine file name"):
        parse_engine_name(name)


def test_model_name_that_could_not_be_read_back_is_refused():
    with pytest.raises(EngineError, match="read back"):
        engine_name("a model", HERE, "fp32")


def test_engine_has_the_same_bytes_in_every_process(engine, tmp_path):
    assert compiled(networks.network(), tmp_path, name="again") == engine


def test_engine_holds_no_layout_of_this_cpu(engine):
    operators = {node.op_type for node in onnx.load_model_from_string(engine).graph.node}
    assert not any(name.startswith("Reorder") for name in operators)


def test_descriptors_are_the_same_bits_for_every_batch(engine):
    images = networks.tiles(11)
    network = OnnxRuntime().load(engine)
    whole = network(images)
    for size in (1, 2, 5, 8):
        parts = [network(images[start : start + size]) for start in range(0, len(images), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_descriptors_are_the_same_bits_from_many_threads(engine):
    images = networks.tiles(16)
    network = OnnxRuntime().load(engine)
    whole = network(images)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda image: network.clone()(image[None])[0], list(images) * 4))
    assert np.array_equal(np.stack(rows[:16]), whole)
    assert np.array_equal(np.stack(rows[48:]), whole)


def test_fixed_batch_takes_any_number_of_tiles(tmp_path):
    fixed = OnnxRuntime().load(compiled(networks.network(batch=4), tmp_path))
    free = OnnxRuntime().load(compiled(networks.network(), tmp_path, name="free"))
    images = networks.tiles(6)
    assert np.array_equal(fixed(images), free(images))


def test_no_tiles_give_no_descriptors(engine):
    assert OnnxRuntime().load(engine)(networks.tiles(1)[:0]).shape == (0, networks.DIMENSION)


def test_engine_gives_its_shape_without_running(engine):
    info = OnnxRuntime().inspect(engine)
    assert (info.batch, info.input_shape, info.input_type) == (None, (None, 32, 32, 3), "uint8")
    assert info.dimension == networks.DIMENSION


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"not a model at all", b"ftrt" + bytes(60)])
def test_bytes_that_are_no_model_are_refused(data):
    with pytest.raises(EngineError):
        OnnxRuntime().load(data)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"vtrt" + bytes(4) + tail)))
def test_any_bytes_are_an_engine_or_refused(data):
    for backend in (OnnxRuntime(), TensorRT("tensorrt"), TensorRT("tensorrt_rtx")):
        with contextlib.suppress(EngineError):  # any other exception fails the test
            assert backend.inspect(data).backend == backend.name


def test_truncated_engine_is_refused(engine):
    with pytest.raises(EngineError):
        OnnxRuntime().load(engine[: len(engine) // 2])


def test_engine_that_takes_no_tiles_is_refused(tmp_path):
    model = networks.network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(EngineError, match="does not take tiles"):
        OnnxRuntime().load(model.SerializeToString())


def test_engine_with_weights_outside_its_file_is_refused(tmp_path):
    model = networks.network()
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=64)
    with pytest.raises(EngineError, match="outside its file"):
        OnnxRuntime().inspect(path.read_bytes())


def test_external_data_ends_up_inside_the_engine(tmp_path):
    model, expected = networks.user_model()
    path = tmp_path / "user.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert (tmp_path / "weights.bin").stat().st_size >= 12 * 7 * 4
    data = user_engine(path, tmp_path)
    (tmp_path / "weights.bin").unlink()
    images = networks.tiles(3)
    assert np.allclose(OnnxRuntime().load(data)(images), expected(images), atol=1e-5)


def test_unknown_operator_is_named(tmp_path):
    with pytest.raises(EngineError, match="cannot take this model") as caught:
        compiled(networks.with_custom_operator(networks.network()), tmp_path)
    assert "Mystery" in caught.value.facts["onnxruntime says"]
    assert Path(caught.value.facts["log"]).is_file()


def test_missing_custom_operator_library_is_named(tmp_path):
    with pytest.raises(EngineError) as caught:
        compiled(networks.network(), tmp_path, custom_ops=tmp_path / "ops.so")
    assert "ops.so" in str(caught.value)


def test_custom_operator_library_decides_the_engine(tmp_path):
    library = tmp_path / "ops.so"
    keys = set()
    for content in (b"one", b"two"):
        library.write_bytes(content)
        keys.add(digest_of(engine_facts("typed", HERE, Backbone(name="n", custom_ops=library), Engine())))
    assert len(keys) == 2


def test_custom_operator_library_that_is_gone_is_named(tmp_path):
    with pytest.raises(EngineError, match="custom operators cannot be read") as caught:
        engine_facts("typed", HERE, Backbone(name="n", custom_ops=tmp_path / "gone.so"), Engine())
    assert caught.value.key == "backbone.n.custom_ops"


@pytest.mark.parametrize(
    ("change", "rebuilds"),
    [
        ({"typed": "other"}, True),
        ({"host": HERE._replace(device=f"{HERE.device}-more")}, True),
        ({"host": HERE._replace(runtime="1.0")}, True),
        ({"engine": Engine(batch=3, workspace_mb=77, timeout_s=5)}, False),
    ],
)
def test_engine_key_holds_what_decides_its_bytes(change, rebuilds):
    def key(*, typed="typed", host=HERE, engine=None):
        return digest_of(engine_facts(typed, host, Backbone(name="n"), engine or Engine()))

    assert (key() != key(**change)) is rebuilds


@pytest.mark.parametrize("setting", [{"batch": 3}, {"workspace_mb": 77}])
def test_tensorrt_key_holds_profile_and_workspace(setting):
    orin = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")
    keys = {digest_of(engine_facts("t", orin, Backbone(name="n"), engine)) for engine in (Engine(), Engine(**setting))}
    assert len(keys) == 2


@pytest.mark.parametrize("profile", [{"min": 4, "opt": 2}, {"max": 2}, {"min": 9, "max": 16, "opt": 12}])
def test_batch_profile_that_does_not_hold_the_batch_is_refused(profile, tmp_path):
    with pytest.raises(EngineError, match="batch profile"):
        engine_spec(tmp_path / "m.onnx", HERE, Backbone(name="n", profile=profile), Engine(batch=8), state=tmp_path)


def test_probing_imports_nothing_heavy():
    code = (
        "import sys; from provisioning.engines import select, engine_facts, engine_name; from provisioning.config import *;"
        "host = select(Engine()).probe(); engine_facts('k', host, Backbone(name='n'), Engine());"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'PIL', 'tensorrt', 'tensorrt_rtx', 'faiss'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_backend_is_recognised_by_the_first_bytes(engine):
    assert [backend_of(data).name for data in (engine, b"ftrt\0", b"vtrt\0")] == [
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
    ]


# fidelity


@pytest.fixture(scope="module")
def reference():
    return OnnxNetwork.load(networks.network().SerializeToString(), reference=True)


class Spoilt:
    """The reference network with something done to its descriptors."""

    def __init__(self, network, spoil):
        self.network, self.spoil = network, spoil
        self.size, self.dimension = network.size, network.dimension

    def __call__(self, images):
        return self.spoil(self.network(images).copy())


def test_engine_is_faithful_to_its_network(engine, reference):
    found = measure_fidelity(reference, OnnxRuntime().load(engine), networks.tiles(24))
    assert (found.samples, found.non_finite, found.agreement) == (24, 0, 1.0)
    assert found.cosine_min > 0.999999
    assert found.distinct > 0.001
    assert not found.constant


def test_fidelity_counts_tiles_that_are_not_finite(reference):
    def spoil(rows):
        rows[0] = np.nan
        rows[2, 0] = np.inf
        return rows

    assert measure_fidelity(reference, Spoilt(reference, spoil), networks.tiles(3)).non_finite == 2


def test_neighbours_are_what_counts_and_not_the_axes_of_the_descriptor(reference):
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))[0].astype(np.float32)
    found = measure_fidelity(reference, Spoilt(reference, lambda rows: rows @ turned), networks.tiles(24))
    assert found.agreement == 1.0
    assert found.cosine_median < 0.9


def test_fidelity_sees_neighbours_exchanged(reference):
    found = measure_fidelity(
        reference, Spoilt(reference, lambda rows: np.roll(rows, int(rows[0, 0] * 1e6) % 7, 0)), networks.tiles(24)
    )
    assert found.agreement < 0.5
    assert found.overlap_at_10 < 0.9


def test_constant_descriptors_are_reported(reference):
    found = measure_fidelity(reference, Spoilt(reference, np.ones_like), networks.tiles(12))
    assert found.constant


def test_near_duplicate_tiles_are_no_disagreement(reference):
    images = np.repeat(networks.tiles(4), 3, axis=0)
    jitter = np.random.default_rng(0).standard_normal((len(images), 24)).astype(np.float32) * 1e-6
    found = measure_fidelity(reference, Spoilt(reference, lambda rows: rows + jitter[: len(rows)]), images)
    assert found.agreement == 1.0


def test_perturbed_tile_is_another_tile_of_the_same_place():
    image = networks.tiles(1, side=128)[0]
    for number in range(8):
        moved = perturbed(image, number)
        assert moved.shape == image.shape
        assert 1 < np.abs(moved.astype(int) - image).mean() < 60
        assert np.array_equal(moved, perturbed(image, number))


def test_batch_invariance_is_exact_on_the_cpu(engine):
    assert batch_invariance(OnnxRuntime().load(engine), networks.tiles(9)) == 0.0


def test_batch_invariance_finds_a_dynamically_quantised_network():
    model = networks.dynamically_quantised(networks.network())
    assert batch_invariance(OnnxNetwork.load(model.SerializeToString()), networks.tiles(9)) > 1e-4


def test_user_model_is_compiled_as_it_computes(tmp_path):
    model, expected = networks.user_model()
    path = networks.save(model, tmp_path / "user.onnx")
    images = networks.tiles(3)
    assert np.allclose(OnnxRuntime().load(user_engine(path, tmp_path))(images), expected(images), atol=1e-5)


def test_reference_is_the_network_as_it_computes(tmp_path):
    model, expected = networks.user_model()
    backbone = Backbone(name="user", onnx=str(networks.save(model, tmp_path / "user.onnx")))
    network = reference_network(backbone, backbones.onnx_source(backbone, tmp_path, None))
    images = networks.tiles(3)
    assert np.allclose(network(images), expected(images), atol=1e-5)
