"""Settings are tried with the engine that was published, without a build of each: what is missing is made on the way."""

import json
import shutil

import pytest

from provisioning.base.errors import Error
from provisioning.base.geometry.geo import tile_centre
from provisioning.cli import main
from tests import building, models, networks
from tests.building import NORTH, WEST, ZOOM
from tests.shell import quote


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A site with a built cache and a list of four of its tiles as queries."""
    site = tmp_path_factory.mktemp("site") / "site"
    site.mkdir()
    cache = building.new_cache(site)
    assert building.build(cache).outcome == "SUCCESS"
    rows = ["file,lat,lon"]
    for x in range(WEST, WEST + 4):
        centre = tile_centre(ZOOM, x, NORTH)
        rows.append(f"tiles/{ZOOM}/{x}/{NORTH}.jpg,{centre.lat_e7 / 1e7},{centre.lon_e7 / 1e7}")
    (site / "queries.csv").write_text("\n".join(rows))
    return site


@pytest.fixture
def cache(built, tmp_path):
    return building.copy_site(built, tmp_path / "site")


def tried(cache, capsys, *settings):
    words = ["evaluate", str(cache.parent / "queries.csv"), str(cache), "--within", "10", "--own", "--json"]
    words += [word for setting in settings for word in ("--try", setting)]
    code = main([*words, "--public-key", str(cache.parent / "key.pub.pem")])
    return code, capsys.readouterr()


def test_settings_are_tried_after_the_build_directory_was_deleted(cache, capsys):
    shutil.rmtree(cache / ".build")
    code, said = tried(cache, capsys, "transform=center", "rotations=2")
    assert code == 0, said.err
    assert [row["recall"]["1"]["share"] for row in json.loads(said.out)] == [1, 1, 1]


def test_a_lost_engine_is_the_published_one_again_and_the_build_stays_what_it_was(cache, capsys):
    from provisioning.build.request import read_request

    engine = read_request(cache).descriptor_network.engine
    was = engine.path.read_bytes()
    engine.path.unlink()
    assert tried(cache, capsys, "kind=sq8")[0] == 0
    assert engine.path.read_bytes() == was
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"


def test_other_settings_of_the_network_than_the_published_say_what_to_type(cache, capsys):
    building.edit(cache, '# precision = "fp32"', 'precision = "fp16"')
    code, said = tried(cache, capsys, "transform=center")
    assert code == Error.exit_code
    assert f"next step: cd {quote(cache)} && doit" in said.err
    assert "fp16" in said.err
    assert "fp32" in said.err


def test_a_network_calibrated_on_tiles_is_tried_at_other_zooms_as_it_was_published(tmp_path, capsys):
    network = networks.save(models.linear(size=64), tmp_path / "net.onnx")
    cache = building.new_cache(tmp_path, side=2, network=network)
    building.edit(cache, "# recognition = 0.5", "recognition = 0")
    building.edit(cache, "# fidelity_cosine = {}", "fidelity_cosine = {int8 = 0.9}")
    building.edit(cache, '# precision = "fp32"', 'precision = "int8"')
    for x in range(WEST // 2, WEST // 2 + 2):
        building.put_tile(tmp_path / "tiles", x, NORTH // 2, seed=x, z=ZOOM - 1)
    assert building.build(cache).outcome == "SUCCESS"
    centre = tile_centre(ZOOM, WEST, NORTH)
    row = f"tiles/{ZOOM}/{WEST}/{NORTH}.jpg,{centre.lat_e7 / 1e7},{centre.lon_e7 / 1e7}"
    (tmp_path / "queries.csv").write_text(f"file,lat,lon\n{row}")
    code, said = tried(cache, capsys, f"zooms={ZOOM}", f"zooms={ZOOM - 1}")
    assert code == 0, said.err
    assert len(json.loads(said.out)) == 3
