"""flight.toml: every mistake at once, each with its key and what was expected."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import ConfigError
from provisioning.base.geometry.angles import BBox, Origin
from provisioning.config.parse import KEPT, keep_tables, parse, read_flight, require_sources
from provisioning.config.template import render

VALID = """
[flight]
takeoff = {lat = 0.5, lon = 1.25, alt_m = 12.5}
[area]
bbox = [10, 20, 11, 21]
zooms = [10]
[[tiles.source]]
path = "tiles"
[[backbone]]
name = "gist"
[signing]
key = "key.pem"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "key.pem").write_text("")
    (tmp_path / "key.pem").chmod(0o600)
    return tmp_path


def mistakes(text: str, root: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(textwrap.dedent(text), root=root)
    assert caught.value.file == str(root / "flight.toml")
    return {key: str(problem) for key, problem in caught.value.facts.items()}


def changed(old: str, new: str) -> str:
    assert old in VALID
    return VALID.replace(old, new)


def test_angles_become_whole_1e7_degrees_and_heights_millimetres(root: Path) -> None:
    flight = parse(VALID, root=root)
    assert flight.area.bbox == BBox(100_000_000, 200_000_000, 110_000_000, 210_000_000)
    assert flight.flight.takeoff == Origin(5_000_000, 12_500_000, 12_500)


def test_paths_are_relative_to_the_file(root: Path) -> None:
    assert parse(VALID, root=root).tiles.source[0].path == root / "tiles"


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (changed("[10, 20, 11, 21]", "[10, 21, 11, 20]"), "area.bbox", "south is not below north"),
        (changed("[10, 20, 11, 21]", "[11, 20, 10, 21]"), "area.bbox", "antimeridian"),
        (changed("[10, 20, 11, 21]", "[10, 20, 10, 21]"), "area.bbox", "west equals east"),
        (changed("[10, 20, 11, 21]", "[10, 20, 11, 89]"), "area.bbox", "Web Mercator"),
        (changed("[10, 20, 11, 21]", "[10, 20, 11, 91]"), "area.bbox[3] (north)", "between -90 and 90"),
        (changed("[10, 20, 11, 21]", "[10, 20, 11]"), "area.bbox", "[west, south, east, north]"),
        (changed("[10, 20, 11, 21]", "[10, 20, 11.00000001, 21]"), "area.bbox[2] (east)", "7 decimals"),
        (changed("[10, 20, 11, 21]", "[10, 20, inf, 21]"), "area.bbox[2] (east)", "expected a number"),
        (changed("zooms = [10]", "zooms = []"), "area.zooms", "is empty"),
        (changed("zooms = [10]", "zooms = [99]"), "area.zooms[0]", "between 0 and 24"),
        (changed("zooms = [10]", "zooms = [10, 10]"), "area.zooms", "twice"),
        (changed("zooms = [10]", "zooms = [24]"), "area", "more than 50,000,000"),
        (changed("zooms = [10]", "zooms = [10]\nzoms = [1]"), "area.zoms", "did you mean 'zooms'"),
        (changed("zooms = [10]", "zooms = [10]\nmin_coverage = {11 = 1}"), "area.min_coverage.11", "not among"),
        (changed('path = "tiles"', "path = 3"), "tiles.source[0].path", "expected text"),
        (changed('name = "gist"', 'name = "a b"'), "backbone[0].name", "expected letters"),
        (changed('name = "gist"', ""), "backbone[0].name", "is missing"),
        (changed('name = "gist"', 'name = "a"\n[[backbone]]\nname = "a"\nrole = "x"'), "backbone.name", "2 entries"),
        (changed('name = "gist"', 'name = "a"\n[[backbone]]\nname = "b"'), "backbone.role", "found a, b"),
        (changed('name = "gist"', 'name = "a"\nonnx = "a.onnx"'), "backbone[0].onnx", "no such file"),
        (changed('name = "gist"', 'name = "a"\nprecision = "fp61"'), "backbone[0].precision", "did you mean 'fp16'"),
        (changed('name = "gist"', 'name = "a"\nstd = [0]'), "backbone[0].std", "contains 0"),
        (changed('key = "key.pem"', 'key = "none.pem"'), "signing.key", "flightcache keygen"),
        (changed('key = "key.pem"', ""), "signing", "exactly one of key and command"),
        (changed("lat = 0.5", "lat = 90.5"), "flight.takeoff.lat", "between -90 and 90"),
        (changed("[flight]", '[flight]\nid = "a b"'), "flight.id", "without spaces"),
        (changed("bbox = [10, 20, 11, 21]", ""), "area", "one of bbox, geojson, mission"),
        (changed("zooms = [10]", "zooms = [10]\nbuffer_m = 5"), "area.buffer_m", "not to a bbox"),
        (changed("zooms = [10]", "zooms = [10]\ngeojson = 'key.pem'"), "area", "got bbox, geojson"),
        (changed("zooms = [10]", "zooms = [10]\n[[area.part]]\nzooms = [9]"), "area.part[0]", "got none"),
        (
            changed("zooms = [10]", "zooms = [10]\n[[area.part]]\nmission = 'none.plan'"),
            "area.part[0].mission",
            "no such file",
        ),
        (changed('path = "tiles"', 'path = "tiles"\nname = "a b"'), "tiles.source[0].name", "without spaces"),
        (changed('path = "tiles"', 'path = "tiles"\ncaptured = "May"'), "tiles.source[0].captured", "YYYY-MM-DD"),
        (changed('path = "tiles"', 'path = "tiles"\ncaptured = "no.csv"'), "tiles.source[0].captured", "no such file"),
        (changed('path = "tiles"', 'path = "tiles"\npattern = "{z}"'), "tiles.source[0].pattern", "{x}"),
        (
            changed('path = "tiles"', 'path = "tiles"\n[[tiles.source]]\npath = "tiles"'),
            "tiles.source.name",
            "2 entries",
        ),
        (changed("[[tiles.source]]", "[tiles]\nnodata = [1, 2]\n[[tiles.source]]"), "tiles.nodata", "one grey level"),
        (changed('name = "gist"', 'name = "a"\nrole = "descriptor"\npreset = "x"'), "backbone[0].preset", "mixvpr"),
        (changed('name = "gist"', 'name = "a"\nsize = [1, 2, 3]'), "backbone[0].size", "[height, width]"),
        (changed('name = "gist"', 'name = "a"\nmean = [1, 2]'), "backbone[0].mean", "3 numbers"),
        (changed('name = "gist"', 'name = "a"\nprofile = {least = 1}'), "backbone[0].profile", "min, opt, max"),
        (changed('name = "gist"', 'name = "a"\ncustom_ops = "no.so"'), "backbone[0].custom_ops", "no such file"),
        (
            changed('name = "gist"', 'name = "a"\n[[backbone]]\nname = "b"\nrole = "x y"'),
            "backbone[1].role",
            "without spaces",
        ),
        (changed('key = "key.pem"', 'key = "tiles"'), "signing.key", "not a regular file"),
        (changed('key = "key.pem"', 'command = ["x"]'), "signing.public_key", "needed with signing.command"),
        (changed("lat = 0.5", "lat = 86"), "flight.takeoff.lat", "Web Mercator"),
        (changed("lat = 0.5, ", ""), "flight.takeoff", "lat = …, lon = …"),
        (VALID + "[descriptors]\nexecutor = 'dask'\n", "descriptors.scheduler", "tcp://"),
        (VALID + "[[waiver]]\ngate = 'x'\nby = 'me'\nreason = 'y'\n", "waiver[0].gate", "expected one of"),
        (VALID + "[[calibration]]\npath = 'key.pem'\npurpose = 'a b'\n", "calibration[0].purpose", "without spaces"),
        (VALID + "[index]\nmemory_mb = true\n", "index.memory_mb", "expected a whole number"),
        (VALID + "[index]\ntransform = 'pca'\n", "index.transform", "pca(d)"),
        (VALID + "[[calibration]]\npath = 'none.yml'\n", "calibration[0].path", "no such file"),
    ],
)
def test_each_mistake_names_its_key_and_what_was_expected(root: Path, text: str, key: str, problem: str) -> None:
    found = mistakes(text, root)
    assert list(found) == [key]
    assert problem in found[key]


def test_all_mistakes_are_reported_at_once(root: Path) -> None:
    text = changed("zooms = [10]", "zooms = [99]").replace('"gist"', "3").replace('"key.pem"', '"none.pem"')
    assert set(mistakes(text, root)) == {"area.zooms[0]", "backbone[0].name", "signing.key"}


def test_key_readable_by_others_is_refused(root: Path) -> None:
    (root / "key.pem").chmod(0o640)
    assert "readable by others (mode 0640)" in mistakes(VALID, root)["signing.key"]


def test_antimeridian_bbox_is_accepted(root: Path) -> None:
    flight = parse(changed("[10, 20, 11, 21]", "[179.5, 20, -179.5, 21]"), root=root)
    assert flight.area.bbox is not None
    assert flight.area.bbox.west > flight.area.bbox.east


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[a", b"a = " + b"[" * 100_000, b"#" * (1 << 21)])
def test_a_file_that_is_no_toml_is_one_clear_error(root: Path, data: bytes) -> None:
    (root / "flight.toml").write_bytes(data)
    with pytest.raises(ConfigError):
        read_flight(root)


def test_the_mark_of_an_editor_of_windows_is_no_mistake(root: Path) -> None:
    (root / "flight.toml").write_text(textwrap.dedent(VALID), encoding="utf-8-sig")
    assert read_flight(root) == parse(VALID, root=root)


def test_missing_flight_toml_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="flightcache init"):
        read_flight(tmp_path)


def test_template_shows_every_key_and_parses_to_the_defaults(root: Path) -> None:
    text = render(
        {
            "area": {"bbox": [10, 20, 11, 21], "zooms": [10]},
            "tiles.source": [{"path": "tiles"}],
            "backbone": [{"name": "gist"}],
            "signing": {"key": "key.pem"},
        }
    )
    assert parse(text, root=root) == parse(
        VALID.replace("takeoff = {lat = 0.5, lon = 1.25, alt_m = 12.5}", ""), root=root
    )
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and "…" not in line else line for line in text.splitlines()
    )
    unknown = [key for key, problem in _issues(uncommented, root).items() if "unknown key" in problem]
    assert unknown == []


def _issues(text: str, root: Path) -> dict[str, str]:
    try:
        parse(text, root=root)
    except ConfigError as error:
        return {key: str(value) for key, value in error.facts.items()}
    return {}


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (VALID.replace('path = "tiles"', 'path = "none"'), "tiles.source[0].path", "no such file"),
        (VALID.replace('[[tiles.source]]\npath = "tiles"\n', ""), "tiles.source", "is missing"),
    ],
)
def test_a_tile_source_that_is_not_there_is_named_where_tiles_are_needed(root, text, key, problem):
    with pytest.raises(ConfigError) as wrong:
        require_sources(root, parse(text, root=root).tiles.source)
    assert problem in str(wrong.value.facts[key])


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("[camera]\nfov_deg = 60\nfocal_px = 900\n", "camera", "needs one of"),
        ("[camera]\ncalibration = 'a.yml'\nprincipal_px = [1, 2]\n", "camera.calibration", "leave principal_px"),
        ("[camera]\nfocal_mm = 4.5\n", "camera.sensor_width_mm", "give both or neither"),
        ("[camera]\nfov_deg = 60\nwidth_px = 4000\n", "camera.height_px", "give both or neither"),
        ("[camera]\nfov_deg = 60\nprincipal_px = [1]\n", "camera.principal_px", "expected [x, y]"),
        ("[camera]\nfov_deg = 60\ndistortion = [0.1]\n", "camera.distortion", "4 or 5 or 8 coefficients"),
        (
            "[camera]\nfov_deg = 60\ndistortion_model = 'fisheye'\ndistortion = [0.1, 0, 0, 0, 0]\n",
            "camera.distortion",
            "expected 4 coefficients",
        ),
        ("[camera]\ndistortion = [0.1, 0, 0, 0]\n", "camera", "no focal length"),
        ("[camera]\ncalibration = 'none.yml'\n", "camera.calibration", "no such file"),
        ("[[waiver]]\ngate = 'freshness'\nby = 'me'\nreason = ' '\n", "waiver[0].reason", "1 to 4096 characters"),
        ("[[waiver]]\ngate = 'freshness'\nby = 'me'\nreason = 'old'\n" * 65, "waiver", "at most 64"),
        ("[[calibration]]\npath = 'key.pem'\npurpose = 'imu'\n" * 504, "calibration", "at most 503"),
    ],
)
def test_contradictions_of_camera_waivers_and_calibration_name_their_key(root, text, key, problem):
    with pytest.raises(ConfigError) as wrong:
        parse(VALID + text, root=root)
    assert problem in str(wrong.value.facts[key])


def _kept(text: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Keep the tables of `text` as a build does, then read it where TOML's parser fails whoever asks it."""
    (root / "flight.toml").write_text(text, encoding="utf-8")
    expected = read_flight(root)
    with build_lock(root):
        keep_tables(root)
    with monkeypatch.context() as patched:
        patched.setattr("tomllib.loads" if sys.version_info >= (3, 11) else "tomli.loads", pytest.fail)
        assert read_flight(root) == expected
    return expected


@pytest.mark.parametrize("text", [VALID, VALID + "\n# a comment\n", VALID + "\n[sector.coast]\nmax_age_days = 30\n"])
def test_tables_that_a_build_kept_are_read_without_the_parser_of_toml(root, text, monkeypatch):
    _kept(text, root, monkeypatch)


def test_kept_tables_are_those_of_the_same_text_alone(root, monkeypatch):
    before = _kept(VALID, root, monkeypatch)
    (root / "flight.toml").write_text(VALID.replace("zooms = [10]", "zooms = [11]"))
    assert read_flight(root) != before
    (root / "flight.toml").write_text("[area")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_flight(root)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"flight.toml": {"check": "", "value": "{}"}}', None])
def test_kept_tables_that_are_damaged_are_read_from_the_file(root, damage, monkeypatch):
    expected = _kept(VALID, root, monkeypatch)
    kept = root / KEPT
    kept.unlink()
    if damage is None:
        os.mkfifo(kept)
    else:
        kept.write_bytes(damage)
    assert read_flight(root) == expected


@pytest.mark.parametrize("value", ["2027-03-01", '{"" = "1.5"}', '{"" = "no number"}', '{"" = [1]}'])
def test_tables_that_json_cannot_give_back_are_not_kept(root, value):
    (root / "flight.toml").write_text(f"date = {value}")
    with build_lock(root):
        keep_tables(root)
    assert not (root / KEPT).exists()
