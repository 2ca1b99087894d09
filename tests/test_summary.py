"""Promises of the one sentence about a cache: the same words and marks wherever a cache is named."""

import datetime as dt
import io
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioning.cli import main
from provisioning.cli.check.verify import details
from provisioning.config.parse import parse
from provisioning.console.style import colouring, sentence
from provisioning.flight.manifest import Accepted, GateEntry, Waiver, ZoomCount
from provisioning.flight.summary import AT_MOST, STANDARD, summarise
from provisioning.quality.gates.limits import network_limits
from tests import building, report_models
from tests.caches import KEY, publish

BBOX = report_models.BBox(75476074, 472792290, 76794434, 473611530)
TODAY = dt.date(2022, 7, 16)


def manifest_of(**parts):
    return report_models.manifest(BBOX, {15: ZoomCount(132, 132, 0), 16: ZoomCount(516, 528, 400_000)}, **parts)


def test_the_sentence_names_waivers_gaps_age_and_heading():
    said = summarise(manifest_of(), "PASS", today=TODAY).sentence()
    assert said == (
        "PASS, counter 7, flight SURVEY-0417, 1 gate waived, 1 gate warns, 12 tiles missing, "
        "imagery up to 412 days old, needs a known heading"
    )


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"gates": {"index_recall": GateEntry("0.6", "0.5", "pass", "")}}, "1 gate lowered"),
        ({"gates": {"coverage.z16": GateEntry("0.6", "0.5", "pass", "")}}, "1 gate lowered"),
        ({"gates": {"degenerate": GateEntry("0.1", "0.9", "pass", "")}}, "1 gate lowered"),
        ({"gates": {"fidelity.cosine": GateEntry("1", "0.99", "pass", "")}}, "1 gate lowered"),
        ({"gates": {"recognition": GateEntry("0.1", "0.5", "warn", "")}}, "1 gate warns"),
        ({"accepted": (Accepted("coverage", "accepted by init: at zoom 16 1 of 2"),)}, "accepted by init"),
    ],
)
def test_what_lets_less_than_usual_pass_is_in_the_sentence(parts, part):
    summary = summarise(manifest_of(**parts), "PASS", today=TODAY)
    assert (part, "warn") in summary.parts()


@pytest.mark.parametrize(
    "gates",
    [
        {"index_recall": GateEntry("0.97", "0.95", "pass", "")},
        {"coverage.z15": GateEntry("0.6", "0", "pass", "")},
        {"degenerate": GateEntry("0.1", "0.1", "pass", "")},
        {"freshness": GateEntry("900", "1000", "pass", "")},
        {"of another release": GateEntry("1", "0", "pass", "")},
    ],
)
def test_a_gate_held_to_as_much_or_more_is_not_lowered(gates):
    assert summarise(manifest_of(gates=gates), "PASS").gates_lowered == ()


@pytest.mark.parametrize(
    ("today", "part"),
    [
        (TODAY, "imagery up to 412 days old"),
        (None, "oldest imagery of 2021-05-30"),
        (dt.date(2020, 1, 1), "oldest imagery of 2021-05-30, after the date of this computer"),
    ],
)
def test_age_needs_a_clock(today, part):
    assert part in [text for text, _ in summarise(manifest_of(), "PASS", today=today).parts()]


def test_without_a_manifest_only_the_reasons_are_counted():
    assert summarise(None, "REFUSED", reasons=2).sentence() == "REFUSED, 2 reasons"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_standard_thresholds_are_those_of_the_builder(precision, tmp_path):
    text = building.new_cache(tmp_path, network=building.GIST).joinpath("flight.toml").read_text()
    flight = parse(text, root=tmp_path / "cache")
    limits = network_limits(flight.gates, replace(flight.descriptor_backbone, precision=precision))
    standard = {name: value if isinstance(value, str) else value[precision] for name, value in STANDARD.items()}
    assert {name: str(limit.threshold) for name, limit in limits.items()} == {
        name: value for name, value in standard.items() if name != "coverage.required"
    }
    assert {name for name, limit in limits.items() if not limit.at_least} == AT_MOST


def test_colour_adds_marks_and_takes_no_word_away():
    summary = summarise(manifest_of(), "PASS", today=TODAY)
    with colouring("always"):
        coloured = sentence(summary.parts(), io.StringIO())
    with colouring("never"):
        plain = sentence(summary.parts(), io.StringIO())
    assert plain == summary.sentence()
    assert "\x1b[32mPASS\x1b[0m" in coloured
    assert "\x1b[33m1 gate waived\x1b[0m" in coloured


def test_who_waived_and_why_is_listed():
    lines = details(manifest_of(waivers=(Waiver("freshness", "J. Doe", "no newer imagery"),)))
    assert lines == ["freshness waived by J. Doe: no newer imagery"]


def test_status_doctor_and_verify_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    built = publish(tmp_path / "cache")
    (tmp_path / "k.pem").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    said = {}
    main(["status", str(built.root), "--json"])
    said["status"] = json.loads(capsys.readouterr().out)["current"]["summary"]
    main(["verify", str(built.root), "--public-key", "k.pem", "--ground", "--json"])
    said["verify"] = json.loads(capsys.readouterr().out)["summary"]
    main(["doctor", str(built.root), "--public-key", "k.pem", "--json"])
    said["doctor"] = json.loads(capsys.readouterr().out)["summary"]
    assert {summary.pop("state") for summary in said.values()} == {"NOT VERIFIED", "PASS"}
    sentences = {summary.pop("sentence").removeprefix("NOT VERIFIED").removeprefix("PASS") for summary in said.values()}
    assert len(sentences) == 1
    assert said["status"] == said["verify"] == said["doctor"]
