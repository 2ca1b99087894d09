"""What init accepted for a person is named until that person has answered: in outcome, status, verify, report, on board."""

import io
import json
import re
from contextlib import closing
from decimal import Decimal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioning.base.events import event
from provisioning.base.outcome import BuildReport
from provisioning.catalogue.values import Corpus, ZoomCount
from provisioning.cli import main
from provisioning.cli.begin.init import create_cache
from provisioning.config import Area
from provisioning.console import listen
from provisioning.flight import manifest
from provisioning.flight.signing import generate_key
from provisioning.quality.gates.corpus import accepted_coverage
from provisioning.report.model import ReportModel
from provisioning.report.page import render
from tests import caches
from tests.building import NORTH, WEST, ZOOM, build, edit, put_tile, put_tiles
from tests.test_vectors import ask, reader  # noqa: F401 - a fixture

SHORT = "accepted by init: at zoom 17 7 of 45 tiles are there"
THERE = f"at zoom {ZOOM} 15 of 16 tiles are there"


def corpus_of(**per_zoom):
    counts = {int(zoom[1:]): ZoomCount(*count, 0) for zoom, count in per_zoom.items()}
    return Corpus(coverage_sha256="", count=1, bytes=1, per_zoom=counts, sources=(), bbox=None, zooms=tuple(counts))


@pytest.mark.parametrize(
    ("by", "asked", "said"),
    [
        ("init", {17: Decimal("0.1555")}, ("accepted by init: at zoom 17 7 of 45 tiles are there",)),
        ("", {17: Decimal(0)}, ("accepted by flight.toml: at zoom 17 7 of 45 tiles are there",)),
        ("J.\nDoe ", {16: Decimal("0.5"), 17: 0}, ("accepted by J. Doe: at zoom 17 7 of 45 tiles are there",)),
        ("init", {}, ()),
        ("init", {17: Decimal(1)}, ()),
        ("init", {17: Decimal("0.1556")}, ()),
    ],
)
def test_accepted_is_each_zoom_that_may_lack_tiles_and_does(by, asked, said):
    assert accepted_coverage(Area(min_coverage=asked, accepted_by=by), corpus_of(z16=(12, 12), z17=(7, 45))) == said


def test_outcome_line_names_it_after_the_place(capsys):
    with closing(listen("human", io.StringIO())) as listener:
        event("corpus", tiles=7, place="54.1 N 12.4 E", accepted=SHORT)
        listener.finish(BuildReport(outcome="SUCCESS"))
    assert capsys.readouterr().out.endswith(f", 54.1 N 12.4 E, {SHORT}\n")


def test_outcome_line_says_once_who_accepted(capsys):
    with closing(listen("human", io.StringIO())) as listener:
        event("corpus", tiles=7, place="54.1 N 12.4 E", accepted=SHORT)
        listener.finish(BuildReport(outcome="SUCCESS"), [("PASS", "good"), ("accepted by init", "warn")])
    said = capsys.readouterr().out
    assert said.count("accepted by") == 1
    assert "54.1 N 12.4 E; " in said


def test_report_verify_and_status_say_what_the_manifest_says(tmp_path, capsys):
    marked = manifest.with_hash(
        caches.manifest_of()._replace(
            schema=manifest.SCHEMA_2, accepted=(manifest.types.Accepted("coverage", SHORT),),
            flight=caches.manifest_of().flight._replace(takeoff_origin=None),
        )
    )  # fmt: skip
    caches.publish(tmp_path, manifest=marked)
    (tmp_path / "key.pem").write_bytes(
        caches.KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for command in (
        ["status", str(tmp_path)],
        ["verify", str(tmp_path), "--public-key", str(tmp_path / "key.pem"), "--ground"],
    ):
        assert main(command) == 0
        assert SHORT in capsys.readouterr().out
    assert render(ReportModel(manifest=marked)).decode().count(SHORT) == 2


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a cache that init made of tiles with a hole in the middle, and what doit wrote to the terminal."""
    root, stream = tmp_path_factory.mktemp("accepted"), io.StringIO()
    put_tiles(root / "tiles")
    (root / "tiles" / str(ZOOM) / str(WEST + 1) / f"{NORTH + 1}.jpg").unlink()
    generate_key(root / "key.pem", password=None)
    new = create_cache(root / "cache", tiles=root / "tiles", key=root / "key.pem")
    assert new.questions == (f"ZOOM {ZOOM}: 15 OF 16 TILES ARE THERE. IS THAT ENOUGH TO FLY?",)
    with pytest.MonkeyPatch.context() as patch, closing(listen("human", stream)) as listener:
        patch.setattr("sys.stdout", stream)
        listener.finish(build(root / "cache").report)
    return root / "cache", stream.getvalue()


def read(cache):
    return manifest.parse((cache / "current" / "Manifest.json").read_bytes())


@pytest.mark.slow
def test_manifest_and_report_hold_what_init_accepted(built):
    cache, _ = built
    assert read(cache).accepted == (manifest.types.Accepted("coverage", f"accepted by init: {THERE}"),)
    page = (cache / "current" / "report.html").read_text()
    assert page.count(f"accepted by init: {THERE}") >= 2


@pytest.mark.slow
def test_outcome_line_ends_with_it(built):
    _, said = built
    outcome = re.sub(r"\x1b\[\d*m", "", said.splitlines()[-1])
    assert outcome.startswith("SUCCESS")
    assert outcome.endswith(f"accepted by init: {THERE}")


@pytest.mark.slow
def test_status_and_verify_say_it(built, capsys):
    cache, _ = built
    key = ["--public-key", str(cache.parent / "key.pub.pem"), "--ground"]
    for command in (["status", str(cache)], ["verify", str(cache), *key]):
        assert main(command) == 0
        assert f"accepted by init: {THERE}" in capsys.readouterr().out
    assert main(["verify", str(cache), *key, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == [
        {"what": "coverage", "detail": f"accepted by init: {THERE}"}
    ]


@pytest.mark.slow
def test_reader_in_cpp_prints_it(built, reader):  # noqa: F811 - the fixture
    cache, _ = built
    anything = ["--any-flight", "--any-aircraft", "--any-host", "--any-counter"]
    code, said = ask(reader, "verify", cache, "--public-key", cache.parent / "key.pub.pem", *anything)
    assert (code, said.splitlines()[1:]) == (0, [f"accepted\tcoverage\taccepted by init: {THERE}"])


@pytest.mark.slow
def test_it_bears_the_name_that_answers_and_goes_when_nothing_is_missing(built):
    cache, _ = built
    edit(cache, 'accepted_by = "init"', 'accepted_by = "J. Doe"')
    assert build(cache).outcome == "SUCCESS"
    assert [entry.detail for entry in read(cache).accepted] == [f"accepted by J. Doe: {THERE}"]
    put_tile(cache.parent / "tiles", WEST + 1, NORTH + 1, seed=999)
    assert build(cache).outcome == "SUCCESS"
    assert read(cache).accepted == ()
