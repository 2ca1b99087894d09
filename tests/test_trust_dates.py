"""The last day of a cache: asked for in flight.toml, signed, and kept to by every verifier."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning.base.errors import ConfigError
from provisioning.build.generation import contents
from provisioning.cli import main
from provisioning.config.parse import parse
from tests import building

FLIGHT = """
[flight]
not_after = {value}
[area]
bbox = [10, 20, 11, 21]
zooms = [10]
[[tiles.source]]
path = "."
[[backbone]]
name = "gist"
[signing]
public_key = "key.pem"
command = ["sign"]
"""


@pytest.mark.parametrize("value", ["2027-03-01", "2027-03-01T06:00:00Z", "2028-02-29"])
def test_a_day_or_a_second_in_utc(tmp_path: Path, value: str) -> None:
    (tmp_path / "key.pem").write_text("")
    assert parse(FLIGHT.replace("{value}", f'"{value}"'), root=tmp_path).flight.not_after == value


@pytest.mark.parametrize(
    "value",
    ['"2027-02-29"', '"2027-3-1"', '"2027-03-01T06:00:00"', '"2027-03-01T06:00:00+02:00"', '"2027-03-01T06:00:60Z"',
     '"2027-03-01T6:0:0Z"', '"tomorrow"', '""', "2027-03-01", "1803859200"],
)  # fmt: skip
def test_anything_else_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "key.pem").write_text("")
    with pytest.raises(ConfigError) as refused:
        parse(FLIGHT.replace("{value}", value), root=tmp_path)
    assert "flight.not_after" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "signed"),
    [(None, None), ("2027-03-01", "2027-03-01T23:59:59Z"), ("2027-03-01T06:00:00Z", "2027-03-01T06:00:00Z")],
)
def test_a_day_is_signed_as_its_last_second(value: str | None, signed: str | None) -> None:
    identity = SimpleNamespace(id="F-1", aircraft=None, takeoff=None, takeoff_datum="amsl", sector_class="default")
    identity.not_after = value
    request = SimpleNamespace(
        flight=SimpleNamespace(flight=identity), tiles=SimpleNamespace(takeoff=None, home_datum=None)
    )
    assert contents._flight(request).not_after == signed


@pytest.mark.slow
def test_the_day_is_signed_and_changing_it_only_signs_again(tmp_path: Path, capsys) -> None:
    cache = building.new_cache(tmp_path, side=2)
    building.edit(cache, "[flight]\n", '[flight]\nnot_after = "2199-03-01"\n')
    assert building.build(cache).outcome == "SUCCESS"
    words = ["verify", str(cache), "--public-key", str(tmp_path / "key.pub.pem"), "--ground"]
    assert main([*words, "--at", "2199-03-01T23:59:59Z"]) == 0
    assert main([*words, "--at", "2199-03-02"]) == 22
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
    building.edit(cache, "2199-03-01", "2199-04-01")
    again = building.build(cache).report
    assert (again.outcome, again.engines_built, again.descriptors_generated) == ("SUCCESS", 0, 0)
    assert main([*words, "--at", "2199-03-02"]) == 0


@pytest.mark.slow
def test_a_day_that_is_over_publishes_nothing(tmp_path: Path) -> None:
    cache = building.new_cache(tmp_path, side=2)
    building.edit(cache, "[flight]\n", '[flight]\nnot_after = "2001-03-01"\n')
    built = building.build(cache)
    assert built.outcome == "FAILURE"
    assert "not to be flown after 2001-03-01T23:59:59Z" in str(built.failure)
    assert not (cache / "current").exists()
