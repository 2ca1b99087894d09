"""Nothing of an unverified cache is imported, run, opened by a library or believed; trust comes from the user."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from provisioning.base.errors import Error, SigningError
from provisioning.build.status import read_status
from provisioning.cli import COMMANDS, main
from provisioning.cli.deliver.common import user_keys
from provisioning.cli.measure.variants import without_foreign_code
from provisioning.config.parse import read_flight
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.flight.manifest import with_hash
from provisioning.flight.verify import verify
from tests import building, delivery
from tests.caches import OTHER_KEY, Cache, manifest_of, publish

PEM = str(Path(__file__).parent / "vectors" / "public.pem")
ROOT = Path(__file__).resolve().parents[1]
FLIGHTCACHE = Path(sys.executable).with_name("flightcache")
"""The installed command; `python -m` in a directory would import from it, which no program can prevent."""
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
FORBIDDEN = re.compile(r"\b(execve|execveat|socket|connect|fork|vfork)\(|clone3?\((?!.*CLONE_THREAD)")
WRITES = re.compile(r"\b(open|openat|openat2|creat)\(.*(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC)")
CHANGES = re.compile(r"\b(rename|unlink|mkdir|rmdir|chmod|fchmod|chown|link|symlink|truncate|utime)\w*\(")


def hostile(root: Path, module: str) -> Cache:
    """A cache signed by a stranger whose Manifest names a module of its own, with scripts in every likely place."""
    m = manifest_of()
    cache = publish(root, manifest=with_hash(m._replace(host=m.host._replace(backend=module))))
    cache.sign((cache.generation / "Manifest.json").read_bytes(), key=OTHER_KEY)
    script = f"open({str(root.parent / 'PWNED')!r}, 'w').close()\n"
    for folder in (cache.root, cache.generation):
        package = folder / "evil"
        package.mkdir()
        for name in ("__init__.py", "__main__.py", "x.py"):
            (package / name).write_text(script)
        for name in ("numpy.py", "onnxruntime.py", "sitecustomize.py", "dodo.py", "json.py", "cryptography.py"):
            (folder / name).write_text(script)
    (cache.root / "flight.toml").write_text('[signing]\npublic_key = "evil.pub.pem"\ncommand = ["./evil"]\n')
    return cache


def test_doctor_imports_nothing_that_a_manifest_names(tmp_path):
    modules = ("venv.__main__.x", "evil.__main__.x", "evil.x", "this", "antigravity", "os")
    roots = [str(hostile(tmp_path / module / "stick", module).root) for module in modules]
    code = (
        "import sys; from provisioning.cli import main; before = set(sys.modules)\n"
        "for root in sys.argv[2:]:\n"
        "    print(main(['doctor', root]), main(['doctor', root, '--public-key', sys.argv[1]]), file=sys.stderr)\n"
        "print([name for name in set(sys.modules) - before if name.split('.')[0] in"
        " ('venv', 'evil', 'this', 'antigravity')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, PEM, *roots], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines() == ["22 22"] * len(modules)
    assert not list(tmp_path.glob("*/PWNED"))


def test_even_a_signed_manifest_names_no_module_to_look_for(tmp_path, capsys):
    m = manifest_of()
    cache = publish(tmp_path / "cache", manifest=with_hash(m._replace(host=m.host._replace(backend="venv.__main__"))))
    assert main(["doctor", str(cache.root), "--public-key", PEM]) == 22
    assert "does not know" in capsys.readouterr().out
    assert "venv.__main__" not in sys.modules


def test_doctor_advises_nothing_that_an_unverified_manifest_says(tmp_path, capsys):
    m = manifest_of()
    m = m._replace(host=m.host._replace(runtime="9.9.9-evil"))
    cache = publish(tmp_path / "cache", manifest=with_hash(m))
    cache.sign((cache.generation / "Manifest.json").read_bytes(), key=OTHER_KEY)
    assert main(["doctor", str(cache.root), "--public-key", PEM, "--json"]) == 22
    said = capsys.readouterr().out
    assert "9.9.9" not in said
    assert {f["what"] for f in json.loads(said)["findings"]} == {"verdict: signature", "flight", "disk"}


@pytest.mark.usefixtures("unmeasured")
@needs_strace
@pytest.mark.parametrize("command", ["doctor", "status", "verify"])
def test_looking_at_a_hostile_cache_runs_writes_and_calls_nothing(tmp_path, command):
    """strace sees every call: no program is run, no file written, no socket opened, no Python file read from there."""
    cache = hostile(tmp_path / "stick", "venv.__main__.x")
    log = tmp_path / "strace.log"
    words = [command, str(cache.root), *(["--public-key", PEM] if command != "status" else [])]
    words += ["--ground"] if command == "verify" else []
    program = [sys.executable, "-B", str(FLIGHTCACHE), *words]
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=process,network,file,desc", "-o", str(log), *program],
        cwd=tmp_path / "stick",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if command == "status" else 22), done.stderr
    calls = [line for line in log.read_text().splitlines() if " = -1 ENOENT" not in line]
    assert len(calls) > 100  # it did trace
    assert not [line for line in calls[1:] if FORBIDDEN.search(line)]
    assert not [line for line in calls if WRITES.search(line) and "/dev/null" not in line]
    assert not [line for line in calls if CHANGES.search(line)]
    assert not [line for line in calls if "/stick" in line and ".py" in line and "open" in line]
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.usefixtures("unmeasured")
@needs_strace
@pytest.mark.skipif("info" not in COMMANDS, reason="this flightcache has no `info`")
@pytest.mark.parametrize("trusted", [True, False])
def test_looking_at_a_hostile_bundle_runs_writes_and_calls_nothing(tmp_path, trusted):
    keys = delivery.make_keys(tmp_path)
    cache = delivery.publish_cache(tmp_path / "cache", keys)
    (tmp_path / "stick").mkdir()
    with verify(cache, delivery.trust_anything_by(keys.public)) as verdict:
        pack(verdict, documents_of(verdict), tmp_path / "stick" / "b.tar.zst")
    for name in ("numpy.py", "json.py", "zstd.py", "sitecustomize.py"):
        (tmp_path / "stick" / name).write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w').close()\n")
    log = tmp_path / "strace.log"
    program = [sys.executable, "-B", str(FLIGHTCACHE), "info", "b.tar.zst", *(["--public-key", PEM] if trusted else [])]
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=process,network,file,desc", "-o", str(log), *program],
        cwd=tmp_path / "stick",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode != 0 or not trusted
    calls = [line for line in log.read_text().splitlines() if " = -1 ENOENT" not in line]
    assert not [line for line in calls[1:] if FORBIDDEN.search(line)]
    assert not [line for line in calls if WRITES.search(line) and "/dev/null" not in line]
    assert not [line for line in calls if CHANGES.search(line)]
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "command", [["bundle"], ["locate", "photo.jpg", "--cache"], ["evaluate", "queries.csv"], ["sync", "drive.d"]]
)
def test_the_flight_toml_of_a_cache_does_not_say_whom_to_trust(tmp_path, monkeypatch, capsys, command):
    """A whole cache signed by a stranger, with the stranger's key in its flight.toml: refused from every directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY", raising=False)
    cache = building.new_cache(tmp_path, side=1)
    (tmp_path / "queries.csv").write_text("file,lat,lon\nphoto.jpg,1,2\n")
    shutil.copy(next((tmp_path / "tiles").rglob("*.jpg")), tmp_path / "photo.jpg")
    shutil.copytree(publish(tmp_path / "other").root, cache, dirs_exist_ok=True, symlinks=True)
    words = [str(tmp_path / word) if "." in word else word for word in command]
    for here, named in ((tmp_path, cache), (cache, Path()), (cache / "generations", cache)):
        monkeypatch.chdir(here)
        assert main([*words, str(named)]) == SigningError.exit_code
        assert "--public-key" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tar.zst"))


def test_a_link_to_the_cache_is_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cache = building.new_cache(tmp_path, side=1)
    (tmp_path / "link").symlink_to(cache)
    monkeypatch.chdir(tmp_path / "link")
    with pytest.raises(SigningError):
        user_keys(None, tmp_path / "link")


def test_trying_settings_loads_no_library_that_flight_toml_names(tmp_path):
    cache = building.new_cache(tmp_path, side=1)
    (tmp_path / "mine.so").write_bytes(b"\x7fELF")
    (cache / "evil.so").write_bytes(b"\x7fELF")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    lines = f'name = "more"\nrole = "auxiliary"\nonnx = "{model}"\ncustom_ops = "evil.so"\n'
    building.edit(cache, "[signing]", f"[[backbone]]\n{lines}\n[signing]")
    flight = read_flight(cache)
    assert flight.backbone[-1].custom_ops == cache / "evil.so"
    with pytest.raises(Error, match="not signed") as caught:
        without_foreign_code(flight, None)
    assert "--custom-ops" in str(caught.value)
    mine = without_foreign_code(flight, tmp_path / "mine.so")
    assert mine.backbone[-1].custom_ops == tmp_path / "mine.so"


def test_trying_settings_runs_no_engine_that_is_not_signed(built_cache, capsys):
    """An engine put into `.build` with a record to match is not loaded: the published Manifest does not list it."""
    from provisioning.build.request import read_request

    cache, tmp_path = built_cache, built_cache.parent
    engine = read_request(cache).descriptor_network.engine.path
    other = engine.read_bytes() + b"\x72\x04evil"  # a valid model still: protobuf joins a second domain
    engine.unlink()
    engine.write_bytes(other)
    record = read_request(cache).descriptor_network.engine.record
    text = json.loads(record.read_text())
    text |= {"sha256": hashlib.sha256(other).hexdigest(), "bytes": len(other)}
    record.write_text(json.dumps(text))
    (tmp_path / "queries.csv").write_text(f"file,lat,lon\n{next((tmp_path / 'tiles').rglob('*.jpg'))},46.9,8.6\n")
    words = ["--public-key", str(tmp_path / "key.pub.pem"), "--within", "10", "--own", "--try", "transform=center"]
    assert main(["evaluate", str(tmp_path / "queries.csv"), str(cache), *words]) == Error.exit_code
    assert "none of those that the verified Manifest lists" in capsys.readouterr().err


def test_sources_that_an_unsigned_flight_toml_names_are_read_only_where_the_user_calls_it_theirs(
    built_cache, monkeypatch, capsys
):
    """A good generation in a directory whose flight.toml names a store of somebody else's: nothing there is opened."""
    cache, tmp_path = built_cache, built_cache.parent
    photo = str(next((tmp_path / "tiles").rglob("*.jpg")))
    (tmp_path / "queries.csv").write_text(f"file,lat,lon\n{photo},46.9,8.6\n")
    key = ["--public-key", str(tmp_path / "key.pub.pem")]
    opened = []
    for name in ("provisioning.quality.locate.imagery.read_flight", "provisioning.cli.measure.variants.read_flight"):
        monkeypatch.setattr(name, lambda *_args, **_keys: opened.append(1) or pytest.fail("flight.toml was read"))
    monkeypatch.chdir(cache)
    assert main(["locate", photo, "--cache", ".", *key, "--contact-sheet", str(tmp_path / "s.png")]) == 0
    assert "--own" in capsys.readouterr().err
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size[0] > 100
    assert main(["evaluate", str(tmp_path / "queries.csv"), ".", *key, "--try", "transform=center"]) == Error.exit_code
    assert "--own" in capsys.readouterr().err
    assert not opened


@pytest.mark.parametrize(
    "text",
    [
        '{"outcome": "\\u001b[2JSUCCESS"}',
        '{"outcome": "SUCCESS", "elapsed_s": "long"}',
        '{"outcome": "SUCCESS", "elapsed_s": 1e999}',
        '{"outcome": "SUCCESS", "elapsed_s": ' + "9" * 400 + "}",
        '{"outcome": "FAILURE", "failure_reason": {"a": 1}}',
        "[" * 100_000,
        '"' + "x" * (2 << 20) + '"',
    ],
)
def test_status_believes_no_report_of_another_shape(tmp_path, capsys, text):
    cache = building.new_cache(tmp_path, side=1)
    (cache / ".build").mkdir()
    (cache / ".build/build-report.json").write_text(text)
    assert main(["status", str(cache)]) == 0
    assert read_status(cache).last_build is None
    assert "\x1b" not in capsys.readouterr().out


def test_status_shows_no_control_characters(tmp_path, capsys):
    cache = building.new_cache(tmp_path, side=1)
    (cache / ".build").mkdir()
    report = {"outcome": "FAILURE", "failure_reason": "\x1b[2J\rSUCCESS"}
    (cache / ".build/build-report.json").write_text(json.dumps(report))
    assert main(["status", str(cache)]) == 0
    said = capsys.readouterr().out
    assert "\\x1b[2J" in said
    assert "\x1b" not in said
    assert "\r" not in said


@pytest.mark.parametrize("name", [".build/build-report.json", "current/Manifest.json"])
def test_status_and_doctor_wait_for_no_pipe(tmp_path, name):
    cache = publish(tmp_path / "cache")
    (cache.root / ".build").mkdir()
    (cache.root / name).unlink(missing_ok=True)
    os.mkfifo(cache.root / name)
    for command in ("status", "doctor"):
        program = [sys.executable, "-m", "provisioning.cli", command, str(cache.root)]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr
