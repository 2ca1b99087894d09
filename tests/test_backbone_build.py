"""A backbone that cannot be used ends the build with its file named, and what was published before stays."""

import onnx
import pytest

from provisioning.base.errors import BackboneError, DescriptorError
from provisioning.flight.publish import current_generation
from tests import building, faults, models


def saved(model, path):
    onnx.save(model, str(path))


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def without_external_data(path):
    models.with_external_data(models.linear(), path)
    path.with_name(path.name + ".data").unlink()


BAD = {
    "unreadable": lambda path: path.write_bytes(b"not a model at all"),
    "git-LFS pointer": lfs_pointer,
    "external data missing": without_external_data,
    "two outputs": lambda path: saved(models.with_second_output(models.linear()), path),
    "feature map": lambda path: saved(models.feature_map(), path),
    "non-finite": lambda path: saved(models.linear(gain=1e38), path),
    "constant": lambda path: saved(models.linear(gain=0.0), path),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache that has been built once with the built-in backbone."""
    cache = building.new_cache(tmp_path_factory.mktemp("cache"), side=3, network=building.GIST)
    assert building.build(cache).outcome == "SUCCESS"
    return cache


@pytest.fixture
def cache(built, tmp_path):
    """A copy of it in its own place, with the tiles and the key where they were."""
    return faults.copy_cache(built, tmp_path / "cache")


def use(cache, name):
    """Have the cache use the model file `name` beside its flight.toml."""
    text = (cache / "flight.toml").read_text()
    line = next(line for line in text.splitlines() if line.lstrip("# ").startswith("onnx = "))
    building.edit(cache, line, f'onnx = "{name}"')


@pytest.mark.parametrize("what", BAD)
def test_a_bad_backbone_publishes_nothing_and_is_named(cache, what):
    before = faults.snapshot(current_generation(cache))
    BAD[what](cache / "bad.onnx")
    use(cache, "bad.onnx")
    done = building.build(cache)
    assert done.outcome == "FAILURE"
    assert isinstance(done.failure, BackboneError)
    assert done.failure.file.startswith(str(cache / "bad.onnx"))
    assert "descriptors" not in done.ran
    assert faults.snapshot(current_generation(cache)) == before


def test_tiles_that_all_look_alike_to_the_model_publish_nothing(cache):
    """The model tells black from white, but not one of these tiles from another: it looks at nothing they differ in."""
    before = faults.snapshot(current_generation(cache))
    model = models.linear()
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["image", "none"], ["dark"]))
    model.graph.node.insert(1, onnx.helper.make_node("Floor", ["dark"], ["steps"]))
    model.graph.node.insert(2, onnx.helper.make_node("Add", ["steps", "none"], ["shown"]))
    model.graph.node[3].input[0] = "shown"
    model.graph.initializer.append(onnx.numpy_helper.from_array(models.np.float32([1 / 1.0]), "none"))
    saved(model, cache / "dull.onnx")
    use(cache, "dull.onnx")
    done = building.build(cache)
    assert isinstance(done.failure, DescriptorError)
    assert done.failure.file == str(cache / "dull.onnx")
    assert faults.snapshot(current_generation(cache)) == before


def test_a_good_backbone_replaces_the_built_in_one(cache):
    saved(models.linear(), cache / "good.onnx")
    use(cache, "good.onnx")
    done = building.build(cache)
    assert "recognition" in str(done.failure)  # random weights recognise nothing
    assert done.report.descriptors_generated == 9
    building.edit(cache, "# recognition = 0.5", "recognition = 0")
    done = building.build(cache)
    assert (done.outcome, done.report.descriptors_generated) == ("SUCCESS", 0), done.failure
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
