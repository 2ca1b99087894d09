"""Attacks by what is read: tiles, bundles, keys and files of a cache directory that are made to hang, mislead or break."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from provisioning.base.errors import DeliveryError, Error, SigningError, TrustError
from provisioning.cli import main
from provisioning.config import Signing
from provisioning.delivery.bundle.check import check_bundle
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.trust import trusting
from provisioning.engines.vehicle.remote import serve
from provisioning.flight.signing import generate_key, load_public_key, public_key_path, sign
from provisioning.flight.trust import Trust, parse, to_bytes
from provisioning.flight.verify import verify
from provisioning.sources.pixels.image import MOST_SCANS, inspect_tile
from tests import delivery
from tests.test_trust_file import FIRST
from tests.test_vectors import reader

__all__ = ["reader"]


def progressive(side: int, scans: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 50).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scans * last + b"\xff\xd9"


def test_a_small_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded():
    started = time.process_time()
    found = inspect_tile(progressive(256, 2000), max_pixels=1 << 22, nodata=())
    assert "scans" in found.fault
    assert time.process_time() - started < 1
    assert inspect_tile(progressive(256, 0), max_pixels=1 << 22, nodata=()).fault is None
    assert progressive(256, 0).count(b"\xff\xda") < MOST_SCANS // 5


@pytest.fixture
def made(tmp_path):
    keys = delivery.make_keys(tmp_path)
    cache = delivery.publish_cache(tmp_path / "cache", keys)
    return cache, delivery.trust_anything_by(keys.public)


@pytest.mark.parametrize("what", ["empty frames", "skippable frames", "a frame of zeros"])
def test_a_bundle_that_unpacks_to_nothing_or_without_end_is_refused_in_time(made, tmp_path, what):
    names = [name for name in ("compression.zstd", "backports.zstd") if _there(name)]
    if not names:
        pytest.skip("no zstd module here")
    zstd = importlib.import_module(names[0])
    data = {
        "empty frames": lambda: zstd.compress(b"") * 20_000,
        "skippable frames": lambda: zstd.compress(b"") + (b"\x50\x2a\x4d\x18" + bytes(4)) * 30_000,
        "a frame of zeros": lambda: zstd.compress(bytes(1 << 26)),
    }[what]()
    (tmp_path / "b.tar.zst").write_bytes(data)
    started = time.process_time()
    with pytest.raises(DeliveryError) as caught:
        check_bundle(tmp_path / "b.tar.zst", trusting(made[1], tmp_path))
    assert str(tmp_path / "b.tar.zst") in str(caught.value)
    assert time.process_time() - started < 1


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("name", ["corpus.index", "report.html"])
@pytest.mark.parametrize("change", ["rewritten", "shorter", "replaced"])
def test_a_writer_during_bundle_gives_no_bundle_of_other_bytes(made, tmp_path, name, change):
    """Verified, then changed, then packed: no bundle appears, or one of the verified bytes."""
    cache, expect = made
    with verify(cache, expect) as verdict:
        documents = documents_of(verdict)
        path = next((cache / "generations").iterdir()) / name
        good = path.read_bytes()
        path.parent.chmod(0o755)
        path.chmod(0o644)
        if change == "replaced":
            path.unlink()
        path.write_bytes(b"x" * (len(good) - (change == "shorter")))
        try:
            pack(verdict, documents, tmp_path / "b.tar")
        except Error:
            assert not (tmp_path / "b.tar").exists()
            assert not list(tmp_path.glob("*.part"))
            return
    assert good in (tmp_path / "b.tar").read_bytes()
    check_bundle(tmp_path / "b.tar", trusting(expect, tmp_path))


@pytest.mark.parametrize("added", [b"\0", b"x", b"-----BEGIN PUBLIC KEY-----\n"])
def test_a_key_with_a_trailing_byte_is_no_key(tmp_path, added):
    generate_key(tmp_path / "k.pem", password=None)
    for file in (tmp_path / "k.pem", public_key_path(tmp_path / "k.pem")):
        good = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes(good + added)
        with pytest.raises(SigningError, match="not a PEM"):
            sign(Signing(key=tmp_path / "k.pem"), b"data") if file.name == "k.pem" else load_public_key(file)
        file.write_bytes(good)


PLACES = ["Manifest.json", "current", "flight.toml", ".build/build-report.json", ".c10.lock", ".build/history.json"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", ["fifo", "endless", "directory", "loop"])
@pytest.mark.parametrize("command", ["status", "verify", "doctor", "plan"])
def test_what_stands_in_place_of_a_file_hangs_no_command(tmp_path, capsys, place, what, command):
    cache = tmp_path / "cache"
    if place == "Manifest.json":
        delivery.publish_cache(cache, delivery.make_keys(tmp_path))
        (generation,) = (cache / "generations").iterdir()
        generation.chmod(0o755)
        path = generation / place
    else:
        (cache / ".build").mkdir(parents=True)
        (cache / "flight.toml").write_text("")
        path = cache / place
    if path.is_file():
        path.unlink()
    {"fifo": os.mkfifo, "endless": lambda p: p.symlink_to("/dev/zero"), "directory": Path.mkdir,
     "loop": lambda p: p.symlink_to(p.name)}[what](path)  # fmt: skip
    code = main([command, str(cache), *(["--public-key", str(tmp_path / "no.pem")] if command == "verify" else [])])
    assert isinstance(code, int)
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"flightcache-compile/2 []\n",
        b'flightcache-compile/2 {"spec": 1}\n',
        b'flightcache-compile/2 {"spec": {}, "onnx_bytes": -1, "onnx_sha256": "", "tiles": []}\n',
        b'flightcache-compile/2 {"spec": {"host": 3}, "onnx_bytes": 1e99, "onnx_sha256": 1, "tiles": [-1, 9]}\n',
        b"flightcache-compile/2 " + b"[" * 100_000 + b"\n",
        b"flightcache-compile/2 " + b"9" * 5000 + b"\n",
    ],
)
def test_the_compile_server_answers_nonsense_with_one_error(line):
    answers = io.BytesIO()
    with pytest.raises(Error):
        serve(io.BytesIO(line), answers)
    assert "error" in json.loads(answers.getvalue())


@pytest.mark.parametrize(
    "field", ["model", "host", "precision", "timeout_s", "profile", "state", "onnx", "workspace_mb"]
)
@pytest.mark.parametrize("value", [None, -1, [], {}, "\x1b[2J", 1e308])
def test_the_compile_server_takes_no_spec_of_another_shape(tmp_path, field, value):
    from provisioning.config import Backbone, Engine
    from provisioning.engines import OnnxRuntime, engine_spec

    spec = engine_spec(
        tmp_path / "m.onnx", OnnxRuntime().probe(), Backbone(name="m", onnx="m.onnx"), Engine(), state=tmp_path
    )
    asked = json.loads(spec.to_json())
    asked[field] = value
    request = {"spec": asked, "onnx_bytes": 0, "onnx_sha256": "x", "tiles": [0, 1, 1, 3]}
    answers = io.BytesIO()
    with pytest.raises(Error):
        serve(io.BytesIO(b"flightcache-compile/2 " + json.dumps(request).encode() + b"\n"), answers)
    said = json.loads(answers.getvalue())["error"]
    assert "\x1b" not in said


READER = Path(__file__).parents[1] / "examples" / "reader_cpp"


@pytest.fixture(scope="module")
def plain_reader(tmp_path_factory):
    """The reader as a vehicle has it: sanitizers want more address space than the limits leave."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    program = tmp_path_factory.mktemp("reader") / "reader"
    command = ["g++", "-std=c++17", "-O0", "-pthread", "-o", str(program), str(READER / "main.cpp"), "-lcrypto"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip("the reader cannot be compiled here: " + built.stderr[-200:])
    return program


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "limit", ["ulimit -u 1", "ulimit -v 120000", "ulimit -s 65536; ulimit -v 200000", "ulimit -n 12"]
)
def test_the_cpp_reader_is_ended_by_no_limit_of_the_system(made, tmp_path, plain_reader, limit):
    """A verdict or a refusal, never SIGABRT: `std::system_error` of a thread that cannot start is caught."""
    cache, _ = made
    words = [str(cache), "--public-key", str(tmp_path / "operator.pub.pem"),
             "--any-flight", "--any-aircraft", "--any-host", "--any-counter"]  # fmt: skip
    user = "setpriv --reuid=65534 --clear-groups " if os.getuid() == 0 and shutil.which("setpriv") else ""
    for place in (tmp_path, *tmp_path.rglob("*")):
        place.chmod(place.stat().st_mode | 0o055)
    done = subprocess.run(
        ["bash", "-c", f'{limit}; exec {user}"$0" "$@"', str(plain_reader), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode >= 0, done
    assert done.returncode < 126 or "Resource temporarily unavailable" in done.stderr, done


def trust_bombs() -> dict[str, bytes]:
    """Trust files that no reader may be slow, wrong or in two minds about."""
    text = to_bytes(Trust((FIRST,))).decode()

    def put(old: str, new: str) -> bytes:
        assert old in text
        return text.replace(old, new).encode()

    return {
        "nested": b"[" * 1_000_000,
        "nested in place": put('"revoked": []', '"revoked": ' + "[" * 200_000),
        "larger than any": b" " * 20_000_000,
        "a number of 500,000 digits": put('"version": 1', '"version": ' + "9" * 500_000),
        "version 2^53": put('"version": 1', '"version": 9007199254740992'),
        "no signing key must sign": put('"signing": 1', '"signing": 0'),
        "no root key must sign": put('"root": 1', '"root": 0'),
        "less than none": put('"root": 1', '"root": -1'),
        "a threshold that is no whole number": put('"root": 1', '"root": 1e0'),
        "two versions in one": put('"version": 1', '"version": 1,\n        "version": 1'),
        "two thresholds": put('"root": 1', '"root": 1,\n          "root": 1'),
        "half a character": put('"revoked": []', '"revoked": ["\\ud800"]'),
        "a byte behind it": text.encode() + b"\0",
        "a mark before it": b"\xef\xbb\xbf" + text.encode(),
        "100,000 versions": put('"versions": [', '"versions": [' + "{}," * 100_000),
        "10,000 revoked keys": put(
            '"revoked": []', f'"revoked": [{",".join(f"{chr(34)}{i:064x}{chr(34)}" for i in range(10_000))}]'
        ),
    }


def test_a_trust_file_that_is_a_bomb_is_refused_at_once_by_both_readers(tmp_path, reader):
    for name, data in trust_bombs().items():
        (tmp_path / "trust.json").write_bytes(data)
        started = time.process_time()
        with pytest.raises(TrustError, match="not a trust file"):
            parse(data)
        done = subprocess.run([reader, "trust", tmp_path / "trust.json"], capture_output=True, text=True, check=False)
        assert time.process_time() - started < 5, name
        assert (done.returncode, done.stdout.split()[0]) == (22, "malformed"), name
