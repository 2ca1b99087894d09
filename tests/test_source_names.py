"""Sources are published under their own names or those of their files, however these are written, up to 256 of them."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import ConfigError
from provisioning.base.limits import MAX_SOURCES
from provisioning.config import TileSource
from provisioning.config.naming import with_names
from provisioning.config.parse import parse, read_flight
from provisioning.flight import manifest
from tests.building import build, new_cache, put_tile
from tests.properties import examples
from tests.test_tile_stores import written


def names(*paths, **given_names):
    return [s.name for s in with_names([TileSource(path=p, name=given_names.get(p.name, "")) for p in paths])]


def test_names_of_files_become_legal_and_stay_what_they_are(tmp_path):
    files = ["ortho (2).mbtiles", "Zürich süd.pmtiles", "飛行", "plain.mbtiles", "camera(1)"]
    assert names(*(tmp_path / f for f in files)) == [
        "ortho_(2).mbtiles", "Z_rich_s_d.pmtiles", "_", "plain.mbtiles", "camera(1)",
    ]  # fmt: skip


def test_files_of_one_name_are_numbered_and_the_first_keeps_its_name(tmp_path):
    paths = [tmp_path / "a" / "sat.mbtiles", tmp_path / "b" / "sat.mbtiles", tmp_path / "c" / "sat.mbtiles"]
    assert names(*paths) == ["sat.mbtiles", "sat-2.mbtiles", "sat-3.mbtiles"]
    assert names(*paths[:1]) == ["sat.mbtiles"]


def test_a_name_that_was_given_is_never_changed(tmp_path):
    given_last = [TileSource(path=tmp_path / "sat"), TileSource(path=tmp_path / "other", name="sat")]
    assert [source.name for source in with_names(given_last)] == ["sat-2", "sat"]


@examples(4, nightly=20)
@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6), min_size=1, max_size=3))
def test_every_name_of_a_file_gives_one_that_a_manifest_holds(files):
    from pathlib import Path

    found = [
        source.name
        for source in with_names([TileSource(path=Path("/tiles") / str(n) / f) for n, f in enumerate(files)])
    ]
    assert len(set(found)) == len(found)
    for name in found:
        assert 0 < len(name) <= 128
        assert set(name) <= set(string.printable) - set(string.whitespace)


def test_a_long_name_is_cut(tmp_path):
    assert names(tmp_path / ("x" * 250)) == ["x" * 120]


def test_an_illegal_name_that_was_given_is_an_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        parse(written(tmp_path, 'path = "tiles"\nname = "two words"'), root=tmp_path)
    assert "tiles.source[0].name" in caught.value.facts


def many(count: int) -> str:
    return "\n[[tiles.source]]\n".join(f'path = "s{n:03}"' for n in range(count))


def test_256_sources_are_accepted_and_257_are_not(tmp_path):
    assert len(parse(written(tmp_path, many(MAX_SOURCES)), root=tmp_path).tiles.source) == MAX_SOURCES == 256
    with pytest.raises(ConfigError) as caught:
        parse(written(tmp_path, many(MAX_SOURCES + 1)), root=tmp_path)
    assert "257 sources" in caught.value.facts["tiles.source"]


def with_sources(parent, folders):
    """Make a cache of one tile for each folder, in as many sources without names."""
    cache = new_cache(parent, side=1)
    for n, folder in enumerate(folders):
        put_tile(parent / folder, 8580, 5736, seed=n)
    text = (cache / "flight.toml").read_text()
    start = text.index("path = ", text.index("[[tiles.source]]"))
    tables = "\n[[tiles.source]]\n".join(f'path = "../{folder}"' for folder in folders)
    (cache / "flight.toml").write_text(text[:start] + tables + text[text.index("\n", start) :])
    return cache


@pytest.mark.slow
def test_files_of_any_name_are_published(tmp_path):
    cache = with_sources(tmp_path, ["a b (1)", "é", "x/same", "y/same"])
    done = build(cache)
    assert done.outcome == "SUCCESS"
    signed = manifest.parse((cache / "current/Manifest.json").read_bytes()).tiles
    assert signed.sources == ("_", "a_b_(1)", "same", "same-2")
    assert sorted(s.name for s in read_flight(cache).tiles.source) == list(signed.sources)


@pytest.mark.slow
def test_256_sources_are_published_and_verified(tmp_path):
    cache = with_sources(tmp_path, [f"many/s{n:03}" for n in range(MAX_SOURCES)])
    assert build(cache).outcome == "SUCCESS"
    assert len(manifest.parse((cache / "current/Manifest.json").read_bytes()).tiles.sources) == MAX_SOURCES
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
