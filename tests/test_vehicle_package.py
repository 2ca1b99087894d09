"""What an aircraft installs: the core with cryptography alone, the verifier as one file, a unit that stops the navigation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from provisioning.cli import COMMANDS
from tests.vehicles import World, new_world

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bare(folder: Path) -> dict[str, str]:
    """An environment in which Python finds this code and cryptography, and no other package."""
    import _cffi_backend
    import cryptography

    site = folder / "site"
    site.mkdir()
    for place in (Path(cryptography.__file__).parent, Path(_cffi_backend.__file__)):
        (site / place.name).symlink_to(place)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    return {**kept, "PYTHONPATH": f"{ROOT}:{site}"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = new_world(tmp_path, monkeypatch)
    made.begin()
    return made


@pytest.fixture
def small(tmp_path: Path):
    """Run a command as it runs where only the core is installed."""
    environment = bare(tmp_path)

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-m", "provisioning.cli", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=300
        )

    return run


def test_the_core_asks_for_cryptography_and_nothing_heavier() -> None:
    names = {re.split(r"[><=\[; ]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {"cryptography", "backports.zstd"}
    extras = PROJECT["optional-dependencies"]
    assert all("flightcache[build]" in wanted for name, wanted in extras.items() if name not in ("build", "docs"))
    assert {"onnxruntime", "doit", "numpy"} <= {re.split(r"[><=\[; ]", line)[0] for line in extras["build"]}


def test_a_vehicle_lives_on_the_core_alone(world: World, small) -> None:
    world.commission()
    done = small("install", world.bundle(1), world.target, "--no-aircraft")
    assert done.returncode == 0, done.stderr
    assert "self-test not run: numpy" in done.stdout
    verified = small("verify", world.target, "--any-flight", "--any-aircraft", "--this-host")
    assert verified.returncode == 22  # an engine for another processor
    assert "host: Manifest.json" in verified.stdout
    assert "not checked: flight, aircraft, host backend, host runtime" in verified.stdout


@pytest.mark.slow
def test_every_command_of_a_vehicle_runs_on_the_core_alone(world: World, small) -> None:
    world.commission()
    bundle = world.bundle(1)
    world.install(bundle)
    trust = ("--trust", world.trust)
    assert small("info", bundle, *trust).returncode == 0
    assert small("receipt", world.target).returncode == 0
    assert small("verify", world.target, "--ground").returncode == 0
    assert small("fallback", world.target).returncode == 26
    assert small("doctor", "--self").returncode in {0, 22}
    assert "doctor" not in small("doctor", world.target, *trust).stderr


@pytest.mark.parametrize("command", ["plan", "locate"])
def test_what_needs_the_builder_says_what_to_install(world: World, small, tmp_path: Path, command: str) -> None:
    done = small(command, *(["photo.jpg"] if command == "locate" else []))
    assert done.returncode not in {0, 1}
    assert "Traceback" not in done.stderr
    if "nothing" not in done.stderr and "flight.toml" not in done.stderr:
        assert "pip install 'flightcache[build]'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_command_ends_in_a_traceback_without_the_builder(small, command: str) -> None:
    assert "Traceback" not in small(command).stderr


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pyz") / "flightcache.pyz"
    subprocess.run([sys.executable, ROOT / ".ci/pyz", output], check=True, capture_output=True)
    return output


def test_the_verifier_is_one_file_of_the_same_bytes_each_time(pyz: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / ".ci/pyz", tmp_path / "again.pyz"], check=True, capture_output=True)
    assert (tmp_path / "again.pyz").read_bytes() == pyz.read_bytes()
    said = subprocess.run([sys.executable, pyz, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert said.stdout.split() == ["flightcache", PROJECT["version"]]


@pytest.mark.slow
def test_the_one_file_verifies_and_installs(pyz: Path, world: World) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, pyz, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=world.root, check=False)

    assert run("--version").stdout.split() == ["flightcache", PROJECT["version"]]
    assert run("trust", "install", world.trust, world.target).returncode == 0
    done = run("install", world.bundle(1), world.target, "--no-self-test")
    assert done.returncode == 0, done.stderr
    done = run("verify", world.target, "--any-flight", "--any-aircraft", "--any-host")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, unpacked."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here (dpkg)")
    folder = tmp_path_factory.mktemp("deb")
    for name in ("one.deb", "two.deb"):
        subprocess.run([sys.executable, ROOT / ".ci/deb", folder / name], check=True, capture_output=True)
    assert (folder / "one.deb").read_bytes() == (folder / "two.deb").read_bytes()
    subprocess.run(["dpkg-deb", "-R", folder / "one.deb", folder / "root"], check=True)
    return folder / "root"


@pytest.mark.slow
def test_the_package_holds_what_the_one_file_holds_and_runs_nothing_when_installed(package: Path, pyz: Path) -> None:
    control = dict(
        line.split(": ", 1) for line in (package / "DEBIAN/control").read_text().splitlines() if ": " in line
    )
    assert (control["Version"], control["Architecture"]) == (PROJECT["version"], "all")
    assert control["Depends"] == "python3 (>= 3.10), python3-cryptography"
    assert {path.name for path in (package / "DEBIAN").iterdir()} == {"control", "md5sums"}
    library = package / "usr/lib/python3/dist-packages"
    with zipfile.ZipFile(pyz) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if "/" in name}
    assert {str(path.relative_to(library)): path.read_bytes() for path in library.rglob("*") if path.is_file()} == held
    summed = subprocess.run(["md5sum", "-c", "--quiet", "DEBIAN/md5sums"], cwd=package, check=False)
    assert summed.returncode == 0
    assert (package / "usr/bin/flightcache").read_text().startswith("#!/usr/bin/python3 -IB\n")


@pytest.mark.slow
def test_the_package_verifies_and_its_script_decides(package: Path, world: World, tmp_path: Path) -> None:
    world.commission()
    world.install(world.bundle(1))
    environment = bare(tmp_path)
    site = environment["PYTHONPATH"].partition(":")[2]
    environment["PYTHONPATH"] = f"{package / 'usr/lib/python3/dist-packages'}:{site}"
    assert str(ROOT) not in environment["PYTHONPATH"].split(":")
    script = package / "usr/lib/flightcache/verify-or-fall-back"
    assert os.access(script, os.X_OK)
    assert start(world, tmp_path, environment, script) == 0
    (world.target / "current/corpus.index").parent.chmod(0o755)
    (world.target / "current/corpus.index").unlink()
    assert start(world, tmp_path, environment, script) == 22


# --- the unit ---------------------------------------------------------------------------------------------------------


VEHICLE = ROOT / "examples/vehicle"


def start(
    world: World, tmp_path: Path, environment: dict[str, str], script: Path = VEHICLE / "verify-or-fall-back"
) -> int:
    """What the unit's script says to systemd."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin/flightcache"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -m provisioning.cli "$@"\n')
    program.chmod(0o755)
    environment = {
        **environment,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FLIGHTCACHE_EXPECT": "--any-flight --any-aircraft --any-host",
    }
    return subprocess.run([script, world.target], env=environment, check=False, capture_output=True).returncode


@pytest.mark.slow
def test_the_unit_passes_falls_back_and_refuses(world: World, tmp_path: Path) -> None:
    environment = bare(tmp_path)
    world.commission()
    for counter in (1, 2):
        world.install(world.bundle(counter))
    assert start(world, tmp_path, environment) == 0
    for counter, code, current in ((2, 0, "000001"), (1, 22, "000001")):
        generation = world.target / f"generations/{counter:06}"
        generation.chmod(0o755)
        (generation / "corpus.index").unlink()
        assert start(world, tmp_path, environment) == code
        assert world.current() == current


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "flightcache-verify.service"
    text = (ROOT / "examples/vehicle/flightcache-verify.service").read_text()
    unit.write_text(text.replace("/usr/lib/flightcache/verify-or-fall-back", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
