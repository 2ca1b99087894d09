"""Many builders at once, many edits in a row, with kills at random moments: one good generation, the right one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import crashing

ROOT = Path(__file__).parents[1]


def start_doit(cache: Path) -> subprocess.Popen[bytes]:
    """Start `doit` in the cache directory, as a user does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "doit", "run", "--log", "json"],
        cwd=cache,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Crowd:
    """Builders started together in one directory, watched, some of them killed."""

    def __init__(self, cache: Path, count: int, rng: random.Random) -> None:
        self.cache, self.rng = cache, rng
        self.running = [start_doit(cache) for _ in range(count)]
        self.ended: Counter[str] = Counter()

    def watch(self, kill_every_s: float) -> None:
        """Kill the holder of the lock, or anyone, now and then until all have ended."""
        next_kill = time.monotonic() + kill_every_s * self.rng.random()
        kills = len(self.running) // 4
        while self.running:
            time.sleep(0.01)
            if kills and time.monotonic() > next_kill:
                victim = self.rng.choice(self._holder() or self.running)
                victim.send_signal(self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                kills, next_kill = kills - 1, time.monotonic() + kill_every_s * self.rng.random()
            self.running = [child for child in self.running if not self._reaped(child)]

    def _holder(self) -> list[subprocess.Popen[bytes]]:
        try:
            pid = json.loads((self.cache / ".c10.lock").read_text().splitlines()[0])["pid"]
        except (OSError, ValueError, IndexError):
            return []
        return [child for child in self.running if child.pid == pid]

    def _reaped(self, child: subprocess.Popen[bytes]) -> bool:
        if child.poll() is None:
            return False
        said = child.stdout.read().decode()
        child.stdout.close()
        self.ended[self._how(child.returncode, said)] += 1
        return True

    @staticmethod
    def _how(code: int, said: str) -> str:
        if code == 0:
            return "built" if "build.success" in said else "no-op"
        if code in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            return "killed"
        assert code == 3, f"exit code {code}: {said}"
        assert "another build" in said, said
        return "refused"


def crowd_rounds(home: Path, *, rounds: int, count: int, seed: int) -> tuple[Counter[str], int]:
    """Start `count` builders at once, `rounds` times, each with a new tile; return how they ended and the counter."""
    rng, ended = random.Random(seed), Counter[str]()
    cache = crashing.new_world(home / "world")
    for number in range(rounds):
        crashing.put_tile(home / "world" / "tiles", 0, 0, seed=1000 + number)
        crowd = Crowd(cache, count, rng)
        crowd.watch(kill_every_s=0.5)
        ended.update(crowd.ended)
        assert crashing.whole(cache) == []
    last = start_doit(cache)
    said = last.communicate()[0].decode()
    assert last.returncode == 0, said
    assert crashing.whole(cache) == []
    assert crashing.leftovers(cache) == []
    assert len(list((cache / "generations").iterdir())) <= 2
    return ended, int(Path(os.readlink(cache / "current")).name)


def check_crowd(capsys, tmp_path: Path, *, rounds: int, count: int) -> None:
    ended, counter = crowd_rounds(tmp_path, rounds=rounds, count=count, seed=1)
    with capsys.disabled():
        print(f"\n{count} builders at once, {rounds} rounds: {dict(ended)}, counter {counter}", end=" ")
    assert sum(ended.values()) == rounds * count
    assert ended["refused"] > ended["built"]
    assert ended["built"] <= counter <= rounds, "one set of tiles was published twice"


def test_of_five_builders_at_once_one_builds(tmp_path, capsys):
    check_crowd(capsys, tmp_path, rounds=1, count=5)


@pytest.mark.slow
def test_of_thirty_two_builders_at_once_one_builds(tmp_path, capsys):
    check_crowd(capsys, tmp_path, rounds=20, count=32)
