"""Whatever flight.toml accepts is built, published and verified: whole configurations, drawn."""

from __future__ import annotations

import json
import shutil
import string
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from provisioning.base.disk import files
from provisioning.base.errors import AreaError, ConfigError, IndexingError
from provisioning.build.reasons import expectations
from provisioning.build.request import read_request
from provisioning.config.parse import read_flight
from provisioning.flight.verify import verify
from tests import building, crashing
from tests.building import NORTH, WEST, ZOOM, put_tile

Config = dict[str, Any]

WORD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.just("\n"), max_size=20).map("x".__add__)
FILE_NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30)
MODEL = st.text(string.ascii_letters + string.digits + ".-", min_size=1, max_size=10)
GATE = st.sampled_from(["coverage", "freshness", "fidelity", "index_recall", "self_localisation", "degenerate"])
DATE = st.dates().map(str) | st.sampled_from(["", "mtime"])
LEAST = st.decimals(-1, 0, places=18, allow_nan=False) | st.sampled_from([Decimal("0e-30"), Decimal("-0.0")])
"""A threshold that any network passes, in any spelling."""
DEGREES = st.decimals(places=4, min_value=-1, max_value=1, allow_nan=False)


def maybe(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Config]:
    """A table with any of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def boxes(draw: st.DrawFn) -> list[Decimal]:
    """A box that has something of the four tiles in it."""
    west, south = Decimal("8.53") + draw(DEGREES) / 100, Decimal("47.37") + draw(DEGREES) / 100
    return [west, south, Decimal("8.56") + draw(DEGREES) / 100, Decimal("47.395") + draw(DEGREES) / 100]


TAKEOFF = st.fixed_dictionaries(
    {
        "lat": DEGREES.map(lambda d: Decimal("47.385") + d / 1000),
        "lon": DEGREES.map(lambda d: Decimal("8.545") + d / 1000),
    },
    optional={"alt_m": st.decimals(-500, 100_000, allow_nan=False)},
)
SOURCE = maybe(
    name=WORD,
    priority=st.integers(-3, 3),
    zooms=st.permutations([ZOOM - 1, ZOOM]),
    zoom_priority=st.dictionaries(st.sampled_from([str(ZOOM - 1), str(ZOOM)]), st.integers(0, 9), max_size=2),
    captured=DATE,
    kind=st.sampled_from(["auto", "xyz"]),
)
BACKBONE = maybe(
    name=MODEL, batch=st.just(1), normalise=st.sampled_from(["l2", "none"]), role=WORD, size=st.just([32, 32])
)
CONFIGS = st.fixed_dictionaries(
    {
        "flight": maybe(id=WORD, aircraft=WORD, takeoff=TAKEOFF, takeoff_datum=st.sampled_from(["ellipsoid", "amsl"])),
        "sector": st.dictionaries(
            WORD,
            st.just({}) | st.fixed_dictionaries({"max_age_days": st.integers(1, 10**6), "action": st.just("warn")}),
            max_size=2,
        ),
        "bbox": boxes(),
        "zooms": st.sampled_from([[ZOOM], [ZOOM - 1, ZOOM], [ZOOM - 1]]),
        "part": st.lists(boxes(), max_size=1),
        "sources": st.lists(SOURCE, min_size=1, max_size=3),
        "backbones": st.lists(BACKBONE, min_size=1, max_size=2),
        "index": maybe(
            kind=st.sampled_from(["auto", "flat", "sqfp16", "sq8", "hrq", "sq4"]),
            rotations=st.integers(1, 4),
            transform=st.sampled_from(["none", "center", "pca(3)", "pca-whiten(2)"]),
        ),
        "dtype": st.sampled_from(["float32", "float16"]),
        "calibration": st.lists(st.tuples(FILE_NAME, WORD), max_size=3),
        "waivers": st.lists(st.tuples(GATE, TEXT, TEXT), max_size=2),
        "gates": maybe(index_recall=LEAST, recognition=LEAST, fidelity=LEAST),
        "on_board": st.sampled_from(["none", "pmtiles"]),
        "provenance": st.booleans(),
        "keep": st.integers(1, 3),
        "camera": st.just({})
        | st.fixed_dictionaries(
            {
                "width_px": st.integers(1, 1 << 16),
                "height_px": st.integers(1, 1 << 16),
                "focal_px": st.decimals(1, 9000, places=4),
                "mounting_yaw_deg": st.decimals(-360, 360, places=9),
                "principal_px": st.lists(st.decimals(-100, 9000, places=5), min_size=2, max_size=2) | st.just([]),
                "distortion": st.lists(st.decimals(-2, 2, places=18), min_size=4, max_size=4) | st.just([]),
            }
        ),
    }
)


def toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, str):
        return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        text = str(value).lower().replace("e+", "e")
        return text if "." in text or "e" in text else text + ".0"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else str(value)


def table(name: str, keys: Config) -> str:
    return "\n".join([name, *(f"{key} = {toml(value)}" for key, value in keys.items())]) + "\n"


def flight_toml(site: Path, drawn: Config) -> str:
    """Return flight.toml for a drawn configuration over the files of `site`."""
    gates = {name: toml_in_range(name, value) for name, value in drawn["gates"].items()}
    fidelity = gates.pop("fidelity", Decimal(-1))
    classes = drawn["sector"]
    area = {"bbox": drawn["bbox"], "zooms": drawn["zooms"], "min_coverage": {str(z): 0 for z in drawn["zooms"]}}
    parts = [
        table("[flight]", {**drawn["flight"], **({"sector_class": next(iter(classes))} if classes else {})}),
        table("[area]", area),
        *(table("[[area.part]]", {"bbox": box}) for box in drawn["part"]),
        table("[tiles]", {"blank": "keep", "on_board": drawn["on_board"]}),
        *(table("[[tiles.source]]", {"path": str(site / f"tiles{n}"), **s}) for n, s in enumerate(drawn["sources"])),
        *(
            table("[[backbone]]", {"name": "net" if not n else "other", **b, "onnx": str(site / "net.onnx"), "role": "descriptor" if not n else b.get("role", "other")})
            for n, b in enumerate({k: v for k, v in b.items() if k != "batch"} for b in drawn["backbones"])
        ),
        table("[descriptors]", {"dtype": drawn["dtype"]}),
        table("[index]", drawn["index"]),
        *(table("[[calibration]]", {"path": str(site / n / name), "purpose": p}) for n, name, p in placed(drawn)),
        *(table("[[waiver]]", {"gate": g, "by": by, "reason": why}) for g, by, why in drawn["waivers"]),
        *(table(f"[sector.{toml(name)}]", policy) for name, policy in classes.items()),
        table("[camera]", drawn["camera"]),
        table(
            "[gates]",
            {"samples": 1, "max_degenerate": 1, "index_recall": 0, "self_localisation": 0, **gates,
             "fidelity_cosine": {"fp32": fidelity}, "fidelity_agreement": {"fp32": 0}},
        ),
        table("[signing]", {"key": str(site / "key.pem")}),
        table("[publish]", {"keep_generations": drawn["keep"], "provenance": drawn["provenance"]}),
    ]  # fmt: skip
    return "\n".join(parts)


def toml_in_range(name: str, value: Decimal) -> Decimal:
    return value if name == "fidelity" else abs(value) if abs(value) < Decimal("0.01") else Decimal(0)


def placed(drawn: Config) -> list[tuple[str, str, str]]:
    """Each calibration file in a folder of its own: the names may be the same."""
    return [(f"calibration{n}", name, purpose) for n, (name, purpose) in enumerate(drawn["calibration"])]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of three sources, key and network; and what was built of them once, so that examples share the engine."""
    site = tmp_path_factory.mktemp("ground") / "site"
    site.mkdir()
    cache = crashing.new_world(site)
    for n in range(3):
        for row in range(2):
            for column in range(2):
                put_tile(site / f"tiles{n}", WEST + column, NORTH + row, seed=100 * n + 10 * row + column)
        put_tile(site / f"tiles{n}", WEST // 2, NORTH // 2, seed=7 + n, z=ZOOM - 1)
    assert building.build(cache).outcome == "SUCCESS"
    return site


SIMPLE: Config = {
    "flight": {}, "sector": {}, "bbox": [Decimal("8.53"), Decimal("47.37"), Decimal("8.56"), Decimal("47.395")],
    "zooms": [ZOOM], "part": [], "sources": [{}], "backbones": [{}], "index": {}, "dtype": "float32", "calibration": [],
    "waivers": [], "gates": {}, "on_board": "none", "provenance": False, "keep": 2, "camera": {},
}  # fmt: skip


EXAMPLES = 300 if settings().max_examples >= 1000 else 5
"""Five of half a second each are what the default run can bear; the thorough profile tries many."""


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=CONFIGS)
@example(drawn=SIMPLE)
@example(drawn=SIMPLE | {"backbones": [{"name": "Net"}, {"name": "net", "role": "other"}]})
@example(drawn=SIMPLE | {"waivers": [("freshness", "\x1b[2J", "\u202eabc")]})
@example(drawn=SIMPLE | {"gates": {"index_recall": Decimal("1e-25"), "fidelity": Decimal("-1e-19")}})
@example(drawn=SIMPLE | {"flight": {"takeoff": {"lat": Decimal("47.39501"), "lon": Decimal("8.55")}}})
@example(drawn=SIMPLE | {"zooms": [ZOOM - 1], "index": {"transform": "center"}})
@example(drawn=SIMPLE | {"sources": [{"captured": "2024-02-30"}]})
def test_what_is_accepted_is_published_and_verified(
    ground: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, drawn: Config
) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda fd: None)
    site = tmp_path_factory.mktemp("drawn") / "site"
    subprocess.run(["cp", "-a", ground, site], check=True)
    try:
        accepted_is_published(site, drawn)
    finally:
        subprocess.run(["chmod", "-R", "u+w", site], check=True)
        shutil.rmtree(site)


def accepted_is_published(site: Path, drawn: Config) -> None:
    cache = site / "cache"
    for folder, name, _ in placed(drawn):
        (site / folder).mkdir()
        try:
            (site / folder / name).write_text("{}\n")
        except OSError:  # "." and "..", or too long in UTF-8
            event("no such file name")
            return
    (cache / "flight.toml").write_text(flight_toml(site, drawn))
    try:
        read_flight(cache)
    except ConfigError as error:
        event(f"refused: {', '.join(sorted(map(str, error.facts)))}")
        return
    done = building.build(cache)
    if isinstance(
        done.failure, (AreaError, IndexingError)
    ):  # what tiles and network decide: said at once, with the key
        event("refused after the scan")
        assert done.failure.key
        assert not done.ran
        return
    assert done.outcome == "SUCCESS", (str(done.failure), json.dumps(drawn, default=str))
    event("published")
    with verify(cache, expectations(read_request(cache))) as verdict:
        verdict.require()
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
