"""What a person mistypes, asks for or waits for on the command line: the answer, its exit code, and nothing half done."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from provisioning.base.errors import ConfigError, EngineError, SigningError
from provisioning.build.status import read_status
from provisioning.cli import main
from provisioning.cli.begin import init
from provisioning.cli.check import doctor
from provisioning.cli.check import verify as verify_command
from provisioning.cli.look import status as status_command
from provisioning.cli.look import tiles as tiles_command
from provisioning.cli.measure.variants import locators, parse_variant
from provisioning.config import Engine, Signing
from provisioning.config.parse import parse, read_flight
from provisioning.config.template import toml
from provisioning.flight import manifest
from provisioning.flight.signing import generate_key, load_public_key, sign
from provisioning.flight.signing.passwords import read_password_fd
from provisioning.quality.locate import Question
from provisioning.quality.locate.asking import headings_for
from provisioning.quality.locate.imagery import imagery_of
from tests import building
from tests.caches import HOST, KEY, Cache, manifest_of, publish

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return publish(tmp_path / "cache")


@pytest.fixture
def pem(tmp_path: Path) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    path = tmp_path / "operator.pub.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A real cache over 16 synthetic tiles; read it, do not change it."""
    cache = building.new_cache(tmp_path_factory.mktemp("usage"))
    assert building.build(cache).outcome == "SUCCESS"
    return cache


def photo_of(cache: Path) -> Path:
    return next((cache.parent / "tiles").rglob("*.jpg"))


# wrong usage


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["locate", "PHOTO", "--cache", "CACHE", "-k", "0"], "at least 1"),
        (["locate", "PHOTO", "--cache", "CACHE", "--rotate", "0"], "at least 1"),
        (["evaluate", "queries.csv", "CACHE", "--rotate", "0"], "at least 1"),
        (["evaluate", "queries.csv", "CACHE", "--within", "0"], "above zero"),
        (["evaluate", "queries.csv", "CACHE", "--frame-step", "0"], "at least 1"),
        (["evaluate", "queries.csv", "CACHE", "--patches", "-1"], "0 or more"),
        (["locate", "PHOTO", "--cache", "CACHE", "--radius", "5"], "no effect without --near"),
        (["locate", "PHOTO", "--cache", "CACHE", "--height", "1"], "2 to 100000"),
        (["locate", "PHOTO", "--cache", "CACHE", "--fov", "0"], "1 to 170"),
        (["locate", "PHOTO", "--cache", "CACHE", "--pitch", "120"], "-90 looks straight down"),
        (["install", "x.flight", "CACHE", "--keep", "0"], "must stay"),
        (["verify", "CACHE", "--public-key", "PEM", "--raise-floor"], "--counter-floor-file"),
        (["verify", "CACHE", "--public-key", "PEM", "--host", "colour=red"], "NAME=VALUE"),
        (["verify", "CACHE", "--public-key", "PEM", "--host", "arch"], "NAME=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(words, reason, cache, pem, tmp_path, capsys):
    places = {"CACHE": str(cache.root), "PEM": pem, "PHOTO": str(tmp_path / "none.jpg")}
    try:
        code = main([places.get(word, word) for word in words])
    except SystemExit as stopped:
        code = stopped.code
    assert code != 0
    assert reason in capsys.readouterr().err


DOIT, COMMAND = (
    "import rules; rules.declare('dodo.py')",
    "from provisioning.cli import main; main(['completion', 'bash'])",
)


@pytest.mark.parametrize(
    ("begin", "given", "threads"),
    [
        (DOIT, {}, "1"),
        (COMMAND, {}, "1"),
        (COMMAND, {"OPENBLAS_NUM_THREADS": "2"}, "2"),
        pytest.param(DOIT, {"OPENBLAS_NUM_THREADS": "2"}, "2", marks=pytest.mark.slow),
    ],
)
def test_numpy_begins_on_one_thread_unless_set_otherwise(begin, given, threads, tmp_path):
    (tmp_path / "dodo.py").touch()
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    program = f"{begin}; import numpy, threadpoolctl; print(threadpoolctl.threadpool_info()[0]['num_threads'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT), **given}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(done.stdout.splitlines()[-1]) == min(int(threads), len(os.sched_getaffinity(0)))


def test_no_tiles_are_no_measurement(capsys):
    with pytest.raises(SystemExit):
        main(["bench-engine", "cache", "--batch", "0"])
    assert "is no number of tiles" in capsys.readouterr().err


def test_a_command_that_is_stopped_says_so_and_exits_130(monkeypatch, capsys):
    def stopped(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_command, "run", stopped)
    assert main(["status", "."]) == 130
    assert capsys.readouterr().err == "flightcache status: stopped\n"


MET = """
import signal, sys, time
import provisioning.cli
class Signal:
    def find_spec(self, name, *_):
        if name == {part!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Signal())
sys.argv = ["flightcache", "status", "."]
if {waits}:
    import provisioning.cli.look.status as command
    command.run = lambda _: (__import__({part!r}), time.sleep(60))
sys.exit(provisioning.cli.main())
"""


@pytest.mark.parametrize(
    ("part", "waits", "said"),
    [
        ("provisioning.cli.running", False, "flightcache: stopped\n"),
        ("provisioning.cli.parsing", False, "flightcache: stopped\n"),
        ("wave", True, "flightcache status: stopped\n"),  # loaded to its end, as an extension module has to be
    ],
)
def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(part, waits, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MET.format(part=part, waits=waits)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, said)


# verify


def test_this_host_is_what_the_runtime_here_is(cache, pem, capsys):
    here = verify_command.this_host()
    assert set(here) == set(HOST._fields) - {"precision"}
    assert (
        main(["verify", str(cache.root), "--public-key", pem, "--this-host", "--host", "arch=other", "--ground"]) == 22
    )
    assert "host" in capsys.readouterr().out


def test_nothing_is_said_of_what_was_left_out_when_nothing_was(cache, pem, capsys):
    words = ["--flight", "F-118", "--aircraft", "AC-7", "--counter-floor", "7"]
    hosts = [word for name, value in HOST._asdict().items() for word in ("--host", f"{name}={value}")]
    assert main(["verify", str(cache.root), "--public-key", pem, *words, *hosts]) == 0
    assert "not checked" not in capsys.readouterr().out


def test_a_cache_cannot_name_the_key_it_is_verified_by(built, tmp_path, monkeypatch):
    from provisioning.cli.deliver.common import user_keys

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for here in (built, built.parent, built / "generations"):
        monkeypatch.chdir(here)
        with pytest.raises(SigningError, match="no key to trust"):
            user_keys(None, built)
    mine = building.new_cache(tmp_path)
    monkeypatch.chdir(mine)
    assert user_keys(None, built) == (load_public_key(tmp_path / "key.pub.pem"),)
    monkeypatch.chdir(built)
    main(["keygen", str(tmp_path / "config/flightcache/mine.pem")])
    assert user_keys(None, built) == (load_public_key(tmp_path / "config/flightcache/mine.pub.pem"),)


def test_the_key_to_trust_may_stand_in_the_environment(built, monkeypatch, capsys):
    from provisioning.cli.deliver.common import KEY_VARIABLE, trusted_keys

    monkeypatch.setenv(KEY_VARIABLE, str(built.parent / "key.pub.pem"))
    (key,) = trusted_keys(None)
    monkeypatch.delenv(KEY_VARIABLE)
    assert trusted_keys(None, built) == (key,)
    with pytest.raises(SigningError, match="no key to trust"):
        trusted_keys(None)


# keygen and keys


def answers(monkeypatch, *words: bytes) -> None:
    answers = iter(words)
    monkeypatch.setattr("provisioning.cli.begin.keygen.ask_password", lambda _prompt: next(answers))


def test_keygen_encrypts_with_what_a_person_types_twice(tmp_path, monkeypatch):
    answers(monkeypatch, b"secret", b"secret")
    assert main(["keygen", str(tmp_path / "k.pem"), "--encrypt"]) == 0
    assert len(sign(Signing(key=tmp_path / "k.pem"), b"bytes", password=lambda: b"secret")) == 64


def test_keygen_writes_nothing_when_the_two_passwords_differ(tmp_path, monkeypatch, capsys):
    answers(monkeypatch, b"secret", b"secert")
    assert main(["keygen", str(tmp_path / "k.pem"), "--encrypt"]) == 25
    assert "differ" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_named_as_one(tmp_path):
    with pytest.raises(SigningError, match=r"end in \.pem"):
        generate_key(tmp_path / "key", password=None)


def test_a_key_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningError, match="cannot be written"):
        generate_key(tmp_path / "file" / "key.pem", password=None)


def test_signing_without_a_key_says_which_setting_names_one(pem):
    with pytest.raises(SigningError, match="nothing says which key signs"):
        sign(Signing(), b"bytes")
    with pytest.raises(SigningError, match="no key to sign with") as caught:
        sign(Signing(public_key=Path(pem)), b"bytes")
    assert "keygen" in caught.value.next_step


def test_a_descriptor_that_is_closed_gives_no_password():
    with pytest.raises(SigningError, match="descriptor 987"):
        read_password_fd(987)


def test_init_gives_up_looking_for_a_free_key_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(init.signing, "public_key_path", lambda _path: tmp_path)
    with pytest.raises(SigningError, match="too many keys"):
        init.new_key("operator")


# flight.toml


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("area = 3", "area", "expected a table, got 3"),
        ("[area]\nzooms = 3", "area.zooms", "expected a list"),
        ("[area]\nmin_coverage = 3", "area.min_coverage", "expected a table"),
        ("[area]\nmin_coverage = {high = 1}", "area.min_coverage.high", "expected a zoom level"),
        ('[signing]\ncommand = ["x"]\npublic_key = "none.pem"', "signing.public_key", "no such file"),
    ],
)
def test_what_is_of_another_kind_is_named_with_what_was_expected(tmp_path, text, key, problem):
    with pytest.raises(ConfigError) as caught:
        parse(text, root=tmp_path)
    assert problem in str(caught.value.facts[key])


def test_sources_are_as_many_as_a_manifest_lists(tmp_path):
    tables = "".join(f'[[tiles.source]]\npath = "{n}"\n' for n in range(257))
    with pytest.raises(ConfigError) as caught:
        parse(tables, root=tmp_path)
    assert "257 sources, more than 256" in str(caught.value.facts["tiles.source"])


def test_what_toml_cannot_say_is_no_setting():
    with pytest.raises(TypeError, match="no TOML"):
        toml(1.5)


# what is shown


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (5 << 40, "5,120.0 GiB")],
)
def test_sizes_are_shown_in_the_unit_that_reads_best(count, expected):
    assert tiles_command._size(count) == expected


def test_of_many_tiles_the_first_are_named_and_the_others_counted():
    lines = [f"sat 15/0/{n}: no image" for n in range(tiles_command.MOST_NAMED + 3)]
    shown = tiles_command._named("unusable tiles", lines).splitlines()
    assert shown[0] == f"{len(lines)} unusable tiles:"
    assert shown[-1].strip() == "and 3 more"
    assert len(shown) == tiles_command.MOST_NAMED + 2


def test_dates_are_one_or_a_span():
    assert tiles_command._dates("2024-05-06", "2024-05-06") == "2024-05-06"
    assert tiles_command._dates("2024-05-06", "2024-06-01") == "2024-05-06 to 2024-06-01"
    assert tiles_command._dates(None, None) == "-"


def test_status_names_the_process_that_builds(built):
    busy = dataclasses.replace(read_status(built), builder=4711)
    assert status_command._build(busy, 0.0)["building"] == "process 4711"


def test_plan_and_why_are_reported_as_json(built, capsys):
    assert main(["plan", str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["has_work"] is False
    assert main(["why", "corpus", str(built), "--json"]) == 0
    assert [task["will_run"] for task in json.loads(capsys.readouterr().out)] == [False]


def test_a_heading_is_a_compass_bearing_however_it_was_given():
    asked = Question(camera=None, k=1, rotate=None, heading_deg=None, heading_sigma_deg=0.0, patches=0)
    assert headings_for(dataclasses.replace(asked, heading_deg=270.0), None) == (270.0,)
    assert headings_for(asked, None) == (0.0,)
    assert headings_for(asked, 12.5) == (12.5,)


def test_without_tiles_or_an_archive_there_is_no_imagery_to_show(tmp_path):
    verdict = SimpleNamespace(require=lambda: SimpleNamespace(files=()))
    with imagery_of(tmp_path, verdict, (), own=False) as imagery:
        assert imagery(None) is None


# doctor


def test_doctor_says_where_tensorrt_comes_from():
    assert "apt install python3-libnvinfer" in doctor._install("tensorrt")
    assert doctor._install("onnxruntime", "1.23") == "pip install onnxruntime==1.23, or compile here: doit engine"


def test_doctor_passes_on_why_a_runtime_cannot_be_asked(monkeypatch):
    def refuse(_engine: Engine):
        raise EngineError("no driver", next_step="install one")

    monkeypatch.setattr("provisioning.engines.select", refuse)
    (found,) = [f for f in doctor._host(manifest_of(), SimpleNamespace(host=None)) if f.state == "bad"]
    assert (found.said, found.todo) == ("no driver", "install one")


# variants of an evaluation


def manifest_in(cache):
    return manifest.parse((cache / "current/Manifest.json").read_bytes())


def test_trying_other_zooms_leaves_the_catalogue_as_flight_toml_asks(built):
    from provisioning import catalogue

    flight = read_flight(built)
    zoom = flight.area.zooms[0]
    before = catalogue.last_corpus(flight.selection, flight.build_dir)
    with locators(built, [parse_variant(f"zooms={zoom}")], manifest=manifest_in(built), custom_ops=None) as found:
        assert [request.tiles.count for _, _, request in found] == [before.count]
    assert catalogue.last_corpus(flight.selection, flight.build_dir) == before


# imagery on board


def test_imagery_on_board_is_what_was_indexed_and_is_shown(built_cache):
    cache, tmp_path = built_cache, built_cache.parent
    building.edit(cache, "[tiles]\n", '[tiles]\non_board = "pmtiles"\n')
    assert building.build(cache).outcome == "SUCCESS"
    key = ["--public-key", str(tmp_path / "key.pub.pem")]
    generation = (cache / "current").resolve()
    assert main(["verify", str(cache), *key, "--ground"]) == 0
    assert (generation / "tiles.pmtiles").is_file()
    photo = str(photo_of(cache))
    assert main(["locate", photo, "--cache", str(generation), *key, "--contact-sheet", str(tmp_path / "with.png")]) == 0
    (tmp_path / "tiles").rename(tmp_path / "gone")  # a vehicle has no tiles but those on board
    photo = str(next((tmp_path / "gone").rglob("*.jpg")))
    assert (
        main(["locate", photo, "--cache", str(generation), *key, "--contact-sheet", str(tmp_path / "without.png")]) == 0
    )
    assert Image.open(tmp_path / "without.png").tobytes() == Image.open(tmp_path / "with.png").tobytes()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["plan .", "--help", pytest.param("host", marks=pytest.mark.slow)])
def test_a_reader_that_leaves_is_no_error(built, words, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "provisioning.cli", *words.split()],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False, cwd=built,
    )  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (141, 0)


def test_a_misspelt_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as left:
        main(["verifi", "."])
    assert left.value.code == 2
    assert "there is no command 'verifi'; did you mean 'verify'?" in capsys.readouterr().err


def test_the_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (
        0,
        f"flightcache {importlib.metadata.version('flightcache')}\n",
    )
