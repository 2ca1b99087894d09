"""The built-in network with weights: read without PyTorch, the authors' own function, and better than GIST."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest

from provisioning.base.errors import BackboneError, ConfigError
from provisioning.base.hashing import sha256_bytes
from provisioning.catalogue import decode
from provisioning.cli import main
from provisioning.config import Backbone
from provisioning.config.parse import read_flight
from provisioning.network.backbone import onnx_source, prepare
from provisioning.network.builtin import known, making, weights
from provisioning.network.builtin.checkpoint import LEGACY_MAGIC, read_checkpoint
from provisioning.network.builtin.efficientnet import descriptor
from provisioning.quality.gates.perturb import flown
from provisioning.sources.pixels.fitting import fit
from tests.building import GIST, new_cache, put_tiles

ARRAYS = {
    "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.array(7, np.int64),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}
needs_weights = pytest.mark.skipif(
    weights.file_of(weights.EFFICIENTNET_LITE0) is None, reason="the extra [builtin] is not installed"
)


class Storage:
    """Stands for a torch storage: pickled as a reference."""

    def __init__(self, key, kind, count):
        self.reference = ("storage", kind, key, "cpu", count)


class Tensor:
    """Stands for a tensor: pickled as PyTorch does."""

    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        torch = sys.modules["torch"]
        kind = {"f": torch.FloatStorage, "i": torch.LongStorage}[self.array.dtype.kind]
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        storage = Storage(self.key, kind, self.array.size)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (storage, 0, self.array.shape, strides, False, {})


class Writer(pickle.Pickler):
    """The pickler of torch.save, as far as tensors need it."""

    def persistent_id(self, obj):
        return obj.reference if isinstance(obj, Storage) else None


@pytest.fixture
def fake_torch(monkeypatch):
    """Put names under `torch` that can be pickled by reference."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(value):
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def raw(array):
    return np.ravel(array, order="K").tobytes()


def legacy(arrays):
    index = {name: Tensor(str(n), array) for n, (name, array) in enumerate(arrays.items())}
    head = [LEGACY_MAGIC, 1001, {"little_endian": True}, index, [str(n) for n in range(len(arrays))]]
    return b"".join(map(pickled, head)) + b"".join(struct.pack("<q", a.size) + raw(a) for a in arrays.values())


def zipped(arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        index = {name: Tensor(str(n), array) for n, (name, array) in enumerate(arrays.items())}
        archive.writestr("net/data.pkl", pickled(index))
        for n, array in enumerate(arrays.values()):
            archive.writestr(f"net/data/{n}", raw(array))
    return file.getvalue()


@pytest.mark.parametrize("write", [legacy, zipped])
def test_tensors_of_both_layouts_are_read(fake_torch, write):
    found = read_checkpoint(write(ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", [legacy, zipped])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
def test_a_file_cut_short_is_refused(fake_torch, write, share):
    data = write(ARRAYS)
    with pytest.raises(BackboneError, match="no checkpoint"):
        read_checkpoint(data[: int(len(data) * share)])


def test_a_tensor_beyond_its_storage_is_refused(fake_torch):
    class Long(Tensor):
        def __reduce__(self):
            make, (storage, offset, _, _, *rest) = super().__reduce__()
            return make, (storage, offset, (1000,), (1,), *rest)

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled({"a": Long("0", ARRAYS["a"])}))
        archive.writestr("net/data/0", raw(ARRAYS["a"]))
    with pytest.raises(BackboneError, match="no checkpoint"):
        read_checkpoint(file.getvalue())


class Attack:
    """Runs a command when it is unpickled by pickle itself."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, layout):
    data = pickled(Attack(str(tmp_path / "mark")))
    if layout == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("net/data.pkl", data)
        data = file.getvalue()
    with pytest.raises(BackboneError, match="mkdir, which is no tensor"):
        read_checkpoint(data)
    assert not (tmp_path / "mark").exists()


def test_weights_that_are_not_installed_name_the_extra(monkeypatch):
    monkeypatch.setattr(weights, "file_of", lambda _: None)
    with pytest.raises(BackboneError, match="not installed") as refused:
        weights.read(weights.EFFICIENTNET_LITE0, known.EFFICIENTNET)
    assert "flightcache[builtin]" in refused.value.next_step


def test_other_weights_under_that_name_are_refused(monkeypatch, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"other")
    monkeypatch.setattr(weights, "file_of", lambda _: tmp_path / "net.pth")
    with pytest.raises(BackboneError, match="are not those of"):
        weights.read(weights.EFFICIENTNET_LITE0, known.EFFICIENTNET)


@pytest.mark.parametrize(("installed", "onnx"), [(True, known.EFFICIENTNET), (False, known.GIST_COLOR)])
def test_init_takes_the_network_whose_weights_are_here_and_says_what_gist_cannot_do(
    monkeypatch, tmp_path, capsys, installed, onnx
):
    monkeypatch.setattr(known, "file_of", lambda _: tmp_path if installed else None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    put_tiles(tmp_path / "tiles", side=2)
    assert main(["init", str(tmp_path / "cache"), "--tiles", str(tmp_path / "tiles")]) == 0
    said = capsys.readouterr().out
    assert read_flight(tmp_path / "cache").backbone[0].onnx == onnx
    assert f"network: {onnx}" in said
    assert ("oblique photos" in said) is not installed


def test_plan_says_what_gist_cannot_do(tmp_path, capsys):
    assert main(["plan", str(new_cache(tmp_path, side=2, network=GIST))]) == 1
    assert "note: GIST knows a place from straight above" in capsys.readouterr().out


def test_a_misspelt_built_in_names_those_there_are(tmp_path):
    cache = new_cache(tmp_path, side=2, network=GIST)
    file = cache / "flight.toml"
    file.write_text(file.read_text().replace('# onnx = "builtin:gist-color"', 'onnx = "builtin:efficientnet"'))
    with pytest.raises(ConfigError, match="builtin:efficientnet-lite0, builtin:gist-color"):
        read_flight(cache)


def run(model, pixels):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


@needs_weights
def test_the_same_bytes_on_every_host():
    """Other bytes mean that every cache compiles and describes anew: raise BUILTIN_FORMULA."""
    data = making.onnx_bytes(known.EFFICIENTNET)
    assert sha256_bytes(data) == "74cef75056d891a054ef204fef6f02cc78f75f0abce966749390f309e175be6a"
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 2, 7, 13, 16])
def test_every_block_is_the_authors_own_function(blocks):
    """Against efficientnet_lite_pytorch 0.1.0 on PyTorch, which also read the file by themselves."""
    torch = pytest.importorskip("torch")
    authors = pytest.importorskip("efficientnet_lite_pytorch")
    file = weights.file_of(weights.EFFICIENTNET_LITE0)
    network = authors.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file))
    network.eval()
    pixels = np.random.default_rng(24).normal(size=(3, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        image = network._swish(network._bn0(network._conv_stem(torch.from_numpy(pixels))))
        for block in network._blocks[:blocks]:
            image = block(image)
        expected = image.mean((2, 3)).numpy()
    found = run(descriptor(read_checkpoint(file.read_bytes()), blocks=blocks).SerializeToString(), pixels)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert (cosine > 0.999999).all()


def described(name, images, root):
    backbone = Backbone(name="n", onnx=name)
    prepare(backbone, onnx_source(backbone, root, None), root / "n.onnx")
    session = onnxruntime.InferenceSession((root / "n.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1]
    return session.run(None, {"tiles": np.stack([fit(image, (size, size), "resize") for image in images])})[0]


def mosaic(shared_data, columns, rows):
    """Return drone tiles side by side, uint8 [rows, columns, 256, 256, 3]."""
    folder = shared_data / "tiles/oam_banepa/19"
    names = [[folder / str(386690 + x) / f"{220241 + y}.jpg" for x in range(columns)] for y in range(rows)]
    return np.stack([[decode(name.read_bytes(), max_pixels=1 << 22) for name in row] for row in names])


@needs_weights
def test_real_places_are_recognised_at_any_heading_where_gist_finds_few(shared_data, tmp_path):
    """The tile or one beside it, of 36 of one town, seen turned, tilted and in other light; chance is 25 %."""
    tiles = mosaic(shared_data, 6, 6)
    ground = np.concatenate(np.concatenate(tiles, axis=1), axis=1)
    places = [(y, x) for y in range(1, 5) for x in range(1, 5)]
    see = flown(any_heading=True)
    scenes = [ground[y * 256 - 128 : y * 256 + 384, x * 256 - 128 : x * 256 + 384] for y, x in places]
    views = [see(np.ascontiguousarray(scene), number) for number, scene in enumerate(scenes)]
    shares = {}
    for name in (known.EFFICIENTNET, known.GIST_COLOR):
        root = tmp_path / name.partition(":")[2]
        root.mkdir()
        stored, asked = described(name, tiles.reshape(-1, 256, 256, 3), root), described(name, views, root)
        found = np.stack(np.unravel_index((asked @ stored.T).argmax(1), tiles.shape[:2]), axis=1)
        shares[name] = (np.abs(found - places).max(1) <= 1).mean()
    assert shares[known.EFFICIENTNET] >= 0.4
    assert shares[known.GIST_COLOR] <= 0.3
