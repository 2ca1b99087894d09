"""Nothing leaves this machine: no socket but local ones, no name looked up, nothing written beside what was asked for.

Each command runs under strace in a network namespace of its own, where there is nobody to reach.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from provisioning.cli import COMMANDS
from tests import building, crashing
from tests.shell import quote

BIN = Path(sys.executable).parent
SOCKET = re.compile(r"\bsocket\((?!AF_UNIX)")
WRITTEN = re.compile(r'\b(?:open|openat|creat|mkdir|mkdirat)\((?:[\w<>/]+, )?"(?P<path>[^"]+)".*')
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")


def _namespaces_work() -> bool:
    if shutil.which("strace") is None or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


@cache
def _filtered() -> list[str]:
    """Stop a process at the calls that are traced only, not at every one: a third of the time; strace 5.3 and later."""
    done = subprocess.run(["strace", "-f", "--seccomp-bpf", "true"], capture_output=True, check=False)
    return ["--seccomp-bpf"] if done.returncode == 0 else []


pytestmark = pytest.mark.skipif(not _namespaces_work(), reason="needs strace and unshare -rn")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A cache directory that was built offline, and what runs a command so and checks every call it made."""
    root = tmp_path_factory.mktemp("offline")
    home, scratch, keys = root / "home", root / "tmp", root / "keys"
    for folder in (home, scratch, keys):
        folder.mkdir()
    home.chmod(0o755)
    cache = crashing.new_world(root)
    mine = (
        str(cache),
        str(scratch),
        str(keys),
        str(root / "out"),
        "/dev/",
        "/proc/",
    )  # of `root` only what is asked for

    def run(*words: str, code: int = 0) -> str:
        log = root / "strace.log"
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "TMPDIR": str(scratch)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CONFIG_HOME": str(keys)}
        trace = "trace=network,open,openat,creat,mkdir,mkdirat"
        command = [
            "unshare",
            "-rn",
            "strace",
            "-f",
            *_filtered(),
            "-qq",
            "-e",
            trace,
            "-e",
            "signal=none",
            "-o",
            str(log),
            *words,
        ]
        done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        calls = log.read_text().splitlines()
        assert len(calls) > 50
        assert not [line for line in calls if SOCKET.search(line)]
        assert not [line for line in calls if any(f'"{name}"' in line for name in NAMES)]
        assert not [line for line in calls if _writes(line) and not _path(line).startswith(mine)]
        assert not list(home.iterdir())
        return done.stdout

    def _writes(line: str) -> bool:
        made = "mkdir" in line or "O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line
        return made and " = -1 " not in line and WRITTEN.search(line) is not None

    def _path(line: str) -> str:
        found = WRITTEN.search(line)
        assert found is not None
        return os.path.normpath(cache / found["path"])

    run(str(BIN / "doit"))
    photo = next((root / "tiles").rglob("*.jpg"))
    (root / "q.csv").write_text(f"file,lat,lon\n{photo},46.9,8.6\n")
    return cache, run


def test_a_build_and_a_no_op_stay_on_this_machine(alone):
    cache, run = alone
    assert (cache / "current/Manifest.json").is_file()
    run(str(BIN / "doit"))


ALONE = [
        "plan", "why corpus", "status", "tiles", "host", "completion bash", "key fingerprint ../key.pub.pem",
        "verify . --public-key ../key.pub.pem --this-host --ground", "doctor . --public-key ../key.pub.pem",
        "locate PHOTO --public-key ../key.pub.pem", "bench-engine . --seconds 0.01 --batch 1",
        "bundle . -o ../out.tar --public-key ../key.pub.pem", "keygen ../keys/new.pem",
        "evaluate ../q.csv . --own --try rotations=2 --public-key ../key.pub.pem",
]  # fmt: skip


ONE_PROCESS = """
import shlex, sys
from provisioning.cli import main
for words in sys.argv[1:]:
    print(">", main(shlex.split(words)), words)
"""


def in_one_process(run: Run, words: list[str], codes: dict[str, int]) -> None:
    """Run the commands one after another in one process, and check what each ended with: a start is half of a command."""
    printed = run(sys.executable, "-c", ONE_PROCESS, *words)
    expected = [f"> {codes.get(each.split()[0], 0)} {each}" for each in words]
    assert [line for line in printed.splitlines() if line.startswith("> ")] == expected


def test_commands_stay_on_this_machine(alone):
    cache, run = alone
    photo = str(next((cache.parent / "tiles").rglob("*.jpg")))
    in_one_process(run, [words.replace("PHOTO", quote(photo)) for words in ALONE], {})


@pytest.mark.slow
@pytest.mark.parametrize("words", ALONE)
def test_a_command_stays_on_this_machine(alone, words):
    cache, run = alone
    photo = str(next((cache.parent / "tiles").rglob("*.jpg")))
    for made in (cache.parent / "out.tar", *cache.parent.glob("keys/new*")):
        made.unlink(missing_ok=True)
    run(str(BIN / "flightcache"), *shlex.split(words.replace("PHOTO", quote(photo))))


IN_ORDER = [
    "keygen ../keys/root.pem",
    "keygen ../keys/second.pem",
    "trust init ../out/trust.json --root ../keys/root.pub.pem --signing ../key.pub.pem --not-after never",
    "trust sign ../out/trust.json --key ../keys/root.pem",
    "trust show ../out/trust.json",
    "trust install ../out/trust.json ../out/vehicle",
    "cosign . --key ../keys/second.pem --public-key ../key.pub.pem",
    "bundle . -o ../out/whole.tar --trust ../out/trust.json",
    "info ../out/whole.tar --trust ../out/trust.json",
    "install ../out/whole.tar ../out/vehicle --any-flight --any-aircraft --any-host",
    "receipt ../out/vehicle",
    "fallback ../out/vehicle",
    "init ../out/new --tiles ../tiles --key ../key.pem",
    "clean --old",
    "tiles --scan",
    "doctor --self",
    "sync ../out/vehicle . --trust ../out/trust.json",
    "rollback",
]
CODES = {"fallback": 26}
"""There is nothing to fall back from."""


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_commands_that_write_stay_on_this_machine_too(alone, together):
    cache, run = alone
    for folder in ("out", "keys"):
        shutil.rmtree(cache.parent / folder, ignore_errors=True)
        (cache.parent / folder).mkdir()
    flight = next(line for line in (cache / "flight.toml").read_text().splitlines() if line.startswith("id = "))
    building.edit(cache, flight, f'{flight[:-1]}-2"')
    run(str(BIN / "doit"))
    if together:
        in_one_process(run, IN_ORDER, CODES)
    for words in IN_ORDER if not together else []:
        command, *_ = words.split()
        run(str(BIN / "flightcache"), *words.split(), code=CODES.get(command, 0))
    traced = {*(words.split()[0] for words in (*IN_ORDER, *ALONE))}
    assert set(COMMANDS) - traced == {"demo", "export", "fleet"}  # the first and the last in the slow test; PyTorch


@pytest.mark.slow
def test_demo_and_fleet_stay_on_this_machine(alone):
    cache, run = alone
    (cache.parent / "out").mkdir(exist_ok=True)
    run(str(BIN / "flightcache"), "demo", "../out/demo")
    vehicle = cache.parent / "out" / "reach"
    vehicle.write_text(f'#!/bin/sh\nPATH={BIN}:$PATH exec sh -c "$*"\n')
    vehicle.chmod(0o755)
    (cache / "FLEET.toml").write_text(
        f'[[vehicle]]\nname = "v"\nflight = "F-3"\naircraft = "A"\ncommand = "{vehicle}"\n'
        f'target = "{cache.parent}/out/on-vehicle"\nremote_key = "{cache.parent}/key.pub.pem"\n'
    )
    run(str(BIN / "flightcache"), "fleet", "FLEET.toml")


def test_what_the_user_set_does_not_turn_telemetry_on():
    """Whatever the environment says, a session of ours runs in a process that was configured before it loaded the library."""
    code = (
        "import os, sys, provisioning.network.session as s;"
        "assert 'onnxruntime' not in sys.modules; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == "1\n"


@pytest.mark.slow
def test_a_long_session_stays_on_this_machine(alone):
    """ONNX Runtime sends some 20 s after it starts; a benchmark keeps a session open for longer than that."""
    _, run = alone
    run(str(BIN / "flightcache"), *["bench-engine", ".", "--seconds", "30", "--batch", "1"])
