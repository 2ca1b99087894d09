"""Change one fact, and exactly the tasks that depend on it run; everything else is known to be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provisioning.base.errors import ManifestCoverageError
from provisioning.build import reasons
from provisioning.build.plan import make_plan
from provisioning.engines import HostTuple, OnnxRuntime
from provisioning.flight.publish import current_generation
from provisioning.flight.signing import generate_key
from provisioning.flight.verify import verify
from tests.building import GIST, NORTH, WEST, ZOOM, Built, build, edit, new_cache, put_tile

EVERYTHING = ("onnx", "engine", "descriptors", "corpus", "gates", "report", "manifest")
FROM_ENGINE = EVERYTHING[1:]
FROM_TILES = EVERYTHING[2:]
FROM_INDEX = EVERYTHING[3:]
FROM_GATES = EVERYTHING[4:]
FROM_REPORT = EVERYTHING[5:]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has been built once, with a small ONNX backbone whose weights lie in a second file."""
    parent = tmp_path_factory.mktemp("template") / "site"
    parent.mkdir()
    write_backbone(parent / "net.onnx", seed=0)
    cache = new_cache(parent, side=2, network=GIST)
    edit(cache, 'name = "gist-color"\n', f'name = "net"\nonnx = "{parent}/net.onnx"\nsize = [64, 64]\n')
    edit(cache, "# onnx = ", "# was: onnx = ")
    edit(cache, "# size = ", "# was: size = ")
    edit(
        cache,
        "[gates]",
        "[gates]\nrecognition = 0\nmax_degenerate = 1\nfidelity_agreement = {fp32 = 0, fp16 = 0}\n",
    )
    for name in ("recognition", "max_degenerate", "fidelity_agreement"):
        edit(cache, f"# {name} = ", f"# was: {name} = ")
    first = build(cache)
    assert first.outcome == "SUCCESS", first.failure
    return parent


@pytest.fixture
def site(template: Path, tmp_path: Path) -> Path:
    """A copy of the template, as `cp -a` makes it, where nothing is left to do."""
    site = tmp_path / "site"
    subprocess.run(["cp", "-a", template, site], check=True)
    file = site / "cache" / "flight.toml"
    file.write_text(file.read_text().replace(str(template), str(site)))
    assert built(site).outcome == "IDEMPOTENT_NO_OP"
    return site


def built(site: Path) -> Built:
    return build(site / "cache")


def tasks(done: Built) -> tuple[str, ...]:
    """Return the tasks that ran, without the names of models."""
    return tuple(name.partition(":")[0] for name in done.ran)


def write_backbone(path: Path, *, seed: int) -> None:
    """Write a small convolution whose weights are external data."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((32, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["map"], strides=[8, 8]),
            helper.make_node("Relu", ["map"], ["kept"]),
            helper.make_node("Flatten", ["kept"], ["out"]),
        ],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2048])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=True, location="net.weights", size_threshold=0)


def flip_a_bit(path: Path, at: int) -> None:
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def set_key(key: str, value: str, *, section: str = "") -> Callable[[Path], None]:
    """Return the edit that sets a key of flight.toml shown there with its default, the first one below `section`."""

    def change(site: Path) -> None:
        file = site / "cache" / "flight.toml"
        lines = file.read_text().splitlines()
        below = lines.index(section) if section else 0
        at = below + next(n for n, line in enumerate(lines[below:]) if line.startswith((f"# {key} = ", f"{key} = ")))
        lines[at] = f"{key} = {value}"
        file.write_text("\n".join(lines) + "\n")

    return change


def remove_tile(site: Path) -> None:
    (site / "tiles" / str(ZOOM) / str(WEST) / f"{NORTH}.jpg").unlink()
    set_key("min_coverage", '{"14" = 0.5}')(site)


def replace_tile(site: Path) -> None:
    put_tile(site / "tiles", WEST, NORTH, seed=1234)


def touch_tile(site: Path) -> None:
    os.utime(site / "tiles" / str(ZOOM) / str(WEST) / f"{NORTH}.jpg")


def change_weights(site: Path) -> None:
    flip_a_bit(site / "net.weights", at=1)


def change_graph(site: Path) -> None:
    model = onnx.load(str(site / "net.onnx"), load_external_data=False)
    model.graph.node[0].name = "renamed"
    (site / "net.onnx").write_bytes(model.SerializeToString())


def shrink_bbox(site: Path) -> None:
    file = site / "cache" / "flight.toml"
    line = next(line for line in file.read_text().splitlines() if line.startswith("bbox = "))
    west, south, east, north = (float(side) for side in line[8:-1].split(","))
    set_key("bbox", f"[{west}, {south}, {round(east - 0.03, 7)}, {north}]")(site)


def fly_over_a_town(site: Path) -> None:
    set_key("sector_class", '"urban"')(site)
    file = site / "cache" / "flight.toml"
    file.write_text(file.read_text() + "\n[sector.urban]\n")


def change_calibration(site: Path) -> None:
    (site / "camera.yaml").write_text("focal_px: 813.0\n")


def change_key(site: Path) -> None:
    generate_key(site / "other.pem", password=None)
    set_key("key", f'"{site}/other.pem"')(site)


def lose_database(site: Path) -> None:
    (site / "cache" / ".build" / "doit.sqlite").unlink()


def lose_build(site: Path) -> None:
    shutil.rmtree(site / "cache" / ".build")


def published(site: Path) -> Path:
    generation = current_generation(site / "cache")
    assert generation is not None
    return generation


def damage_index(site: Path) -> None:
    flip_a_bit(published(site) / "corpus.index", at=4000)


def delete_published(site: Path) -> None:
    generation = published(site)
    generation.chmod(0o755)
    (generation / "report.html").unlink()


CHANGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "nothing": (lambda site: None, (), "IDEMPOTENT_NO_OP"),
    "one tile removed": (remove_tile, FROM_TILES, "SUCCESS"),
    "one tile replaced": (replace_tile, FROM_TILES, "SUCCESS"),
    "one tile touched": (touch_tile, (), "IDEMPOTENT_NO_OP"),
    "ONNX graph": (change_graph, EVERYTHING, "SUCCESS"),
    "ONNX external data": (change_weights, EVERYTHING, "SUCCESS"),
    "preprocessing": (set_key("scale", "0.01"), EVERYTHING, "SUCCESS"),
    "precision": (set_key("precision", '"fp16"'), EVERYTHING, "SUCCESS"),
    "index parameter": (set_key("kind", '"sqfp16"', section="[index]"), FROM_INDEX, "SUCCESS"),
    "bbox": (shrink_bbox, FROM_TILES, "SUCCESS"),
    "sector class": (fly_over_a_town, FROM_GATES, "SUCCESS"),
    "flight id": (set_key("id", '"F-2"'), FROM_REPORT, "SUCCESS"),
    "origin": (set_key("takeoff", "{lat = 47.37, lon = 8.54}"), FROM_REPORT, "SUCCESS"),
    "calibration bytes": (change_calibration, FROM_REPORT, "SUCCESS"),
    "key": (change_key, ("manifest",), "SUCCESS"),
    "doit database deleted": (lose_database, (), "IDEMPOTENT_NO_OP"),
    ".build deleted": (lose_build, EVERYTHING, "SUCCESS"),
    "byte flipped in the published index": (damage_index, ("corpus", "manifest"), "SUCCESS"),
    "published file deleted": (delete_published, ("manifest",), "SUCCESS"),
}


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Return every path below `directory` with its size and modification time."""
    return {str(path): (s.st_size, s.st_mtime_ns) for path in directory.rglob("*") for s in (path.lstat(),)}


BUILT = ("nothing", "one tile replaced", "ONNX external data", "index parameter", "sector class", "flight id", "key",
         "doit database deleted", ".build deleted", "byte flipped in the published index", "published file deleted")  # fmt: skip
"""Changes that are also built by default, one of each set of tasks; every other is planned, and built nightly."""


@pytest.mark.parametrize(
    ("name", "is_built"),
    [pytest.param(name, name in BUILT, id=name) for name in CHANGES]
    + [pytest.param(name, True, id=f"{name}, built", marks=pytest.mark.slow) for name in CHANGES if name not in BUILT],
)
def test_exactly_the_tasks_that_depend_on_a_change_are_planned_without_a_write_and_then_run(
    site: Path, name: str, is_built: bool
) -> None:
    change, expected, outcome = CHANGES[name]
    change(site)
    before = tree(site / "cache")
    plan = make_plan(site / "cache")
    assert tree(site / "cache") == before
    assert tuple(task.task.partition(":")[0] for task in plan.tasks if task.will_run) == expected
    if not is_built:
        return
    done = built(site)
    assert (tasks(done), done.outcome) == (expected, outcome), done.failure
    assert plan.descriptors == done.report.descriptors_generated
    again = built(site)
    assert (tasks(again), again.outcome) == ((), "IDEMPOTENT_NO_OP"), again.failure


def test_a_moved_cache_directory_has_nothing_to_do(site: Path) -> None:
    (site / "elsewhere").mkdir()
    moved = (site / "cache").rename(site / "elsewhere" / "moved")
    assert not make_plan(moved).has_work
    done = build(moved)
    assert (tasks(done), done.outcome) == ((), "IDEMPOTENT_NO_OP"), done.failure


def test_another_host_compiles_again_but_prepares_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = OnnxRuntime().probe()
    monkeypatch.setattr(OnnxRuntime, "probe", lambda self: HostTuple(**{**here._asdict(), "device": "other"}))
    done = built(site)
    assert (tasks(done), done.outcome) == (FROM_ENGINE, "SUCCESS"), done.failure
    assert done.report.engines_built == 1


@pytest.fixture
def gap(site: Path) -> Path:
    """A site that was built with one tile of its area missing."""
    remove_tile(site)
    assert built(site).outcome == "SUCCESS"
    return site


def test_an_added_tile_costs_one_inference_and_gives_what_a_clean_build_gives(gap: Path) -> None:
    put_tile(gap / "tiles", WEST, NORTH, seed=777)
    added = built(gap)
    assert (tasks(added), added.report.descriptors_generated) == (FROM_TILES, 1)
    index = (published(gap) / "corpus.index").read_bytes()
    lose_build(gap)
    (gap / "cache" / "current").unlink()
    clean = built(gap)
    assert clean.report.descriptors_generated == 4
    assert (published(gap) / "corpus.index").read_bytes() == index
    assert clean.report.manifest_hash == added.report.manifest_hash


def test_a_tile_that_comes_back_is_neither_described_nor_indexed_again(gap: Path) -> None:
    put_tile(gap / "tiles", WEST, NORTH, seed=0)
    back = built(gap)
    assert (tasks(back), back.report.descriptors_generated) == (FROM_GATES, 0)


def test_another_zoom_level_describes_only_its_own_tiles(site: Path) -> None:
    put_tile(site / "tiles", WEST // 2, NORTH // 2, seed=5000, z=ZOOM - 1)
    set_key("zooms", f"[{ZOOM - 1}, {ZOOM}]")(site)
    done = built(site)
    assert (tasks(done), done.report.descriptors_generated) == (FROM_TILES, 1), done.failure


def test_a_flight_id_alone_re_signs_and_computes_nothing(site: Path) -> None:
    before = (published(site) / "corpus.index").stat().st_ino
    set_key("id", '"F-2"')(site)
    done = built(site)
    assert (done.report.engines_built, done.report.engines_reused, done.report.descriptors_generated) == (0, 1, 0)
    assert (published(site) / "corpus.index").stat().st_ino == before


def test_what_is_published_is_verified_once_where_nothing_changed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    monkeypatch.setattr(reasons, "verify", lambda *args, **kwargs: verified.append(args) or verify(*args, **kwargs))
    assert built(site).outcome == "IDEMPOTENT_NO_OP"
    assert len(verified) == 1


def test_an_orphan_refuses_and_keeps_the_generation(site: Path) -> None:
    generation = published(site)
    generation.chmod(0o755)
    (generation / "orphan").write_text("x")
    done = built(site)
    assert (tasks(done), done.outcome) == ((), "FAILURE")
    assert isinstance(done.failure, ManifestCoverageError)
    assert "orphan" in str(done.failure)
    assert published(site) == generation


def test_an_orphan_only_warns_where_coverage_is_lenient(site: Path) -> None:
    set_key("strict", "false")(site)
    generation = published(site)
    generation.chmod(0o755)
    (generation / "orphan").write_text("x")
    done = built(site)
    assert (tasks(done), done.outcome) == ((), "IDEMPOTENT_NO_OP")


def test_engines_alone_can_be_compiled_without_a_tile(site: Path) -> None:
    shutil.rmtree(site / "tiles" / str(ZOOM))
    set_key("precision", '"fp16"')(site)
    done = build(site / "cache", "engine")
    assert (tasks(done), done.outcome) == (("onnx", "engine"), "SUCCESS"), done.failure
