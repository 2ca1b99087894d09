"""The published test vectors: made by one script, and kept to by the Python verifier and by the C++ reader."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.base.errors import ManifestError, TrustError
from provisioning.base.geometry.geo import unpack_id
from provisioning.base.printable import steers
from provisioning.flight.manifest import (
    coverage_lines,
    coverage_sha256,
    manifest_hash,
    manifest_preimage,
    parse,
    to_bytes,
)
from provisioning.flight.manifest.coverage import COVERAGE_TAG
from provisioning.flight.manifest.formula import field
from provisioning.flight.signing import PublicKey, load_public_key
from provisioning.flight.trust import Trust, check_chain
from provisioning.flight.trust import parse as parse_trust
from provisioning.flight.verify import ANY, CounterFloor, Expectations, ExpectedHost, verify
from tests import fuzzing
from tests.building import build, new_cache
from tests.compiling import PLAIN, SANITIZED, WARNINGS, compile_by
from tests.sharing import made_once
from tests.vectors import make

VECTORS = Path(__file__).parent / "vectors"
READER = Path(__file__).resolve().parents[1] / "examples" / "reader_cpp"


def load(name: str) -> object:
    return json.loads((VECTORS / name).read_text())


def data_of(vector: dict[str, str]) -> bytes:
    return bytes.fromhex(vector["hex"]) if "hex" in vector else vector["text"].encode()


MANIFESTS = sorted(path.stem for path in (VECTORS / "manifests").glob("*.json"))
MALFORMED = {vector["name"]: vector for vector in load("malformed.json")}
CACHES = load("caches.json")
TRUSTS = {vector["name"]: vector for vector in load("trust.json")}
CASES = {case["name"]: case for case in CACHES["cases"]}


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    made = dict(make.files())
    assert {name: (VECTORS / name).read_bytes() for name in made} == made
    ours = {"README.md", "__init__.py", "make.py", "camera.json"}  # checked by test_camera_vectors.py
    on_disk = {str(p.relative_to(VECTORS)) for p in VECTORS.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert on_disk - ours == set(made)


# --- laying out a cache ------------------------------------------------------------------------------------------------


STEPS: dict[str, Callable[..., object]] = {
    "write": lambda path, text: path.write_text(text),
    "write_hex": lambda path, data: path.write_bytes(bytes.fromhex(data)),
    "remove": lambda path: path.unlink(),
    "mkdir": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "truncate": os.truncate,
    "symlink": lambda path, target: path.symlink_to(target),
}


def lay_out(root: Path, case: dict) -> dict:
    """Write the cache of `case` into `root` and return what is expected of it."""
    root.mkdir(exist_ok=True)
    for path, data in CACHES["files"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes.fromhex(data))
    (root / "current").symlink_to("generations/000007")
    for verb, path, *rest in case["steps"]:
        if verb == "move":
            (root / path).rename(root / rest[0])
        elif verb == "hardlink":
            os.link(root / rest[0], root / path)
        else:
            STEPS[verb](root / path, *rest)
    return {**CACHES["expect"], **case["expect"]}


def lay_out_floor(folder: Path, expect: dict) -> Path | None:
    """Write the floor's files of a vector and return the floor; None if the vector has none."""
    folder.mkdir()
    for name, text in (expect["floor"] or {"before": {}})["before"].items():
        (folder / name).write_text(text)
    return folder / "floor" if expect["floor"] else None


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def expectations(expect: dict) -> Expectations:
    """The expectations of a vector as our verifier takes them."""
    given = {key: ANY if value == "any" else value for key, value in expect.items()}
    return Expectations(
        keys=tuple(PublicKey(bytes.fromhex(key)) for key in given["keys"]),
        flight_id=given["flight_id"],
        aircraft_id=given["aircraft_id"],
        host=ExpectedHost(**{part: given["host"].get(part, ANY) for part in ExpectedHost._fields}),
        counter_floor=given["counter_floor"],
        fingerprints=ANY if given["fingerprints"] is ANY else frozenset(given["fingerprints"]),
        revoked=frozenset(given["revoked"]),
        now_s=given["now_s"],
        trust=read(given["trust"].encode()).newest if given["trust"] else None,
    )


# --- our verifier --------------------------------------------------------------------------------------------------------


def test_fields_are_encoded_as_published() -> None:
    assert {text: field(text).decode() for text in load("fields.json")} == load("fields.json")


@pytest.mark.parametrize("name", MANIFESTS)
def test_accepted_manifest(name: str) -> None:
    data = (VECTORS / f"manifests/{name}.json").read_bytes()
    manifest = parse(data)
    assert to_bytes(manifest) == data
    assert manifest_preimage(manifest) == (VECTORS / f"manifests/{name}.preimage").read_bytes()
    assert manifest_hash(manifest) + "\n" == (VECTORS / f"manifests/{name}.sha256").read_text()
    assert load_public_key(VECTORS / "public.pem").verifies((VECTORS / f"manifests/{name}.sig").read_bytes(), data)


@pytest.mark.parametrize("name", MALFORMED)
def test_refused_manifest(name: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(data_of(MALFORMED[name]))
    assert (caught.value.key == "schema") == (MALFORMED[name]["code"] == "schema")


def test_coverage_digests() -> None:
    for vector in load("coverage.json"):
        rows = [tuple(row) for row in vector["rows"]]
        assert (COVERAGE_TAG + b"".join(coverage_lines(rows))).decode() == vector["preimage"]
        assert coverage_sha256(rows) == vector["sha256"]


@pytest.mark.parametrize("name", TRUSTS)
def test_trust_file(name: str) -> None:
    assert said_of(TRUSTS[name]["text"].encode()) == TRUSTS[name]["says"]


def read(data: bytes) -> Trust:
    return check_chain(parse_trust(data))


def said_of(data: bytes) -> str:
    """What our reader says of a trust file: its newest version, or why it is refused."""
    try:
        return str(read(data).newest.version)
    except TrustError as error:
        return "malformed" if "not a trust file" in error.what else "unsigned"


def test_weak_keys() -> None:
    for key in load("weak_keys.json"):
        assert PublicKey(bytes.fromhex(key)).is_weak


@pytest.mark.parametrize("name", CASES)
def test_cache(tmp_path: Path, name: str) -> None:
    given = lay_out(tmp_path / "cache", CASES[name])
    expect, floor = expectations(given), lay_out_floor(tmp_path / "outside", given)
    if floor is not None:
        expect = expect._replace(counter_floor=CounterFloor(floor, raise_on_pass=True))
    with verify(tmp_path / "cache", expect) as verdict:
        found = sorted([str(reason.code), reason.file] for reason in verdict.reasons)
        assert found == sorted(CASES[name]["reasons"])
        assert verdict.passed == (not found)
    if floor is not None:
        assert files_in(floor.parent) == given["floor"]["after"]


# --- the reader in C++ -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=[PLAIN, SANITIZED])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader, compiled with warnings as errors and checks, or a skip that says what is missing."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which("make") is None:
        pytest.skip("no C++ compiler and make (apt-get install g++ make)")
    probe = [compiler, "-x", "c++", "-fsyntax-only", "-include", "openssl/evp.h", "/dev/null"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no OpenSSL headers (apt-get install libssl-dev)")
    name = f"reader{'-'.join(request.param)}"
    return made_once(tmp_path_factory, name, lambda folder: _compile(compiler, request.param, folder)) / "reader"


def _compile(compiler: str, flags: list[str], folder: Path) -> None:
    for source in READER.iterdir():
        if source.suffix in {".cpp", ".hpp"} or source.name == "Makefile":
            shutil.copy(source, folder)
    words = ["make", "-C", folder, f"CXX={compiler}", f"CXXFLAGS={' '.join([*flags, *WARNINGS])}"]
    compile_by(words, flags)


def ask(reader: Path, *words: str | Path, given: str = "") -> tuple[int, str]:
    """Run the reader; a crash or a sanitizer's report fails here."""
    done = subprocess.run([reader, *words], input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, 2, 22}, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", MANIFESTS)
def test_reader_recomputes_manifest_hash(reader: Path, name: str) -> None:
    path = VECTORS / f"manifests/{name}.json"
    assert ask(reader, "hash", path) == (0, (VECTORS / f"manifests/{name}.sha256").read_text())
    assert ask(reader, "preimage", path) == (0, (VECTORS / f"manifests/{name}.preimage").read_text())


def verdicts_of(reader: Path, files: list[Path]) -> list[str]:
    """What the reader says of each file: its manifest_hash, or the code of its refusal."""
    return [line.split("\t")[0] for line in ask(reader, "hash", *files)[1].splitlines()]


def test_reader_refuses_every_malformed_manifest(reader: Path, tmp_path: Path) -> None:
    files = []
    for number, vector in enumerate(MALFORMED.values()):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(data_of(vector))
    said = dict(zip(MALFORMED, verdicts_of(reader, files), strict=True))
    assert said == {name: vector["code"] for name, vector in MALFORMED.items()}


def steering_of_the_page() -> set[int]:
    """The code points that docs/manifest.md forbids in *text*."""
    row = re.search(r"\*text\*.*?none of (.*?) \|", (READER.parents[1] / "docs" / "manifest.md").read_text())[1]
    ends = [(first, last or first) for first, last in re.findall(r"U\+([0-9A-F]{4})(?:–([0-9A-F]{4}))?", row)]
    return {code for first, last in ends for code in range(int(first, 16), int(last, 16) + 1)}


def test_the_specification_and_what_is_printed_name_the_same_steering_characters() -> None:
    surrogates = set(range(0xD800, 0xE000))  # refused as UTF-8 already
    assert {code for code in range(0x110000) if steers(chr(code))} == steering_of_the_page() | surrogates


def test_reader_and_verifier_refuse_each_steering_character_and_none_beside_it(reader: Path, tmp_path: Path) -> None:
    text, steering = make.to_bytes(make.manifest_of()).decode(), steering_of_the_page()
    codes = sorted((steering | {code + side for code in steering for side in (-1, 1)}) - {-1, 0x22, 0x5C})
    files = []
    for code in codes:
        said = chr(code) if code > 0x1F else f"\\u{code:04x}"
        files.append(tmp_path / f"{code:06x}.json")
        files[-1].write_bytes(text.replace('"detail": ""', f'"detail": "a{said}b"').encode())
    here = [verdict_here(file.read_bytes()) for file in files]
    assert verdicts_of(reader, files) == here
    assert {code for code, said in zip(codes, here, strict=True) if said == "malformed"} == steering


def test_reader_takes_no_file_of_the_json_test_suite(reader: Path, shared_data: Path) -> None:
    files = sorted((shared_data / "broken" / "jsontestsuite").rglob("*.json"))
    assert set(verdicts_of(reader, files)) == {"malformed", "schema"}


def test_reader_says_the_same_of_trust_files(reader: Path, tmp_path: Path) -> None:
    """The published ones, and each with a byte changed."""
    rng, data = random.Random(2), [vector["text"].encode() for vector in TRUSTS.values()]
    mutants = [bytearray(rng.choice(data[:10])) for _ in range(400)]
    for mutant in mutants:
        mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(7)
    files = []
    for number, content in enumerate([*data, *mutants]):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(content)
    said = [line.split("\t")[0] for line in ask(reader, "trust", *files)[1].splitlines()]
    assert said == [said_of(file.read_bytes()) for file in files]
    assert set(said) >= {"1", "3", "unsigned", "malformed"}


def ids_said() -> list[list[int]]:
    """The rows of ids.tsv."""
    return [[int(field) for field in line.split("\t")] for line in (VECTORS / "ids.tsv").read_text().splitlines()[1:]]


def test_ids_say_what_the_vectors_say() -> None:
    for packed, rotations, *said, lat_e7, lon_e7 in ids_said():
        found = unpack_id(packed, rotations)
        assert [*found, *found.centre[:2]] == [*said, lat_e7, lon_e7]


def test_reader_decodes_ids(reader: Path) -> None:
    rows = ids_said()
    assert {row[7] for row in rows} == {0, 1, 2, 3}
    for rotations in {row[1] for row in rows}:
        some = [row for row in rows if row[1] == rotations]
        code, said = ask(reader, "ids", str(rotations), given="".join(f"{row[0]}\n" for row in some))
        assert code == 0
        assert [list(map(int, line.split("\t"))) for line in said.splitlines()] == [row[2:] for row in some]


@pytest.mark.parametrize("given", ["-1", str(1 << 63), str((4**25 // 3) << 14), "1.5", "x"])
def test_reader_decodes_no_other_id(reader: Path, given: str) -> None:
    assert ask(reader, "ids", "4", given=given)[0] in {2, 22}


def test_reader_recomputes_coverage(reader: Path) -> None:
    for vector in load("coverage.json"):
        rows = "".join("\t".join(map(str, row)) + "\n" for row in vector["rows"])
        assert ask(reader, "coverage", given=rows) == (0, vector["sha256"] + "\n")


def options(expect: dict, directory: Path) -> list[str]:
    """The expectations of a vector as options of the reader."""
    words = []
    for number, key in enumerate(expect["keys"]):
        path = directory / f"{number}.pem"
        path.write_text(pem(bytes.fromhex(key)))
        words += ["--public-key", str(path)]
    for part, key in (("flight", "flight_id"), ("aircraft", "aircraft_id")):
        value = expect[key]
        words += [f"--any-{part}"] if value == "any" else [f"--no-{part}"] if value is None else [f"--{part}", value]
    words += [word for name, value in expect["host"].items() for word in ("--host", f"{name}={value}")] or [
        "--any-host"
    ]
    words += ["--no-clock"] if expect["now_s"] == "any" else ["--now", str(expect["now_s"])]
    if expect["trust"]:
        (directory / "trust.json").write_text(expect["trust"])
        words += ["--trust", str(directory / "trust.json")]
    floor = expect["counter_floor"]
    if expect["floor"]:
        words += ["--floor", str(directory.parent / "outside" / "floor"), "--raise-floor"]
    words += [] if expect["floor"] else ["--any-counter"] if floor == "any" else ["--counter-floor", str(floor)]
    words += [] if expect["fingerprints"] == "any" else ["--fingerprint", *expect["fingerprints"]]
    return words + [word for fingerprint in expect["revoked"] for word in ("--revoked", fingerprint)]


def pem(raw: bytes) -> str:
    import base64

    der = bytes.fromhex("302a300506032b6570032100") + raw
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("name", CASES)
def test_reader_on_cache(reader: Path, tmp_path: Path, name: str) -> None:
    root, keys = tmp_path / "cache", tmp_path / "keys"
    root.mkdir()
    keys.mkdir()
    given = lay_out(root, CASES[name])
    floor = lay_out_floor(tmp_path / "outside", given)
    code, said = ask(reader, "verify", root, *options(given, keys))
    if floor is not None:
        assert files_in(floor.parent) == given["floor"]["after"]
    if not CASES[name]["reasons"]:
        assert (code, said.split("\t")[0]) == (0, "PASS")
    elif CASES[name]["reasons"][0] in (["key-revoked", ""], ["key-not-allowed", ""]):
        assert (code, said) == (2, "")  # not a fingerprint: wrong usage of the command
    else:
        assert code == 22
        assert sorted(line.split("\t")[:2] for line in said.splitlines()) == sorted(CASES[name]["reasons"])


def verdict_here(data: bytes) -> str:
    try:
        return str(manifest_hash(parse(data)))
    except ManifestError as error:
        return "schema" if error.key == "schema" else "malformed"


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_reader_and_verifier_agree_on_every_flipped_byte_of_a_manifest(
    reader: Path, tmp_path: Path, every: int
) -> None:
    """Both parse what no signature protects here: whatever one accepts, the other must, with the same hash."""
    whole = (VECTORS / "manifests/full.json").read_bytes()
    files = []
    for at in range(0, len(whole), every):
        files.append(tmp_path / str(at))
        files[-1].write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
    expected = [verdict_here(file.read_bytes()) for file in files]
    assert verdicts_of(reader, files) == expected
    assert (
        len(set(expected)) > 100 // every
    )  # most flips give another valid Manifest: that is what the signature is for


def test_reader_and_verifier_agree_on_the_fuzzers_corpus(reader: Path) -> None:
    files = sorted(fuzzing.CORPUS.iterdir())
    assert verdicts_of(reader, files) == [verdict_here(file.read_bytes()) for file in files]


@pytest.mark.parametrize("count", [300, pytest.param(1500, marks=pytest.mark.slow)])
def test_reader_and_verifier_agree_on_fresh_mutants(reader: Path, tmp_path: Path, count: int) -> None:
    rng, pool = random.Random(1), fuzzing.corpus()
    files = [tmp_path / f"{number:04}" for number in range(count)]
    for file in files:
        file.write_bytes(fuzzing.mutate(rng.choice(pool), rng))
    assert verdicts_of(reader, files) == [verdict_here(file.read_bytes()) for file in files]


def test_reader_accepts_what_doit_built_and_refuses_it_after_one_byte(reader: Path, tmp_path: Path) -> None:
    built = build(new_cache(tmp_path, side=3))
    assert built.failure is None
    options = ["--public-key", str(tmp_path / "key.pub.pem"), "--flight", "F-1", "--any-aircraft", "--any-host"]
    command = ("verify", tmp_path / "cache", *options, "--counter-floor", "1")
    assert ask(reader, *command) == (0, f"PASS\t{built.report.manifest_hash}\n")
    index = tmp_path / "cache" / "current" / "corpus.index"
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.chmod(0o644)
    index.write_bytes(data)
    code, said = ask(reader, *command)
    assert (code, said.split("\t")[:2]) == (22, ["digest", "corpus.index"])


def test_reader_needs_every_expectation_to_be_said(reader: Path, tmp_path: Path) -> None:
    done = subprocess.run([reader, "verify", tmp_path, "--any-flight"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "aircraft" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--flight", "F-2", "--flight", "F-1"],
        ["--flight", "F-2", "--any-flight"],
        ["--no-aircraft", "--any-aircraft"],
        ["--counter-floor", "9", "--counter-floor", "1"],
        ["--counter-floor", "9", "--any-counter"],
        ["--floor", "a", "--floor", "b"],
        ["--host", "backend=a", "--host", "backend=b"],
        ["--host", "backend=a", "--any-host"],
        ["--any-host", "--host", "backend=a"],
        ["--now", "1", "--now", "2"],
        ["--now", "1", "--no-clock"],
    ],
)
def test_reader_takes_no_option_back(reader: Path, words: list[str]) -> None:
    wanted = {f"--any-{part}" for part in ("flight", "aircraft", "host", "counter")}
    rest = [any_ for any_ in sorted(wanted) if not any(any_[6:] in word or word == "--floor" for word in words)]
    command = [reader, "verify", "cache", "--public-key", VECTORS / "public.pem", *words, *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "takes back" in done.stderr
