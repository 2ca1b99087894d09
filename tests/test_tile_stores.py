"""Stores of tiles in Python: the protocol, the example over SQL tables, and stores that raise or lie."""

import hashlib
import shutil
import sqlite3
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from doit.doit_cmd import DoitMain

from provisioning.base.errors import ConfigError, Error, TileError
from provisioning.catalogue import iter_tiles, open_reader, scan, source_rows
from provisioning.cli import main
from provisioning.config import FlightIdentity, TileSource
from provisioning.config.parse import parse, read_flight
from provisioning.sources.source import EVERYTHING
from provisioning.sources.store import StoredTile, TileQuery, TileStore
from provisioning.sources.stores import open_tiles, with_stores
from rules import build
from tests.building import new_cache
from tests.tilesets import (
    Z,
    age,
    bbox_of,
    block,
    flight,
    image,
    scanned,
    write_mbtiles,
    write_reference_pmtiles,
    write_xyz,
)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Memory:
    """A store over a dict, which counts what is asked of it."""

    identity = "memory/1"

    def __init__(self, tiles=None, *, root=None, digests=True, days=None):
        self.tiles, self.digests, self.days = dict(tiles or {}), digests, days or {}
        self.queries, self.reads, self.closed, self.version = 0, [], 0, "1"

    def stamp(self):
        return self.version

    def query(self, query):
        self.queries += 1
        self.asked = query
        for at, data in self.tiles.items():
            if query.holds(*at):
                yield StoredTile(*at, sha256=sha(data) if self.digests else "", captured=self.days.get(at))

    def read(self, z, x, y):
        self.reads.append((z, x, y))
        return self.tiles.get((z, x, y))

    def close(self):
        self.closed += 1


def held(tmp_path, store, tiles, **more):
    """Return a flight over `store` whose area is that of `tiles`."""
    return flight(tmp_path, TileSource(name="sat", store=store, **more), bbox=bbox_of(tiles), zooms=(Z,))


def corpus(asked):
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        return {tile[:3]: reader.read(tile) for tile in iter_tiles(asked.build_dir)}


# --- the protocol


def test_a_store_in_python_is_scanned_read_and_covered_as_any_other(tmp_path):
    tiles = block()
    store, files = Memory(tiles), write_mbtiles(tmp_path / "sat.mbtiles", tiles)
    mine = scanned(held(tmp_path / "a", store, tiles))
    theirs = scanned(flight(tmp_path / "b", files, bbox=bbox_of(tiles)))
    assert (mine.coverage_sha256, mine.per_zoom, mine.count) == (theirs.coverage_sha256, theirs.per_zoom, 9)
    assert corpus(held(tmp_path / "a", store, tiles)) == tiles


@pytest.mark.parametrize("kind", ["xyz", "mbtiles", "pmtiles"])
def test_built_in_kinds_are_stores_of_the_same_protocol(tmp_path, kind):
    tiles = block()
    path = {
        "xyz": lambda: write_xyz(tmp_path / "sat", tiles),
        "mbtiles": lambda: write_mbtiles(tmp_path / "sat.mbtiles", tiles),
        "pmtiles": lambda: write_reference_pmtiles(tmp_path / "sat.pmtiles", tiles),
    }[kind]()
    age(path)
    store = open_tiles(TileSource(path=path))
    assert isinstance(store, TileStore)
    assert isinstance(store.identity, str)
    assert isinstance(store.stamp(), str)
    listed = list(store.query(TileQuery(EVERYTHING)))
    assert {tile[:3] for tile in listed} == set(tiles)
    assert all(tile.data in (None, tiles[tile[:3]]) for tile in listed)
    assert {at: store.read(*at) for at in tiles} == tiles
    # and what is listed by one can be given on by a store in Python
    again = scanned(held(tmp_path / "again", _Passing(store), tiles))
    assert again.coverage_sha256 == scanned(flight(tmp_path, path, bbox=bbox_of(tiles))).coverage_sha256
    store.close()


class _Passing(Memory):
    """A store that hands on what another has."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def query(self, query):
        return self.other.query(query)

    def read(self, z, x, y):
        return self.other.read(z, x, y)


def test_a_stamp_that_stays_lists_nothing_and_a_digest_that_stays_reads_nothing(tmp_path):
    tiles = block()
    store = Memory(tiles)
    asked = held(tmp_path, store, tiles)
    first = scan(asked.selection, asked.build_dir)
    assert (store.queries, len(store.reads)) == (1, 9)
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == first.coverage_sha256
    assert (store.queries, len(store.reads)) == (1, 9)
    changed = next(iter(tiles))
    store.tiles[changed], store.version = image(99), "2"
    second = scan(asked.selection, asked.build_dir)
    assert (second.changed, store.queries, store.reads[9:]) == (1, 2, [changed])
    store.version = ""  # it does not know: it is listed each time, and nothing is read
    assert (
        scan(asked.selection, asked.build_dir).coverage_sha256
        == scan(asked.selection, asked.build_dir).coverage_sha256
        == second.coverage_sha256
    )
    assert (store.queries, len(store.reads)) == (4, 10)


def test_another_identity_reads_every_tile_again(tmp_path):
    store = Memory(block())
    asked = held(tmp_path, store, store.tiles)
    before = scan(asked.selection, asked.build_dir)
    store.identity = "memory/2"
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == before.coverage_sha256
    assert len(store.reads) == 18


def test_a_store_without_digests_is_read_when_its_stamp_moves(tmp_path):
    store = Memory(block(), digests=False)
    asked = held(tmp_path, store, store.tiles)
    scan(asked.selection, asked.build_dir)
    store.version = "2"
    assert scan(asked.selection, asked.build_dir).changed == 0
    assert len(store.reads) == 18


def test_scan_full_trusts_no_digest(tmp_path):
    store = Memory(block())
    asked = held(tmp_path, store, store.tiles)
    asked = replace(asked, tiles=replace(asked.tiles, scan="full"))
    scan(asked.selection, asked.build_dir)
    scan(asked.selection, asked.build_dir)
    assert len(store.reads) == 18


def test_tiles_that_are_listed_no_longer_leave_the_corpus(tmp_path):
    store = Memory(block())
    asked = held(tmp_path, store, block())
    scan(asked.selection, asked.build_dir)
    gone = next(iter(store.tiles))
    del store.tiles[gone]
    store.version = "2"
    found = scan(asked.selection, asked.build_dir)
    assert (found.removed, found.count) == (1, 8)
    assert gone not in corpus(asked)


def test_capture_dates_come_from_the_store_and_change_without_a_read(tmp_path):
    store = Memory(block())
    store.days = dict.fromkeys(store.tiles, date(2024, 5, 6))
    asked = held(tmp_path, store, store.tiles)
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2024-05-06"
    store.days[next(iter(store.tiles))], store.version = date(2019, 1, 2), "2"
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2019-01-02"
    assert list(source_rows(asked.build_dir)) == [("sat", 9, "2019-01-02", "2024-05-06")]
    assert len(store.reads) == 9
    assert scanned(held(tmp_path, store, store.tiles, captured="2025-01-01")).oldest_capture == "2025-01-01"
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2019-01-02"  # what the store says holds again


def test_the_sector_class_is_part_of_the_question(tmp_path):
    store = Memory(block())
    asked = held(tmp_path, store, store.tiles)
    scan(asked.selection, asked.build_dir)
    scanned(replace(asked, flight=FlightIdentity(sector_class="war")))
    assert (store.queries, store.asked.sector_class, store.asked.source) == (2, "war", "sat")


def test_a_query_gives_the_area_as_rectangles_and_boxes(tmp_path):
    store = Memory(block())
    scanned(held(tmp_path, store, store.tiles))
    ranges = list(store.asked.ranges())
    assert {(z, x, y) for z, a, b, c, d in ranges for x in range(a, b + 1) for y in range(c, d + 1)} == set(block())
    assert [box for _, box in store.asked.boxes()] == [bbox_of(block())]


# --- stores that raise or lie


def refused(tmp_path, store, tiles=None) -> TileError:
    with pytest.raises(TileError) as caught:
        scanned(held(tmp_path, store, tiles or block()))
    assert type(store).__name__ in caught.value.what
    assert caught.value.next_step
    return caught.value


FIRST = next(iter(block()))


def test_a_store_that_raises_is_named_with_the_tile_and_nothing_is_remembered_of_it(tmp_path):
    class Raising(Memory):
        broken = True

        def read(self, z, x, y):
            if self.broken and (z, x, y) == FIRST:
                raise ConnectionResetError("the server has\nleft")
            return super().read(z, x, y)

    store = Raising(block())
    error = refused(tmp_path, store)
    assert "ConnectionResetError" in error.what
    assert error.facts["tile"] == "{}/{}/{}".format(*FIRST)
    store.broken = False
    assert scanned(held(tmp_path, store, block())).skipped == ()


def test_digests_that_are_not_those_of_the_bytes_are_an_error(tmp_path):
    class Lying(Memory):
        def query(self, query):
            return [tile._replace(sha256="0" * 64) if tile[:3] == FIRST else tile for tile in super().query(query)]

    error = refused(tmp_path, Lying(block()))
    assert "digest" in error.what
    assert error.facts["tile"] == "{}/{}/{}".format(*FIRST)
    assert (error.facts["listed"], error.facts["found"]) == ("0" * 64, sha(block()[FIRST]))


def test_a_digest_that_lies_later_is_found_when_the_tile_is_used(tmp_path):
    store = Memory(block())
    asked = held(tmp_path, store, block())
    scan(asked.selection, asked.build_dir)
    store.tiles[FIRST] = image(7)  # and neither stamp nor digest say so
    with (
        open_reader(asked.tiles.source, asked.build_dir) as reader,
        pytest.raises(TileError, match="has changed since it was scanned"),
    ):
        [reader.read(tile) for tile in iter_tiles(asked.build_dir)]


def listing(*rows):
    class Listing(Memory):
        def query(self, query):
            return iter(rows)

    return Listing(block())


ROWS = {
    "twice": (StoredTile(*FIRST), StoredTile(*FIRST)),
    "outside the area": (StoredTile(Z, 0, 0),),
    "no tile": (StoredTile(Z, 1 << Z, 0),),
    "no StoredTile": ("15/1/2",),
    "another source": (StoredTile(*FIRST, source="other"),),
    "64 lower-case": (StoredTile(*FIRST, sha256="A" * 64),),
    "datetime.date": (StoredTile(*FIRST, captured="2024-05-06"),),
    "no bytes": (StoredTile(*FIRST, data="text"),),
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_cannot_be_are_errors(tmp_path, what):
    error = refused(tmp_path, listing(*ROWS[what]))
    assert what in error.what or "source" in error.what


class Duplicates(Memory):
    """A store that never ends."""

    def query(self, query):
        while True:
            yield StoredTile(*FIRST)


def test_a_store_that_lists_one_tile_for_ever_is_stopped(tmp_path):
    assert "twice" in refused(tmp_path, Duplicates(block())).what


@pytest.mark.parametrize("part", ["stamp", "query", "read", "close", "identity"])
def test_what_a_store_lacks_is_named(tmp_path, part):
    class Partial(Memory):
        pass

    setattr(Partial, part, None)
    assert part in str(refused(tmp_path, Partial(block())))


@pytest.mark.parametrize("part", ["stamp", "query"])
def test_every_call_is_guarded(tmp_path, part):
    class Failing(Memory):
        pass

    def fail(*_):
        raise SystemExit(3)

    setattr(Failing, part, fail)
    assert "SystemExit" in refused(tmp_path, Failing(block())).what


# --- named in flight.toml


def written(root: Path, source: str) -> str:
    (root / "key.pem").write_text("")
    (root / "key.pem").chmod(0o600)
    return (
        f'[area]\nbbox = [10, 20, 11, 21]\nzooms = [10]\n[[tiles.source]]\n{source}\n[[backbone]]\nname = "gist"\n'
        '[signing]\nkey = "key.pem"\n'
    )


MISTAKES = {
    'plugin = "x:Y"\npath = "tiles"': ("path", "does not apply"),
    'plugin = "x:Y"\nscheme = "tms"': ("scheme", "does not apply"),
    'plugin = "x:"': ("plugin", "package.module:Class"),
    'plugin = "../x:Y"': ("plugin", "package.module:Class"),
    'plugin = "x:Y"\ncaptured = "mtime"': ("captured", "itself"),
    'plugin = "x:Y"\noptions = {root = "/"}': ("options.root", "argument"),
    'plugin = "x:Y"\noptions = {"a b" = 1}': ("options.a b", "argument"),
    'plugin = "x:Y"\noptions = 3': ("options", "expected a table"),
    'path = "tiles"\noptions = {a = 1}': ("options", "plugin"),
    'name = "x"': ("path", "is missing"),
}


@pytest.mark.parametrize("source", MISTAKES)
def test_mistakes_about_a_plugin_name_their_key(tmp_path, source):
    key, what = MISTAKES[source]
    with pytest.raises(ConfigError) as caught:
        parse(written(tmp_path, source), root=tmp_path)
    assert what in str(caught.value.facts[f"tiles.source[0].{key}"])


def test_options_reach_the_store_as_python_has_them(tmp_path, monkeypatch):
    (tmp_path / "kept_options.py").write_text(
        "given = []\nclass Store:\n identity = 'x'\n stamp = query = read = close = lambda self, *a: ''\n"
        " def __init__(self, *, root, **options): given.append((root, options))\n"
    )
    source = 'plugin = "kept_options:Store"\noptions = {n = 3, share = 0.5, on = true, names = ["a"], more = {x = 1.5}}'
    read = parse(written(tmp_path, source), root=tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    open_tiles(read.tiles.source[0]).close()
    from kept_options import given

    assert given == [(tmp_path, {"n": 3, "share": 0.5, "on": True, "names": ["a"], "more": {"x": 1.5}})]


IMPORTS = {
    'plugin = "there_is_none:Store"': "ModuleNotFoundError",
    'plugin = "json:Store"': "AttributeError",
    'plugin = "json:__name__"': "cannot be called",
    'plugin = "no-such-entry"': "no entry points",
    'plugin = "decimal:Decimal"\noptions = {wrong = 1}': "TypeError",
}


@pytest.mark.parametrize("source", IMPORTS)
def test_a_plugin_that_cannot_be_had_is_named(tmp_path, source):
    read = parse(written(tmp_path, source), root=tmp_path)
    with pytest.raises(TileError) as caught:
        open_tiles(read.tiles.source[0])
    assert IMPORTS[source] in caught.value.what
    assert read.tiles.source[0].plugin in caught.value.what
    assert caught.value.key == "tiles.source.plugin"


def test_a_plugin_is_found_by_the_name_of_its_entry_point(tmp_path, monkeypatch):
    package = tmp_path / "ortho-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: ortho\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[flightcache.tiles]\northo-store = tests.test_tile_stores:Memory\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    read = parse(written(tmp_path, 'plugin = "ortho-store"'), root=tmp_path)
    assert open_tiles(read.tiles.source[0]).identity == "memory/1"
    assert read.tiles.source[0].name == "ortho-store"


# --- the example, built as a user builds it


def make_database(path: Path, tiles, *, provider="maxar", cleared_for="*") -> None:
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE imagery(zoom INTEGER, col INTEGER, row INTEGER, provider TEXT, captured TEXT, sha256 TEXT,"
        " image BLOB, cleared_for TEXT, change INTEGER, PRIMARY KEY(zoom, col, row, provider));"
        "CREATE TABLE dropped(change INTEGER)"
    )
    rows = [(*at, provider, "2024-05-06", sha(d), d, cleared_for, n) for n, (at, d) in enumerate(tiles.items())]
    db.executemany("INSERT INTO imagery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()


def on_the_database(parent: Path) -> tuple[Path, dict]:
    """Make a cache whose tiles lie in a database, with the example beside flight.toml."""
    cache = new_cache(parent, side=2)
    files = {tuple(int(p) for p in (f.parts[-3], f.parts[-2], f.stem)): f.read_bytes() for f in parent.rglob("*.jpg")}
    make_database(cache / "imagery.sqlite", files)
    shutil.copy(EXAMPLES / "sql_store.py", cache)
    text = (cache / "flight.toml").read_text()
    start = text.index("path = ", text.index("[[tiles.source]]"))
    end = text.index("\n", start)
    plugin = (
        'plugin = "sql_store:SQLStore"\noptions = {database = "imagery.sqlite", provider = "maxar"}\nname = "maxar"'
    )
    (cache / "flight.toml").write_text(text[:start] + plugin + text[end:])
    return cache, files


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A cache built from the example: its directory, its tiles, and the two reports."""
    path, parent = list(sys.path), tmp_path_factory.mktemp("example")
    cache, files = on_the_database(parent)
    yield cache, files, build(cache), build(cache)
    sys.path[:] = path
    sys.modules.pop("sql_store", None)


def test_the_example_is_built_from_and_nothing_is_done_twice(example):
    cache, files, first, second = example
    assert (first.outcome, first.descriptors_generated) == ("SUCCESS", 4)
    assert second.outcome == "IDEMPOTENT_NO_OP"
    read = read_flight(cache)
    assert corpus(read) == files
    assert list(source_rows(read.build_dir)) == [("maxar", 4, "2024-05-06", "2024-05-06")]


COMMANDS = {
    "verify": ["verify", "--public-key", "key.pub.pem", "--ground", "cache"],
    "doctor": ["doctor", "--public-key", "key.pub.pem", "--flight", "F-1", "cache"],
    "status": ["status", "cache"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_looking_at_a_cache_imports_no_plugin(example, monkeypatch, command, capsys):
    monkeypatch.chdir(example[0].parent)
    sys.modules.pop("sql_store", None)
    assert main(COMMANDS[command]) == 0
    assert "sql_store" not in sys.modules


def test_doit_info_and_list_import_no_plugin(example, monkeypatch, capsys):
    monkeypatch.chdir(example[0])
    sys.modules.pop("sql_store", None)
    for command in (["info", "corpus"], ["list", "--all", "--status"]):
        assert DoitMain().run(command) in (0, None, 1)
    assert "corpus" in capsys.readouterr().out
    assert "sql_store" not in sys.modules


# --- given by a program


def test_a_program_builds_from_its_own_store(tmp_path):
    cache = new_cache(tmp_path, side=2)
    files = {tuple(int(p) for p in (f.parts[-3], f.parts[-2], f.stem)): f.read_bytes() for f in tmp_path.rglob("*.jpg")}
    store = Memory(files)
    shutil.rmtree(tmp_path / "tiles")
    assert build(cache, tiles=store).descriptors_generated == 4
    assert build(cache, tiles={"tiles": store}).outcome == "IDEMPOTENT_NO_OP"
    assert store.closed == 0  # it is the caller's


def test_a_store_of_a_program_that_fails_is_the_typed_error(tmp_path):
    class Down(Memory):
        def query(self, query):
            raise TimeoutError("no answer")

    cache = new_cache(tmp_path, side=1)
    with pytest.raises(TileError, match=r"tile store Down .* TimeoutError") as caught:
        build(cache, tiles=Down())
    assert caught.value.report.outcome == "FAILURE"


def test_one_store_for_several_sources_is_refused_and_names_are_checked(tmp_path):
    several = flight(tmp_path, TileSource(path=tmp_path, name="a"), TileSource(path=tmp_path, name="b"), bbox=None)
    with pytest.raises(Error, match="cannot be used") as caught:
        with_stores(several.tiles, Memory())
    assert "a, b" in str(caught.value)
    with pytest.raises(Error, match="printable"):
        with_stores(several.tiles, {"a b": Memory()})
    kept = with_stores(several.tiles, {"b": Memory(), "c": Memory()})
    assert [(s.name, s.store is not None) for s in kept.source] == [("a", False), ("b", True), ("c", True)]
