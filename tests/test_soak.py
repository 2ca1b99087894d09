"""Rounds of random edits with kills, each compared with a clean build from scratch."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.flight import publish
from tests import building, crashing, faults

SIDE = 3
KILLS_A_ROUND = 2


class Soaked(NamedTuple):
    """What a soak did."""

    rounds: int
    edits: dict[str, int]
    ended: dict[str, int]
    counter: int


class World:
    """A cache directory, its tiles, and the ways in which a user changes them."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.cache, self.tiles, self.rng = crashing.new_world(home, side=SIDE), home / "tiles", rng

    def edit(self) -> str:
        """Change one thing at random and say what."""
        change = self.rng.choice(
            [self.add, self.add, self.remove, self.replace, self.replace, self.touch, self.flight, self.index,
             self.keep, self.damage_current, self.lose_sidecar, self.lose_database, self.calibrate]
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

    def _set(self, key: str, line: str, *, section: str = "") -> None:
        file = self.cache / "flight.toml"
        head, mark, tail = file.read_text().partition(section) if section else ("", "", file.read_text())
        lines = tail.splitlines(keepends=True)
        at = next(n for n, text in enumerate(lines) if text.lstrip("# ").startswith(key))
        lines[at] = line + "\n"
        file.write_text(head + mark + "".join(lines))


def soak(home: Path, rounds: int, seed: int) -> Soaked:
    """Edit, kill twice at random calls, build to the end, and compare with a clean build; `rounds` times."""
    rng = random.Random(seed)
    world, edits, ended = World(home, rng), Counter[str](), Counter[str]()
    length = 700
    for number in range(rounds):
        done = [world.edit() for _ in range(rng.randrange(1, 4))]
        edits.update(done)
        what = f"seed {seed}, round {number}, edits {done}"
        for _ in range(KILLS_A_ROUND):
            fault = faults.Fault(rng.randrange(length), rng.choice(["before", "half", "after"]))
            killed = faults.run(lambda: crashing.build(world.cache), world.cache, fault)
            ended["killed" if killed.killed else killed.value.outcome] += 1
            broken = set(done) & {"damage_current", "lose_sidecar"}
            assert broken or crashing.whole(world.cache) == [], (what, fault)
        built = faults.run(lambda: crashing.build(world.cache), world.cache)
        assert built.value is not None, (what, built.shown)
        assert built.value.outcome in ("SUCCESS", "IDEMPOTENT_NO_OP"), (what, built.value)
        ended[built.value.outcome] += 1
        length = max(100, len(built.calls))
        assert crashing.whole(world.cache) == [], what
        assert crashing.leftovers(world.cache) == [], what
        assert same(world.cache) == same(clean_build(world.cache)), what
    current = publish.current_generation(world.cache)
    assert current is not None
    return Soaked(rounds, dict(edits), dict(ended), int(current.name))


def clean_build(cache: Path) -> Path:
    """Build the same request in a new directory beside the old one."""
    clean = cache.with_name("clean")
    shutil.rmtree(clean, ignore_errors=True)
    clean.mkdir()
    for name in ("flight.toml", "dodo.py", "doit.cfg"):
        shutil.copy(cache / name, clean)
    built = faults.run(lambda: crashing.build(clean), clean)
    assert built.value is not None, built.shown
    assert built.value.outcome == "SUCCESS", built.value
    return clean


def same(cache: Path) -> dict[str, object]:
    """What a build and a clean build must have in common."""
    return crashing.decided(crashing.published(cache))


def check(capsys, tmp_path: Path, *, rounds: int, seed: int) -> None:
    done = crashing.in_clean_process(soak, tmp_path / "world", rounds, seed)
    with capsys.disabled():
        print(f"\nsoak: {done}", end=" ")
    assert done.ended["killed"] > done.rounds / 2
    assert done.ended["SUCCESS"] > done.rounds / 4


def test_random_edits_and_kills_end_as_a_clean_build(tmp_path, capsys):
    check(capsys, tmp_path, rounds=3, seed=7)


@pytest.mark.slow
def test_two_hundred_rounds_of_random_edits_and_kills(tmp_path, capsys):
    check(capsys, tmp_path, rounds=200, seed=11)
