"""Heights above mean sea level become heights above the ellipsoid where a geoid model is installed; elsewhere they stay."""

import struct
from types import SimpleNamespace

import pytest

from provisioning.area import geoid
from provisioning.area.geoid import folders
from provisioning.area.place import height_in_words
from provisioning.base.geometry.angles import Origin
from provisioning.build.generation import contents
from provisioning.config import FlightIdentity

pyproj = pytest.importorskip("pyproj", reason="geoid grids need the extra geo")

PLACE = Origin(470_000_000, 70_000_000, 500_000)


def write_grid(folder, undulation_m, *, name="egm96_15.gtx"):
    """Write a grid of PROJ, NOAA's GTX: header, then rows of big-endian floats from the south."""
    folder.mkdir(exist_ok=True)
    header = struct.pack(">4d2i", 40.0, 0.0, 1.0, 1.0, 15, 15)
    rows = [undulation_m + row * 0.5 for row in range(15) for _ in range(15)]
    (folder / name).write_bytes(header + struct.pack(f">{len(rows)}f", *rows))
    return folder


def test_a_grid_that_is_installed_is_added(tmp_path, monkeypatch):
    grids = write_grid(tmp_path / "proj", 40.0)
    monkeypatch.setattr(geoid, "folders", lambda: (tmp_path / "none", grids))
    assert geoid.above_ellipsoid(PLACE) == (500_000 + 40_000 + 7 * 500, "EGM96")
    half = PLACE._replace(lat_e7=475_000_000, lon_e7=75_000_000, alt_mm=-1_000)
    assert geoid.above_ellipsoid(half) == (-1_000 + 43_750, "EGM96")
    assert geoid.above_ellipsoid(PLACE._replace(lat_e7=0)) is None
    assert geoid.above_ellipsoid(PLACE._replace(alt_mm=None)) is None


def test_without_a_grid_nothing_is_converted(monkeypatch):
    monkeypatch.setattr(geoid, "folders", tuple)
    assert geoid.above_ellipsoid(PLACE) is None


def test_the_user_names_the_folder_of_grids(tmp_path, monkeypatch):
    monkeypatch.setenv("PROJ_DATA", f"relative:{tmp_path / 'proj'}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    found = folders()
    assert found[0] == tmp_path / "proj"
    assert tmp_path / "data" / "proj" in found
    assert all(folder.is_absolute() for folder in found)


@pytest.mark.skipif(
    not any((f / n).is_file() for f in geoid.SYSTEM_FOLDERS for _, n in geoid.MODELS), reason="no geoid is installed"
)
@pytest.mark.parametrize(
    ("lat", "lon", "undulation_m"),
    [(38.6281550, -90.220845, -31.628), (-14.6212170, -54.978886, -2.969), (46.8743190, 102.4487290, -43.575)],
)
def test_a_real_model_gives_the_published_undulations(monkeypatch, lat, lon, undulation_m):
    monkeypatch.setattr(geoid, "folders", lambda: geoid.SYSTEM_FOLDERS)
    found = geoid.above_ellipsoid(Origin(round(lat * 1e7), round(lon * 1e7), 0))
    assert found is not None
    assert found.alt_mm / 1000 == pytest.approx(undulation_m, abs=0.1 if found.model == "EGM96" else 1.5)


def flown(takeoff, datum, *, home=None, home_datum=None):
    identity = FlightIdentity(takeoff=takeoff, takeoff_datum=datum)
    request = SimpleNamespace(
        flight=SimpleNamespace(flight=identity), tiles=SimpleNamespace(takeoff=home, home_datum=home_datum)
    )
    return contents._flight(request).takeoff_origin


def test_manifest_has_the_ellipsoid_where_it_can_and_names_the_datum(tmp_path, monkeypatch):
    assert flown(PLACE, "amsl") == PLACE._replace(alt_datum="amsl")
    assert flown(PLACE, "ellipsoid") == PLACE._replace(alt_datum="ellipsoid")
    assert flown(None, "ellipsoid", home=PLACE, home_datum="relative") == PLACE._replace(alt_mm=None)
    monkeypatch.setattr(geoid, "folders", lambda: (write_grid(tmp_path / "proj", 40.0),))
    for of in (flown(PLACE, "amsl"), flown(None, "ellipsoid", home=PLACE, home_datum="amsl")):
        assert of == PLACE._replace(alt_mm=543_500, alt_datum="ellipsoid")
        assert height_in_words(of) == "543.5\u00a0m above the WGS 84 ellipsoid"
    assert flown(PLACE, "ellipsoid") == PLACE._replace(alt_datum="ellipsoid")
    assert height_in_words(PLACE._replace(alt_datum="amsl")) == "500.0\u00a0m above mean sea level"


def test_a_model_that_is_installed_later_is_named(tmp_path, monkeypatch):
    assert geoid.installed() is None
    monkeypatch.setattr(geoid, "folders", lambda: (write_grid(tmp_path / "proj", 40.0),))
    assert geoid.installed() == "EGM96"
