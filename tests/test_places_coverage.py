"""Imagery that is not there is no coverage; what init leaves out or asks is said."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import ConfigError
from provisioning.catalogue import scan
from provisioning.catalogue.inventory import take_inventory
from provisioning.catalogue.surveying import survey
from provisioning.cli import main
from provisioning.cli.begin.init import create_cache
from provisioning.config.parse import read_flight
from provisioning.sources.pixels.image import inspect_tile
from tests.tilesets import X, Y, Z, bbox_of, block, flight, image, scanned, write_xyz


def picture(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8))).save(
        out, kind, **({"quality": 80} if kind == "JPEG" else {})
    )
    return out.getvalue()


def half(colour, share, side=256):
    """Return noise of which the lower `share` has one colour."""
    pixels = np.random.default_rng(3).integers(20, 230, (side, side, 3))
    pixels[round(side * (1 - share)) :] = colour
    return pixels


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("colour", [0, 255])
def test_black_and_white_borders_are_empty_in_any_format(kind, colour):
    for share in (0, 0.25, 0.75, 1):
        found = inspect_tile(picture(half(colour, share), kind), max_pixels=1 << 20, nodata=())
        assert found.empty_ppm == pytest.approx(share * 1e6, abs=40_000)
        kept = inspect_tile(picture(half(colour, share), kind), max_pixels=1 << 20, nodata=(), blank=False)
        assert kept.empty_ppm == 0


@pytest.mark.parametrize("colour", [(90, 120, 200), (0, 0, 0), (128, 128, 128)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_tile_of_one_colour_is_empty(colour, kind):
    pixels = np.broadcast_to(np.array(colour), (64, 64, 3))
    assert inspect_tile(picture(pixels, kind), max_pixels=1 << 20, nodata=()).empty_ppm == 1_000_000


def with_placeholders(count=7):
    """Return 49 tiles of which `count` are a provider's "no imagery" picture, with texture."""
    tiles = block(7, 7)
    same = image(12_345, side=64)
    return tiles | dict.fromkeys(list(tiles)[::7][:count], same)


def test_a_repeated_picture_is_a_hole(tmp_path):
    tiles = with_placeholders()
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.count, corpus.per_zoom[Z].present, corpus.per_zoom[Z].expected) == (42, 42, 49)
    assert sum(row.empty for row in take_inventory(asked.selection, asked.build_dir).sources) == 7
    kept = flight(tmp_path / "kept", tmp_path / "sat", bbox=bbox_of(tiles), blank="keep")
    assert scan(kept.selection, kept.build_dir).count == 49


def test_a_picture_becomes_a_placeholder_when_it_has_come_often_and_imagery_again_when_it_is_replaced(tmp_path):
    tiles = with_placeholders(3)
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    assert scan(asked.selection, asked.build_dir).count == 49
    more = with_placeholders(4)
    write_xyz(store, {at: more[at] for at in tiles if more[at] != tiles[at]})
    assert scan(asked.selection, asked.build_dir).count == 45
    write_xyz(store, {at: block(7, 7)[at] for at in list(tiles)[:1]})
    assert scan(asked.selection, asked.build_dir).count == 49


def test_a_source_of_one_picture_is_asked_about_not_refused(tmp_path):
    tiles = dict.fromkeys(block(3, 3), image(1))
    held = survey(write_xyz(tmp_path / "sat", tiles))
    assert held.per_zoom[Z].present == 9
    assert "IS THIS IMAGERY?" in held.notes[0]
    assert scanned(flight(tmp_path, tmp_path / "sat", bbox=bbox_of(tiles))).count == 9


def test_a_hole_in_the_middle_is_a_question_in_the_output_and_in_the_file(tmp_path, capsys):
    tiles = block(3, 3)
    tiles.pop((Z, X + 1, Y + 1))
    write_xyz(tmp_path / "sat", tiles)
    assert main(["init", str(tmp_path / "cache"), "--tiles", str(tmp_path / "sat")]) == 0
    question = f"ZOOM {Z}: 8 OF 9 TILES ARE THERE. IS THAT ENOUGH TO FLY?"
    assert question in capsys.readouterr().out
    assert f"# {question}\n# accepted by init" in (tmp_path / "cache" / "flight.toml").read_text()


def test_far_off_tiles_are_left_out_and_named(tmp_path):
    tiles = block(3, 3) | {(Z, X + 5000, Y + 4000): image(77)}
    held = survey(write_xyz(tmp_path / "sat", tiles))
    assert held.bbox == bbox_of(block(3, 3))
    assert "9 of 10 tiles are in the area; left out: 1 near" in held.notes[0]


def test_a_world_base_map_with_a_small_finest_zoom_is_accepted_as_written(tmp_path):
    world = {(z, x, y): image(z * 100 + x * 8 + y) for z in range(3) for x in range(1 << z) for y in range(1 << z)}
    write_xyz(tmp_path / "sat", world | block(2, 2))
    create_cache(tmp_path / "cache", tiles=tmp_path / "sat")
    found = read_flight(tmp_path / "cache")
    assert found.area.bbox == bbox_of(block(2, 2))
    assert found.area.zooms == (0, 1, 2, Z)
    create_cache(tmp_path / "world", tiles=write_xyz(tmp_path / "base", world))
    assert read_flight(tmp_path / "world").area.zooms == (0, 1, 2)


def test_tiles_over_the_antimeridian_make_a_small_box(tmp_path):
    last = (1 << Z) - 1
    tiles = {(Z, x, Y): image(x) for x in (last - 1, last, 0, 1)}
    create_cache(tmp_path / "cache", tiles=write_xyz(tmp_path / "sat", tiles))
    box = read_flight(tmp_path / "cache").area.bbox
    assert box.west > box.east
    assert scanned(read_flight(tmp_path / "cache")).per_zoom[Z][:2] == (4, 4)


def test_init_takes_a_drawn_area_and_lowers_no_gate(tmp_path):
    tiles = block(3, 3)
    west, south, east, north = (side / 1e7 for side in bbox_of(tiles))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    tiles.pop((Z, X + 1, Y + 1))
    write_xyz(tmp_path / "sat", tiles)
    command = ["init", str(tmp_path / "cache"), "--tiles", str(tmp_path / "sat"), "--area", str(tmp_path / "a.geojson")]
    assert main(command) == 0
    area = read_flight(tmp_path / "cache").area
    assert (area.geojson, area.bbox, area.min_coverage) == (tmp_path / "a.geojson", None, {})


def test_an_area_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    write_xyz(tmp_path / "sat", block(2, 2))
    with pytest.raises(ConfigError, match="no such file"):
        create_cache(tmp_path / "cache", tiles=tmp_path / "sat", mission=tmp_path / "none.plan")
    assert not (tmp_path / "cache").exists()


def test_a_coarser_place_elsewhere_is_named_with_what_asks_for_it(tmp_path):
    tiles = {
        (12, 2200, 1400): image(1),
        (12, 2201, 1400): image(2),
        (11, 1100, 700): image(3),
        (11, 500, 900): image(4),
    }
    (said,) = (note for note in survey(write_xyz(tmp_path / "sat", tiles)).notes if "left out" in note)
    assert said.startswith("zoom 11: 1 of 2 tiles are in the area of the finest zoom; left out: 1 near ")
    corners = ", ".join(f"{side / 1e7:.7f}" for side in bbox_of({(11, 500, 900): b""}))
    assert said.endswith(f"[[area.part]] bbox = [{corners}], zooms = [11]")
