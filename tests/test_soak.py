"""Rounds of random edits, faults and commands side by side, each compared with a clean build from scratch.

A round depends on its seed and on what the rounds before left on disk, so a long soak that was killed goes on where it
was: with $SOAK_DIR each shard keeps its world there, and `round`, the number of the next.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from provisioning import cli
from provisioning.flight import publish
from tests import building, crashing, faults

SIDE = 3
FAULTED_BUILDS = 2
ERRORS = ("EIO", "ENOSPC", "EACCES", "EMFILE", "EROFS", "ESTALE", "EDQUOT")
COMMANDS = {
    "plan": ["plan", "{cache}"],
    "status": ["status", "{cache}"],
    "verify": ["verify", "{cache}", "--public-key", "{home}/key.pub.pem", "--any-flight", "--any-aircraft", "--any-host",
               "--any-counter", "--no-clock"],
    "sync": ["sync", "{home}/drive", "{cache}", "--public-key", "{home}/key.pub.pem"],
    "bundle": ["bundle", "{cache}", "-o", "{home}/out.tar.zst", "--public-key", "{home}/key.pub.pem"],
    "rollback": ["rollback", "{cache}"],
}  # fmt: skip
SURE = frozenset({"IDEMPOTENT_NO_OP", "SUCCESS"})


class Soaked(NamedTuple):
    """What a soak did: how often each edit, fault, command (with its exit code) and end of a build came."""

    rounds: int
    edits: Counter[str]
    faults: Counter[str]
    commands: Counter[str]
    ended: Counter[str]


class World:
    """A cache directory, its tiles, and the ways in which a user changes them."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.home, self.tiles, self.rng = home, home / "tiles", rng
        self.damaged = (home / "round").exists()  # what is published, by an edit: until a build ends well
        self.cache = home / "cache" if (home / "cache").exists() else crashing.new_world(home, side=SIDE)

    def edit(self) -> str:
        """Change one thing at random and say what."""
        change = self.rng.choice(
            [self.add, self.add, self.remove, self.replace, self.replace, self.touch, self.flight, self.index,
             self.keep, self.damage_current, self.lose_sidecar, self.lose_database, self.calibrate, self.rot, self.rot,
             self.clock, self.break_tile, self.lose_calibration]
        )  # fmt: skip
        change()
        return change.__name__

    def _place(self) -> Path:
        x, y = building.WEST + self.rng.randrange(SIDE), building.NORTH + self.rng.randrange(SIDE)
        return self.tiles / str(building.ZOOM) / str(x) / f"{y}.jpg"

    def _put(self, path: Path) -> None:
        column, row = int(path.parent.name) - building.WEST, int(path.stem) - building.NORTH
        crashing.put_tile(self.tiles, column, row, seed=self.rng.randrange(10**6))

    def add(self) -> None:
        self._put(self._place())

    def replace(self) -> None:
        present = sorted(self.tiles.rglob("*.jpg"))
        self._put(self.rng.choice(present))

    def remove(self) -> None:
        present = sorted(self.tiles.rglob("*.jpg"))
        if len(present) > 2:
            self.rng.choice(present).unlink()

    def touch(self) -> None:
        path = self.rng.choice(sorted(self.tiles.rglob("*.jpg")))
        os.utime(path, ns=(10**18, self.rng.randrange(10**18)))

    def flight(self) -> None:
        self._set("id = ", f'id = "F-{self.rng.randrange(1000)}"')

    def index(self) -> None:
        self._set("kind = ", f'kind = "{self.rng.choice(["flat", "sqfp16", "sq8"])}"', section="[index]")

    def keep(self) -> None:
        self._set("keep_generations = ", f"keep_generations = {self.rng.randrange(1, 4)}")

    def calibrate(self) -> None:
        (self.cache.parent / "camera.yaml").write_text(f"focal_px: {self.rng.random()}\n")

    def damage_current(self) -> None:
        current = publish.current_generation(self.cache)
        if current is not None:
            path = self.rng.choice([current / "corpus.index", current / "Manifest.json.sig", current / "report.html"])
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[::-1])

    def lose_sidecar(self) -> None:
        current = publish.current_generation(self.cache)
        if current is not None:
            current.chmod(0o755)
            (current / "corpus.index.sha256").unlink(missing_ok=True)

    def lose_database(self) -> None:
        (self.cache / ".build" / "doit.sqlite").unlink(missing_ok=True)

    def rot(self) -> None:
        """Flip one bit of a file of `.build` or of what is published; size and time stay."""
        found = [
            path for path in self.cache.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size
        ]
        path = self.rng.choice(sorted(path for path in found if {".build", "generations"} & set(path.parts)) or [None])
        if path is not None and path.name != ".c10.lock":
            status, data = path.stat(), bytearray(path.read_bytes())
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            path.chmod(0o644)
            with open(path, "r+b") as file:
                file.write(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            path.chmod(status.st_mode)

    def clock(self) -> None:
        """Let files be of the past or of the future, as a wrong clock leaves them."""
        when = self.rng.choice([0, 10**18, 2**31 * 10**9 + 1, 4 * 10**18])
        for path in self.rng.choices(sorted(path for path in self.home.rglob("*") if path.is_file()), k=5):
            os.utime(path, ns=(when, when))

    def break_tile(self) -> None:
        self.rng.choice(sorted(self.tiles.rglob("*.jpg"))).write_bytes(b"\xff\xd8\xff" + bytes(100))

    def lose_calibration(self) -> None:
        (self.home / "camera.yaml").unlink(missing_ok=True)

    def heal(self) -> None:
        """Let no tile be broken and no file be missing."""
        for path in sorted(self.tiles.rglob("*.jpg")):
            if path.stat().st_size < 200:
                self._put(path)
        if not (self.home / "camera.yaml").exists():
            self.calibrate()

    def _set(self, key: str, line: str, *, section: str = "") -> None:
        file = self.cache / "flight.toml"
        head, mark, tail = file.read_text().partition(section) if section else ("", "", file.read_text())
        lines = tail.splitlines(keepends=True)
        at = next(n for n, text in enumerate(lines) if text.lstrip("# ").startswith(key))
        lines[at] = line + "\n"
        file.write_text(head + mark + "".join(lines))


def soak(home: Path, rounds: int, seed: int) -> Soaked:
    """Edit, build twice with faults, build to the end, and compare with a clean build; `rounds` times in all."""
    done, world = Soaked(rounds, *(Counter[str]() for _ in range(4))), World(home, random.Random())
    state = home / "round"
    for number in range(int(state.read_text()) if state.exists() else 0, rounds):
        world.rng = random.Random(f"{seed} {number}")
        one_round(world, done, f"seed {seed}, round {number}")
        state.write_text(str(number + 1))
        with open(home / "figures.jsonl", "a", encoding="utf-8") as figures:
            figures.write(json.dumps([number, *done[1:]]) + "\n")
    return done


def one_round(world: World, done: Soaked, what: str) -> None:
    edits = [world.edit() for _ in range(world.rng.randrange(1, 4))]
    done.edits.update(edits)
    what = f"{what}, edits {edits}"
    world.damaged |= bool(set(edits) & {"damage_current", "lose_sidecar", "rot"})
    for _ in range(FAULTED_BUILDS):
        name, fault, action = a_fault(world)
        done.faults[name] += 1
        command, child = beside(world)
        ended = faults.run(action, world.cache, fault)
        done.ended[known_end(ended, f"{what}, {name} {fault}")] += 1
        done.commands[f"{command} {code_of(child, world, f'{what}, {name} {fault}, {command}')}"] += 1
        assert world.damaged or crashing.whole(world.cache) == [], (what, name, fault)
        assert crashing.whole(world.home / "drive") == [], (what, name, fault, command)
    if world.rng.random() < 0.5:
        world.heal()
    end = compared(world.cache, what)
    done.ended[end] += 1
    world.damaged &= end not in SURE
    world.heal()


def compared(cache: Path, what: str) -> str:
    """Build without a fault, reading all that is published, and compare with a clean build: the same cache or refusal."""
    built = faults.run(lambda: crashing.build(cache, "--deep"), cache)
    clean, fresh = clean_build(cache)
    assert built.value is not None, (what, built.shown)
    if fresh.outcome not in SURE:
        assert built.value.outcome == "FAILURE", (what, built.value, fresh)
        assert str(built.value.failure.what) == str(fresh.failure.what), (what, built.value, fresh)
        return f"refused: {type(fresh.failure).__name__}"
    assert built.value.outcome in SURE, (what, built.value)
    assert crashing.whole(cache) == [], what
    assert crashing.leftovers(cache) == [], what
    assert same(cache) == same(clean), what
    return built.value.outcome


def a_fault(world: World) -> tuple[str, faults.Fault | None, Callable[[], crashing.Outcome]]:
    """Choose a kill, an error of a call, or a limit on the size of files, which is as near as a test comes to a quota."""
    rng, at = world.rng, world.rng.randrange(world.rng.choice([100, 800, 3000]))
    kind = rng.choice(["kill", "error", "full"])
    if kind == "full":
        most = rng.randrange(300_000)
        return kind, None, lambda: limited(world.cache, most)
    how = rng.choice(["before", "half", "after"] if kind == "kill" else ERRORS)
    return how if kind == "error" else kind, faults.Fault(at, how), lambda: crashing.build(world.cache)


def limited(cache: Path, most: int) -> crashing.Outcome:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return crashing.build(cache)


def known_end(ended: faults.Ended, what: str) -> str:
    """Return how a build with a fault ended; it was killed, succeeded, or failed with a known error and a next step."""
    if ended.killed:
        return "killed"
    assert ended.error is None, (what, ended.shown)
    failure = ended.value.failure
    if failure is None:
        return ended.value.outcome
    assert "unexpectedly" not in failure.what, (what, ended.value.said)
    assert failure.next_step, (what, failure)
    return f"fault: {type(failure).__name__}"


def beside(world: World) -> tuple[str, int]:
    """Start a command that runs while the build does; return its name and process."""
    name = world.rng.choice(sorted(COMMANDS))
    words = [word.format(cache=world.cache, home=world.home) for word in COMMANDS[name]]
    wait_s, kill_s = world.rng.random() / 5, world.rng.choice([0, 0, 0, 0.05, 0.2, 0.4])
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _be_the_command(words, world.home / "said", wait_s, kill_s)
    return name, child


def _be_the_command(words: list[str], said: Path, wait_s: float, kill_s: float) -> NoReturn:
    code = 99
    try:
        to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        time.sleep(wait_s)
        if kill_s:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, kill_s)
        code = cli.main(words)
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  the parent reads it
        traceback.print_exc()
    finally:
        os._exit(code)


def code_of(child: int, world: World, what: str) -> int:
    """Return how a command ended: well, with a refusal that has a next step, or killed; what it wrote is whole."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = (world.home / "said").read_text(errors="replace")
    assert "Traceback" not in said, (what, said)
    assert code in (0, 1, -signal.SIGALRM) or code >= 10, (what, code, said)
    assert code < 99, (what, said)
    assert code < 10 or "next step" in said or "    -> " in said, (what, code, said)
    if (bundle := world.home / "out.tar.zst").exists():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert cli.main(["info", str(bundle), "--public-key", str(world.home / "key.pub.pem")]) == 0, what
    return code


def clean_build(cache: Path) -> tuple[Path, crashing.Outcome]:
    """Build the same request in a new directory beside the old one."""
    clean = cache.with_name("clean")
    faults.remove(clean)
    clean.mkdir()
    for name in ("flight.toml", "dodo.py", "doit.cfg"):
        shutil.copy(cache / name, clean)
    built = faults.run(lambda: crashing.build(clean), clean)
    assert built.value is not None, built.shown
    return clean, built.value


def same(cache: Path) -> dict[str, object]:
    """What a build and a clean build must have in common."""
    return crashing.decided(crashing.published(cache))


def check(capsys, home: Path, *, rounds: int, seed: int) -> None:
    done = crashing.in_clean_process(soak, home, rounds, seed)
    with capsys.disabled():
        print(f"\nsoak, seed {seed}: {done}", end=" ")
    assert (home / "round").read_text() == str(rounds)


def test_random_edits_and_faults_end_as_a_clean_build(tmp_path, capsys):
    check(capsys, tmp_path / "world", rounds=1, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(20))
def test_a_thousand_rounds_of_random_edits_and_faults(tmp_path, capsys, shard):
    kept = os.environ.get("SOAK_DIR")
    check(capsys, Path(kept) / str(shard) if kept else tmp_path / "world", rounds=50, seed=100 + shard)
