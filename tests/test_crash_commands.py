"""`doit clean` and `flightcache rollback`, killed at their file-system calls: `current` is absent or verifies, and goes on."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.flight import publish
from tests import crashing, faults


class Killed(NamedTuple):
    """What a campaign did."""

    points: int
    changes: int
    ended: dict[str, int]


def clean(cache: Path) -> int:
    """Run `doit clean` as the command line does."""
    from doit.doit_cmd import DoitMain

    os.chdir(cache)
    with contextlib.redirect_stdout(io.StringIO()):
        return int(DoitMain(config_filenames=("doit.cfg",)).run(["clean"]))


def roll_back(cache: Path) -> int:
    """Run `flightcache rollback`."""
    from provisioning.cli import main

    with contextlib.redirect_stdout(io.StringIO()):
        return main(["rollback", str(cache)])


def world_with_two_generations(home: Path) -> tuple[Path, Path]:
    """Build twice; return the cache directory, which is to be restored from the second path."""
    cache = crashing.new_world(home / "world")
    for seed in (1, 2):
        crashing.put_tile(home / "world" / "tiles", 0, 0, seed=seed)
        built = faults.run(lambda: crashing.build(cache), cache)
        assert built.value.outcome == "SUCCESS", built
    before = cache.with_name("before")
    shutil.move(cache, before)
    return cache, before


def restore(cache: Path, before: Path) -> None:
    faults.remove(cache)
    faults.copy_cache(before, cache)


def kill_clean(cache: Path, before: Path, step: int) -> Killed:
    """Kill `doit clean` before every `step`-th change; then build."""
    restore(cache, before)
    ended = faults.run(lambda: clean(cache), cache)
    assert ended.value == 0, ended.shown
    assert not os.path.lexists(cache / "current")
    points = [number for number, call in enumerate(ended.calls) if call.changes][::step]
    for at in points:
        restore(cache, before)
        assert faults.run(lambda: clean(cache), cache, faults.Fault(at, "before")).killed
        assert crashing.whole(cache) == [], ended.calls[at]
        built = faults.run(lambda: crashing.build(cache), cache)
        assert built.value.failure is None, (ended.calls[at], built.value)
        assert crashing.whole(cache) == []
        assert crashing.leftovers(cache) == []
        assert publish.next_counter(cache) >= 3, "a counter that went back lets an old cache pass for new"
    return Killed(len(points), sum(call.changes for call in ended.calls), {})


def kill_rollback(cache: Path, before: Path, step: int) -> Killed:
    """Kill `flightcache rollback` at every `step`-th change; then roll back again where that did not happen yet."""
    restore(cache, before)
    old = crashing.published(cache)["corpus.index"]
    ended = faults.run(lambda: roll_back(cache), cache)
    assert ended.value == 0, ended.shown
    wanted = crashing.published(cache)
    assert wanted["corpus.index"] != old
    points = [fault for fault in faults.kills(ended.calls) if fault.how != "after"][::step]
    done = {"rolled back": 0, "not yet": 0}
    for fault in points:
        restore(cache, before)
        assert faults.run(lambda: roll_back(cache), cache, fault).killed
        assert crashing.whole(cache) == [], fault
        if crashing.published(cache)["corpus.index"] == old:
            done["not yet"] += 1
            assert faults.run(lambda: roll_back(cache), cache).value == 0
        else:
            done["rolled back"] += 1
            publish.recover(cache, keep=2)
        assert crashing.published(cache) == wanted, fault
        assert crashing.whole(cache) == [], fault
        assert crashing.leftovers(cache) == [], fault
    return Killed(len(points), sum(call.changes for call in ended.calls), done)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The cache directory, and what it is restored from: both commands are killed in one world."""
    return crashing.in_clean_process(world_with_two_generations, tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("step", [51, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_clean_leaves_a_whole_cache_or_none(world, capsys, step):
    done = crashing.in_clean_process(kill_clean, *world, step)
    with capsys.disabled():
        print(f"\nclean: {done}", end=" ")
    assert done.changes > 50


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rollback_happened_or_did_not(world, capsys, step):
    done = crashing.in_clean_process(kill_rollback, *world, step)
    with capsys.disabled():
        print(f"\nrollback: {done}", end=" ")
    assert done.ended["not yet"] > 20 // step
    assert done.ended["rolled back"] > 3 // step
