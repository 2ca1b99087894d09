"""flight.toml to the letter: what each wrong value is answered with, and the values at the edge that are right."""

from __future__ import annotations

from decimal import Decimal

import pytest

from provisioning.base.errors import ConfigError
from provisioning.config import TileSource
from provisioning.config.naming import default_name, with_names
from provisioning.config.parse import parse, read_flight, read_toml, require_sources
from provisioning.config.template import HEAD, render, sections, toml
from tests.test_config import VALID, changed, mistakes

SOURCE = 'path = "tiles"'
DAY = "expected a day 2027-03-01 or a second 2027-03-01T06:00:00Z in UTC, got "
NO_PLUGIN = "does not apply to a plugin"
ARGUMENT = "expected the name of an argument of the store (root is given by flightcache)"
DESCRIPTOR = "exactly one backbone has the role 'descriptor'; found "
MEMBERS = "[[waiver]]\ngate = 'freshness'\nby = 'me'\nreason = "


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "key.pem").touch(mode=0o600)
    return tmp_path


def plugin(text):
    return changed(SOURCE, f'plugin = "a.b:Store"\n{text}')


def network(text):
    return changed('name = "gist"', f'name = "a"\n{text}')


@pytest.mark.parametrize(
    ("text", "issues"),
    [
        (changed("20, 11, 21", "20, 11, 20"), {"area.bbox": "south is not below north: the order is [west, south, east, north]"}),
        (changed("[10, 20, 11, 21]", "[10, 20, 180.5, 21]"), {"area.bbox[2] (east)": "expected a number between -180 and 180, got 180.5"}),
        (changed("[10, 20, 11, 21]", "[-180.5, 20, 11, 21]"), {"area.bbox[0] (west)": "expected a number between -180 and 180, got -180.5"}),
        (changed("[10, 20, 11, 21]", "[10, -91, 11, 21]"), {"area.bbox[1] (south)": "expected a number between -90 and 90, got -91"}),
        (changed("lon = 1.25", "lon = 180.5"), {"flight.takeoff.lon": "expected a number between -180 and 180, got 180.5"}),
        (changed("alt_m = 12.5", "alt_m = -501"), {"flight.takeoff.alt_m": "expected a number between -500 and 100000, got -501"}),
        (changed("alt_m = 12.5", "alt_m = 'high'"), {"flight.takeoff.alt_m": "expected a number, got 'high'"}),
        (changed("[flight]", "[flight]\naircraft = 'a b'"), {"flight.aircraft": "expected 1 to 128 printable ASCII characters without spaces, got 'a b'"}),
        (changed("[flight]", "[flight]\nsector_class = 'combatt'\n[sector.combat]\nmax_age_days = 1\n[flight_]").replace("[flight_]\ntakeoff = {lat = 0.5, lon = 1.25, alt_m = 12.5}\n", ""),
         {"flight.sector_class": "there is no [sector.combatt] that says how old its imagery may be; known: combat, default; did you mean 'combat'?"}),
        *((changed("[flight]", f"[flight]\nnot_after = '{text}'"), {"flight.not_after": f"{DAY}{text!r}"})
          for text in ("2027-02-30", "2027-3-01", "2027-03-01T06:00:60Z", "2027-03-01T06:00:61Z", "2027-03-01 06:00:00Z", " 2027-03-01", "٢٠٢٧-03-01")),
        (changed("zooms = [10]", "zooms = [10]\nmin_coverage = {10 = 0.1234567890123456789}"), {"area.min_coverage.10": "has more than 18 decimals, which a Manifest cannot hold"}),
        (VALID + "[gates]\nindex_recall = 0.1234567890123456789\n", {"gates.index_recall": "has more than 18 decimals, which a Manifest cannot hold"}),
        (VALID + "[gates]\nfidelity_cosine = {fp16 = 0.1234567890123456789}\n", {"gates.fidelity_cosine.fp16": "has more than 18 decimals, which a Manifest cannot hold"}),
        (changed("zooms = [10]", "zooms = [10]\nmin_coverage = {ten = 1}"), {"area.min_coverage.ten": "expected a zoom level as the key"}),
        (changed("zooms = [10]", "zooms = [10]\nmin_coverage = {10 = 'all'}"), {"area.min_coverage.10": "expected a number, got 'all'"}),
        (changed("zooms = [10]", "zooms = [10]\nmin_coverage = 1"), {"area.min_coverage": "expected a table, got 1"}),
        (changed("zooms = [10]", "zooms = 10"), {"area.zooms": "expected a list, got 10"}),
        (changed("zooms = [10]", f"zooms = [{10**18}]"), {"area.zooms[0]": "expected a whole number of at most 18 digits"}),
        (changed("[area]", "[area]\nstrict = 1").replace("[area]\nstrict = 1", "[coverage]\nstrict = 1\n[area]"), {"coverage.strict": "expected true or false, got 1"}),
        ("flight = 1\n" + VALID.replace("[flight]\ntakeoff = {lat = 0.5, lon = 1.25, alt_m = 12.5}\n", ""), {"flight": "expected a table, got 1"}),
        (changed('key = "key.pem"', 'key = ""'), {"signing.key": "expected a path, got an empty text"}),
        (changed('name = "gist"', 'name = "a\\u0000"'), {"backbone[0].name": "contains a NUL character"}),
        (changed('name = "gist"', f"name = [{', '.join(['1'] * 40)}]"), {"backbone[0].name": f"expected text in quotes, got {str([1] * 40)[:57]}…"}),
        # tile sources
        (changed(SOURCE, SOURCE + "\ncaptured = '2021-02-30'"), {"tiles.source[0].captured": "there is no such day: '2021-02-30'"}),
        (changed(SOURCE, SOURCE + "\nkind = 'xyz'\npattern = '{z}/{x}'"), {"tiles.source[0].pattern": "must contain {z}, {x} and {y} (or {q}, a quadkey)"}),
        (changed(SOURCE, SOURCE + "\nvalues = [7, 7]"), {"tiles.source[0].values": "expected [low, high], the pixel values that become 0 and 255"}),
        (changed(SOURCE, SOURCE + "\nvalues = [1, 2, 3]"), {"tiles.source[0].values": "expected [low, high], the pixel values that become 0 and 255"}),
        (changed(SOURCE, SOURCE + "\nvalues = [9, 7]"), {"tiles.source[0].values": "expected [low, high], the pixel values that become 0 and 255"}),
        (changed(SOURCE, ""), {"tiles.source[0].path": "is missing: a directory or file of tiles (or plugin: a store in Python)"}),
        (changed(SOURCE, SOURCE + "\noptions = {a = 1}"), {"tiles.source[0].options": "belong to a plugin"}),
        (changed(SOURCE, SOURCE + "\n[[tiles.source]]\n" + SOURCE), {"tiles.source.name": f"2 entries have the store, and no name, '{{root}}/tiles  {TileSource().pattern}'"}),
        (changed(SOURCE, SOURCE + "\nname = 'a'\n[[tiles.source]]\npath = 'b'\nname = 'a'"), {"tiles.source.name": "2 entries have the name 'a'"}),
        (changed(SOURCE, 'plugin = "a b"'), {"tiles.source[0].plugin": "expected package.module:Class or the name of an entry point, got 'a b'"}),
        *((plugin(f"{name} = {value}"), {f"tiles.source[0].{name}": NO_PLUGIN})
          for name, value in (("path", "'tiles'"), ("kind", "'xyz'"), ("pattern", "'{q}'"), ("table", "'t'"), ("evidence", "'ignore'"), ("values", "[1, 2]"), ("scheme", "'tms'"))),
        *((plugin(f"captured = '{word}'"), {"tiles.source[0].captured": "a plugin gives each tile's date itself: leave it out, or give a date or a CSV file"})
          for word in ("metadata", "mtime")),
        (plugin("options = {root = 1}"), {"tiles.source[0].options.root": ARGUMENT}),
        (plugin("options = {'a-b' = 1}"), {"tiles.source[0].options.a-b": ARGUMENT}),
        # networks, index, calibration
        (changed('[[backbone]]\nname = "gist"', '[[backbone]]\nname = "gist"\nrole = "other"'), {"backbone.role": DESCRIPTOR + "none"}),
        (changed('name = "gist"', 'name = "a"\n[[backbone]]\nname = "A"\nrole = "x"'), {"backbone.name": "2 entries have the name, in whatever case, 'a'"}),
        (network('onnx = "builtin:gist-colour"'),
         {"backbone[0].onnx": "expected a file or one of builtin:efficientnet-lite0, builtin:gist-color, builtin:gist-gray, got 'builtin:gist-colour'; did you mean 'builtin:gist-color'?"}),
        (network("skip_tokens = 1"), {"backbone[0].skip_tokens": 'applies to pooling = "avg" or "gem"'}),
        (network("channels = 'gray'\nmean = [1, 2, 3]"), {"backbone[0].mean": "expected 1 number"}),
        (VALID + "[index]\nrotations = 17\noverlap = 2\n",
         {"index.rotations": "expected at most 16 with index.overlap = 2: an id has room for 64 cuts and headings; got 17"}),
        (VALID + "[index]\nkind = 'ivf'\n", {"index.kind": "expected one of auto, flat, sqfp16, sq8, hrq, sq4, got 'ivf'"}),
        (VALID + "[[calibration]]\npath = 'key.pem'\npurpose = 'imu'\n" * 2, {"calibration.path": "2 entries have the path '{root}/key.pem'"}),
        (VALID + MEMBERS + "'\\u001b[1m'\n".replace("'", '"'), {"waiver[0].reason": "expected 1 to 4096 characters, none of which controls a terminal"}),
        (VALID + "[descriptors]\nexecutor = 'dask'\nscheduler = 'tls://a:1'\ntls_ca = 'key.pem'\n",
         {"descriptors.tls_ca": "tls_ca, tls_certificate and tls_key belong together: give all three or none"}),
        (VALID + "[descriptors]\nexecutor = 'dask'\nscheduler = 'tcp://a:1'\n" + "".join(f"tls_{name} = 'key.pem'\n" for name in ("ca", "certificate", "key")),
         {"descriptors.scheduler": "with TLS the address is tls://host:port"}),
        (VALID + "[camera]\nfocal_px = 900\n", {"camera.focal_px": "is in pixels of photos of one size: give width_px and height_px"}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_by_this_sentence(root, text, issues):
    expected = {key: problem.replace("{root}", str(root)) for key, problem in issues.items()}
    assert mistakes(text, root) == expected


@pytest.mark.parametrize(
    "text",
    [
        changed("[flight]", "[flight]\nnot_after = '2028-02-29'"),
        changed("[flight]", "[flight]\nnot_after = '2028-02-29T23:59:59Z'"),
        changed("[flight]", "[flight]\nsector_class = 'combat'\n[sector.combat]\nmax_age_days = 1\n").replace("takeoff = {lat = 0.5, lon = 1.25, alt_m = 12.5}\n", ""),
        changed("[10, 20, 11, 21]", "[-180, -85, 180, 85]").replace("zooms = [10]", "zooms = [9]"),
        changed("zooms = [10]", "zooms = [10]\nmin_coverage = {10 = 0.123456789012345678}"),
        changed(SOURCE, SOURCE + "\nkind = 'xyz'\npattern = '{q}.png'"),
        changed(SOURCE, SOURCE + "\nkind = 'mbtiles'\npattern = 'none'"),
        changed(SOURCE, SOURCE + "\nvalues = [7, 8]"),
        changed(SOURCE, SOURCE + "\ncaptured = 'mtime'"),
        plugin("captured = '2021-01-31'\noptions = {a = 1}"),
        network("pooling = 'gem'\nskip_tokens = 1"),
        network("pooling = 'avg'\nskip_tokens = 1"),
        network("profile = {min = 1, opt = 2, max = 3}"),
        VALID + "[index]\nrotations = 16\noverlap = 2\n",
        VALID + "[index]\nrotations = 36\n",
        VALID + "[camera]\nfov_deg = 60\n",
        VALID + "[camera]\nfocal_px = 900\nwidth_px = 4000\nheight_px = 3000\n",
        VALID + "[descriptors]\nexecutor = 'dask'\nscheduler = 'tls://a:1'\n" + "".join(f"tls_{name} = 'key.pem'\n" for name in ("ca", "certificate", "key")),
    ],
)  # fmt: skip
def test_a_value_at_the_edge_is_taken(root, text):
    parse(text, root=root)


def test_the_number_of_mistakes_and_the_size_of_an_area_are_said(root):
    with pytest.raises(ConfigError, match=r"^flight\.toml has 1 mistake\n"):
        parse(changed("zooms = [10]", "zooms = []"), root=root)
    with pytest.raises(ConfigError, match=r"^flight\.toml has 2 mistakes\n"):
        parse(changed("zooms = [10]", "zooms = []").replace("key.pem", "none.pem"), root=root)
    whole = changed("[10, 20, 11, 21]", "[-180, -85.0511287, 180, 85.0511287]")
    found = mistakes(whole.replace("zooms = [10]", "zooms = [13]"), root)
    assert found == {"area": "spans about 67,108,864 tiles, more than 50,000,000: check bbox and zooms"}


def test_sources_that_are_there_or_are_no_file_are_not_missed(root):
    (root / "2021.csv").touch()
    require_sources(root, parse(changed(SOURCE, SOURCE + "\ncaptured = '2021.csv'"), root=root).tiles.source)
    require_sources(root, parse(plugin(""), root=root).tiles.source)


def test_what_an_earlier_version_knew_is_answered_by_what_replaced_it(root):
    found = mistakes(VALID + "[index]\nkind = 'ivf-sq8'\n[gates]\nself_localisation = 1\n", root)
    assert found == {
        "index.kind": 'the kind ivf-sq8 was removed: write "hrq", or "auto"',
        "gates.self_localisation": "was replaced by gates.recognition, which sees tiles as flights do: delete this line",
    }


def test_a_sector_class_is_one_word(root):
    found = mistakes(changed("[flight]", "[flight]\nsector_class = 'a b'"), root)["flight.sector_class"]
    assert found.startswith(
        "expected 1 to 128 printable ASCII characters without spaces, got 'a b'; there is no [sector."
    )


def test_two_mistakes_of_one_key_stand_in_one_line(root):
    bad = changed("[10, 20, 11, 21]", "[10, 21, 10, 20]")
    assert mistakes(bad, root)["area.bbox"].count("the order is [west, south, east, north]") == 2


def test_a_large_file_is_not_read_to_its_end(root):
    with open(root / "flight.toml", "wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ConfigError, match="larger than 1 MiB") as wrong:
        read_flight(root)
    assert (wrong.value.file, wrong.value.next_step) == (str(root / "flight.toml"), "check that it is the right file")


def test_a_file_that_is_not_there_is_named(root):
    with pytest.raises(ConfigError, match="cannot be read") as wrong:
        read_flight(root)
    assert wrong.value.file == str(root / "flight.toml")


def test_the_tables_alone_can_be_read(root):
    (root / "flight.toml").write_text("[flight]\nid = 'F-1'\n[unknown]\na = 0.10\n")
    assert read_toml(root) == {"flight": {"id": "F-1"}, "unknown": {"a": Decimal("0.10")}}
    (root / "flight.toml").write_text("[")
    with pytest.raises(ConfigError, match="is not valid TOML") as wrong:
        read_toml(root)
    assert wrong.value.file == str(root / "flight.toml")


def test_a_parsed_source_has_a_name_and_knows_its_cache(root):
    (source,) = parse(VALID, root=root).tiles.source
    assert (source.name, source.root) == ("tiles", root)
    assert [each.root for each in with_names([source, source], root)] == [root, root]


def test_a_source_without_a_name_of_its_own_is_called_by_its_plugin_or_tiles():
    assert default_name(TileSource(plugin="shop:Store")) == "shop:Store"
    assert default_name(TileSource(plugin="")) == "tiles"


def test_values_as_toml(root):
    assert toml(True) == "true"
    assert toml(False) == "false"
    assert toml(Decimal("1E-7")) == "0.0000001"
    assert toml(7) == "7"
    assert toml('a "b" \\ \t \U000e0001') == '"a \\"b\\" \\\\ \\u0009 \\U000e0001"'
    assert toml({"a_b-1": 1, "a.b": [True]}) == '{a_b-1 = 1, "a.b" = [true]}'
    with pytest.raises(ConfigError) as wrong:
        toml("/tiles/\udcff")
    assert wrong.value.what == "flight.toml cannot name a path that is not UTF-8"
    assert wrong.value.file == "/tiles/\udcff"


def test_the_template_is_comments_of_our_width_and_headings_of_every_form():
    text = render({"sector": [{"max_age_days": 3}]})
    assert text.startswith(HEAD)
    lines = text.removeprefix(HEAD).splitlines()
    assert all(len(line) <= 110 for line in lines if line.startswith("# ") and " = " not in line)
    assert max(len(line) for line in lines) > 100
    assert {line for line in lines if line.startswith("[sector")} == {"[sector.NAME]"}
    assert "# [[waiver]]" in lines
    assert "# Measured quality below which nothing is published." in lines
    wide = "# Who flies, from where. Changing it only signs again, unless a mission's legs to take-off move."
    assert wide in lines
    assert any(line.startswith("# least median cosine") and len(line) > 90 for line in lines)
    assert not [line for line in lines if line and line[0] not in "#[" and line != "max_age_days = 3"]
    assert [(each.heading, each.repeats, each.named) for each in sections() if each.name in ("sector", "waiver", "area", "area.part")] == [
        ("[area]", False, False), ("[[area.part]]", True, False), ("[sector.NAME]", False, True), ("[[waiver]]", True, False),
    ]  # fmt: skip
    assert "max_age_days = 3" in lines
