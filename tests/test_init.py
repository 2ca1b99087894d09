"""`flightcache init`: all that a user needs between their tiles and `doit`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, EmptyCorpusError, TileError
from provisioning.cli import main
from provisioning.cli.begin.init import DODO, create_cache
from provisioning.config.parse import read_flight
from tests.building import NORTH, WEST, ZOOM, build, edit, put_tile, put_tiles

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    put_tiles(tmp_path / "tiles", side=2)
    return tmp_path / "tiles"


def test_init_says_what_the_source_holds(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That `doit` is all that is left to do: `test_the_first_cache_of_ones_own`."""
    assert main(["init", str(tmp_path / "cache"), "--tiles", str(tiles)]) == 0
    assert f"zoom {ZOOM}: 4 of 4" in capsys.readouterr().out


def test_area_and_zooms_are_what_the_source_holds(tiles: Path, tmp_path: Path) -> None:
    create_cache(tmp_path / "cache", tiles=tiles)
    flight = read_flight(tmp_path / "cache")
    assert flight.area.zooms == (ZOOM,)
    assert build(tmp_path / "cache").report.descriptors_generated == 4 + 5  # tiles, and the cuts between them


def test_an_incomplete_source_builds_and_its_coverage_is_written_down(tiles: Path, tmp_path: Path) -> None:
    put_tiles(tiles, side=3)
    (tiles / str(ZOOM) / str(WEST + 1) / f"{NORTH + 1}.jpg").unlink()
    create_cache(tmp_path / "cache", tiles=tiles)
    assert read_flight(tmp_path / "cache").area.min_coverage == {ZOOM: Decimal("0.8888")}
    edit(tmp_path / "cache", "# samples = 64", "samples = 1")
    assert build(tmp_path / "cache").outcome == "SUCCESS"


def test_a_new_key_pair_lies_outside_and_is_named(tiles: Path, tmp_path: Path, home: Path) -> None:
    new = create_cache(tmp_path / "cache", tiles=tiles)
    assert new.key == home / "flightcache" / "cache.pem"
    assert new.key.stat().st_mode & 0o777 == 0o600
    assert new.public_key.is_file()


def test_a_second_cache_of_the_same_name_gets_its_own_key(tiles: Path, tmp_path: Path) -> None:
    first = create_cache(tmp_path / "a" / "cache", tiles=tiles)
    second = create_cache(tmp_path / "b" / "cache", tiles=tiles)
    assert first.key != second.key


def test_a_key_without_its_public_half_beside_it_signs(tiles: Path, tmp_path: Path) -> None:
    new = create_cache(tmp_path / "made" / "cache", tiles=tiles)
    alone = tmp_path / "alone.pem"
    alone.write_bytes(new.key.read_bytes())
    alone.chmod(0o600)
    create_cache(tmp_path / "cache", tiles=tiles, key=alone)
    edit(tmp_path / "cache", "# samples = 64", "samples = 1")
    assert build(tmp_path / "cache").outcome == "SUCCESS"


@pytest.mark.parametrize("name", ["flight.toml", "dodo.py", "doit.cfg"])
def test_nothing_is_overwritten(tiles: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).write_text("mine")
    with pytest.raises(ConfigError, match="already there"):
        create_cache(tmp_path / "cache", tiles=tiles)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]
    assert (tmp_path / "cache" / name).read_text() == "mine"


def test_empty_source_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises((EmptyCorpusError, TileError)):
        create_cache(tmp_path / "cache", tiles=tmp_path / "none")
    assert not (tmp_path / "cache").exists()


def test_tiles_inside_the_directory_are_named_relative_so_that_it_can_be_moved(tmp_path: Path) -> None:
    put_tile(tmp_path / "cache" / "tiles", WEST, NORTH, seed=1)
    create_cache(tmp_path / "cache", tiles=tmp_path / "cache" / "tiles")
    assert 'path = "tiles"' in (tmp_path / "cache" / "flight.toml").read_text()


def test_the_projects_own_dodo_is_the_one_that_init_writes() -> None:
    assert (ROOT / "dodo.py").read_text() == DODO
