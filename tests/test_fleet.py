"""A fleet: one request and one scan, each vehicle's own generation, its engine compiled where it will fly."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, EngineError
from provisioning.cli import main
from provisioning.cli.deliver import fleet as fleet_command
from provisioning.config.parse import read_flight
from provisioning.delivery.fleet import Vehicle, derive, read_fleet
from provisioning.engines.vehicle.remote import GREETING, serve
from provisioning.flight import manifest
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from tests import building
from tests.crashing import new_world as new_cache
from tests.delivery import trust_anything_by
from tests.shell import quote

REPOSITORY = Path(__file__).parents[1]
PROGRAM = f"{shlex.quote(sys.executable)} -m provisioning.cli"


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture
def builds_here(monkeypatch):
    """Have `fleet` build in this process; `lost_and_good` starts doit as users' fleets do."""

    def build(directory: Path) -> tuple[int, str]:
        built = building.build(directory)
        return int(built.failure is not None), ""

    monkeypatch.setattr(fleet_command, "_doit", build)


def wrapper(folder: Path) -> Path:
    """A stand-in for ssh: notes every command line it is given, then runs it in a directory of its own."""
    script = folder / "reach.sh"
    (folder / "vehicle").mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\necho "$1" >> "{folder}/asked"\ncd "{folder}/vehicle" && exec sh -c "$1"\n')
    script.chmod(0o755)
    return script


def write_fleet(file: Path, **vehicles: dict[str, str]) -> Path:
    tables = [
        "\n".join(
            ["[[vehicle]]", f'name = "{name}"', *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        )
        for name, table in vehicles.items()
    ]
    file.write_text("\n\n".join(tables) + "\n")
    return file


def counter(target: Path, key: Path, **expected: str) -> int:
    with verify(target, trust_anything_by(load_public_key(key))._replace(**expected)) as verdict:
        return verdict.require().build.counter


def test_a_fleet_is_built_from_one_scan_with_engines_run_on_the_vehicles_and_only_once(tmp_path, capsys, builds_here):
    cache, key = new_cache(tmp_path), tmp_path / "key.pub.pem"
    there = {"command": quote(wrapper(tmp_path)), "program": PROGRAM, "remote_key": str(key)}
    fleet = write_fleet(
        cache / "FLEET.toml",
        one={**there, "aircraft": "AC-1", "target": str(tmp_path / "flash-1")},
        two={**there, "aircraft": "AC-2", "flight": "F-9", "target": str(tmp_path / "flash-2")},
        here={"aircraft": "AC-3", "target": str(tmp_path / "flash-3")},
    )
    assert main(["fleet", str(fleet)]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    assert "1 engines compiled, 4 descriptors computed" in lines[0]
    assert "1 engines compiled, 0 descriptors computed" in lines[1]
    assert "0 descriptors computed" in lines[2]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sum("fleet --compile" in line for line in asked) == 2
    assert sum("install --stream" in line for line in asked) == 2
    assert counter(tmp_path / "flash-1", key, aircraft_id="AC-1", flight_id="F-1") == 1
    assert counter(tmp_path / "flash-2", key, aircraft_id="AC-2", flight_id="F-9") == 1
    assert counter(tmp_path / "flash-3", key, aircraft_id="AC-3") == 1
    with verify(tmp_path / "flash-1", trust_anything_by(load_public_key(key))._replace(aircraft_id="AC-2")) as verdict:
        assert not verdict.passed
    gate = manifest.parse((cache / "vehicles/one/current/Manifest.json").read_bytes()).gates["fidelity.target"]
    assert (gate.verdict, gate.threshold) == ("pass", "0.999")
    assert "run on its target" in gate.detail
    (tmp_path / "asked").unlink()
    assert main(["fleet", str(fleet), "--only", "one"]) == 0
    assert "IDEMPOTENT_NO_OP, 0 engines compiled, 0 descriptors computed" in capsys.readouterr().out
    assert "--compile" not in (tmp_path / "asked").read_text()


def test_a_vehicle_that_had_the_common_cache_takes_its_own(tmp_path, capsys, builds_here):
    cache, target = new_cache(tmp_path), tmp_path / "flash-1"
    key = tmp_path / "key.pub.pem"
    for flight in ("F-1", "F-2"):
        building.edit(cache, 'id = "F-1"', f'id = "{flight}"')
        building.build(cache)
    trusted = ["--public-key", str(key), "--any-flight", "--any-aircraft", "--any-host"]
    assert main(["bundle", str(cache), "-o", str(tmp_path / "c.tar"), "--public-key", str(key)]) == 0
    assert main(["install", str(tmp_path / "c.tar"), str(target), *trusted, "--no-self-test"]) == 0  # its floor is 2
    fleet = write_fleet(cache / "FLEET.toml", one={"aircraft": "AC-1", "target": str(target)})
    for _ in range(2):  # the second run has nothing to send
        assert main(["fleet", str(fleet)]) == 0, capsys.readouterr().err
        assert counter(target, key, aircraft_id="AC-1") == 3


@pytest.fixture(scope="module")
def lost_and_good(tmp_path_factory):
    """Build three of four vehicles, two of which do not answer as they should: the folder, the exit code, both streams."""
    folder = tmp_path_factory.mktemp("lost")
    cache = new_cache(folder)
    fleet = write_fleet(
        cache / "FLEET.toml",
        other={},
        lost={"command": "false"},
        odd={"command": "sh -c 'cat /dev/zero'"},
        good={"target": str(folder / "flash")},
    )
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fleet", str(fleet), *(f"--only={name}" for name in ("lost", "odd", "good"))])
    return folder, code, out.getvalue(), err.getvalue()


def test_a_vehicle_that_cannot_be_reached_does_not_stop_the_others(lost_and_good):
    folder, code, _, err = lost_and_good
    assert code == EngineError.exit_code
    assert "lost does not say what computer it is" in err
    assert counter(folder / "flash", folder / "key.pub.pem") == 1


def test_a_probe_without_end_does_not_stop_later_vehicles(lost_and_good):
    _, _, out, err = lost_and_good
    assert "odd does not say what computer it is" in err
    assert "good: SUCCESS" in out


def test_only_the_vehicles_named_are_built(lost_and_good):
    folder, _, out, _ = lost_and_good
    assert out.startswith("good: SUCCESS")
    assert not (folder / "cache/vehicles/other").exists()


def test_the_derived_request_is_the_common_one_with_another_identity(tmp_path):
    cache = new_cache(tmp_path)
    building.edit(cache, "# rotations = 1", "rotations = 2")
    with (cache / "flight.toml").open("a") as file:
        file.write("\n[sector.urban]\nmax_age_days = 30\n")
    file = write_fleet(cache / "FLEET.toml", one={"aircraft": "AC-1"})
    file.write_text(file.read_text(), encoding="utf-8-sig")  # as editors of Windows write it
    fleet = read_fleet(file)
    host = {"backend": "tensorrt", "runtime": "10.3.0.30", "arch": "sm87", "device": "Orin", "platform": "l4t36.4.3"}
    derived = read_flight(derive(fleet, fleet.vehicles[0], host=host, command=("ssh", "x y"), others={}))
    common = read_flight(cache)
    assert (derived.flight.aircraft, derived.flight.id) == ("AC-1", common.flight.id)
    assert (dict(derived.engine.host), derived.engine.command) == (host, ("ssh", "x y"))
    assert derived.descriptors.store == cache / ".build/descriptors"
    for part in ("area", "tiles", "backbone", "index", "calibration", "gates", "sector", "signing", "publish"):
        assert getattr(derived, part) == getattr(common, part), part


@pytest.mark.parametrize(
    ("text", "issue"),
    [
        ("", "name"),
        ("[[vehicle]]\nname = 'a/b'", "letters"),
        ("[[vehicle]]\nname = '../x'", "letters"),
        ("[[vehicle]]\nname = 'a'\n[[vehicle]]\nname = 'a'", "twice"),
        ("[[vehicle]]\nname = 'a'\ncolour = 'red'", "colour: unknown key"),
        ("[[vehicle]]\nname = 'a'\nflight = 7", "text expected"),
        ("speed = 1\n[[vehicle]]\nname = 'a'", "speed: unknown key"),
    ],
)
def test_mistakes_in_a_fleet_are_named(tmp_path, text, issue):
    (tmp_path / "FLEET.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_fleet(tmp_path / "FLEET.toml")
    assert issue in str(caught.value)


def test_words_for_a_vehicle_are_quoted_once():
    vehicle = Vehicle(name="a", command="ssh -p 22 h", program="env A='x y' flightcache")
    assert fleet_command.reach(vehicle, "host", "--json")[:4] == ("ssh", "-p", "22", "h")
    assert shlex.split(fleet_command.reach(vehicle, "host")[-1]) == ["env", "A=x y", "flightcache", "host"]


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n", GREETING.encode() + b"{}\n", GREETING.encode() + b"[" * 9999]
)
def test_a_vehicle_refuses_nonsense(said):
    answers = io.BytesIO()
    with pytest.raises(EngineError):
        serve(io.BytesIO(said), answers)
    assert "error" in json.loads(answers.getvalue())


def request_for(host: dict[str, str], onnx: bytes = b"onnx", sha256: str | None = None) -> bytes:
    import hashlib

    spec = {
        "model": "m", "onnx": "/etc/passwd", "host": host, "precision": "fp32", "profile": {"min": 1, "opt": 1, "max": 1},
        "workspace_mb": 1, "timeout_s": 5, "state": "/", "timing_cache": True, "custom_ops": None,
    }  # fmt: skip
    digest = sha256 or hashlib.sha256(onnx).hexdigest()
    head = {"spec": spec, "onnx_bytes": len(onnx), "onnx_sha256": digest, "tiles": [0, 1, 1, 3]}
    return (GREETING + json.dumps(head) + "\n").encode() + onnx


def test_a_vehicle_refuses_to_compile_for_another_host():
    host = {"backend": "onnxruntime", "runtime": "0.1", "arch": "x86_64", "device": "another", "platform": "linux"}
    with pytest.raises(EngineError, match="another host"):
        serve(io.BytesIO(request_for(host)), io.BytesIO())


def test_a_vehicle_refuses_a_network_that_arrived_damaged():
    host = {"backend": "onnxruntime", "runtime": "0.1", "arch": "x86_64", "device": "another", "platform": "linux"}
    with pytest.raises(EngineError, match="damaged"):
        serve(io.BytesIO(request_for(host, sha256="0" * 64)), io.BytesIO())


def test_an_engine_that_arrives_changed_is_refused(tmp_path, capsys, builds_here):
    cache = building.new_cache(tmp_path, side=2)
    reach = wrapper(tmp_path)
    reach.write_text(
        '#!/bin/sh\ncase "$1" in *--compile*) sh -c "$1" | sed "s/Flatten/Flattem/" ;; *) exec sh -c "$1" ;; esac\n'
    )
    fleet = write_fleet(cache / "FLEET.toml", one={"command": quote(reach), "program": PROGRAM})
    assert main(["fleet", str(fleet)]) != 0
    assert "another engine arrived" in capsys.readouterr().err
    assert not os.path.lexists(cache / "vehicles/one/current")


def test_the_serving_end_needs_no_cache_and_writes_nothing_where_it_runs(tmp_path):
    done = subprocess.run(
        [*shlex.split(PROGRAM), "fleet", "--compile"], input=b"nonsense", capture_output=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EngineError.exit_code
    assert list(tmp_path.iterdir()) == []
