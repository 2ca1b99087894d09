"""Every file-system call of the publisher and the stores, killed and failed: `current` holds, the next build converges."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from provisioning import publish, store
from provisioning.errors import Error
from tests import faults, generations
from tests.generations import build, faults_in, new_cache

MOST_BYTES = 1 << 20


def wanted(cache: Path) -> dict[str, object]:
    """What an undisturbed build leaves for its user: the current generation and the artefacts behind it."""
    current = publish.current_generation(cache)
    return {"generation": faults.snapshot(current), "counter": publish.next_counter(cache)}


@pytest.fixture
def scene(tmp_path):
    """A cache at revision 1, and what revision 2 must look like."""
    before = new_cache(tmp_path / "before")
    build(before, 1)
    undisturbed = faults.copy_cache(before, tmp_path / "undisturbed")
    ended = faults.run(lambda: build(undisturbed, 2), undisturbed)
    assert ended.error is None, ended.shown
    return before, wanted(undisturbed), ended.calls


def is_whole(cache: Path) -> bool:
    """Whether `current` names a generation that verifies, old or new."""
    current = publish.current_generation(cache)
    return current is not None and faults_in(current) == []


def check(cache: Path, expected: dict[str, object], fault: faults.Fault) -> None:
    """Assert what must hold after a fault, then build once more and assert that nothing differs."""
    assert is_whole(cache), fault
    finished = {name for name, target in generations.targets(cache, 2).items() if store.is_intact(target)}
    generations.made.clear()
    build(cache, 2)
    assert not finished & set(generations.made), f"{fault}: finished work was done again"
    assert wanted(cache) == expected, fault
    assert leftovers(cache) == [], fault


def leftovers(cache: Path) -> list[str]:
    """Temporary names, unfinished stages and generations too many."""
    names = [path.relative_to(cache).as_posix() for path in cache.rglob("*")]
    stray = [name for name in names if "/.tmp-" in "/" + name or name.startswith(".build/stage/")]
    return stray + (["generations"] if len(list((cache / "generations").iterdir())) > 2 else [])


def test_killed_at_every_change_the_next_build_converges(scene, tmp_path, capsys):
    before, expected, calls = scene
    points = faults.kills(calls)
    for number, fault in enumerate(points):
        cache = faults.copy_cache(before, tmp_path / f"kill{number}")
        ended = faults.run(lambda cache=cache: build(cache, 2), cache, fault)
        assert ended.killed, (fault, ended)
        check(cache, expected, fault)
    changes = sum(call.changes for call in calls)
    with capsys.disabled():
        print(f"\npublisher: {len(points)} kill points over {changes} changes and {len(calls)} calls", end=" ")
    assert changes >= 40
    assert len(points) >= 2 * changes


def test_every_call_may_fail_once_with_a_clear_error(scene, tmp_path, capsys):
    before, expected, calls = scene
    told: Counter[str] = Counter()
    points = faults.failures(calls)
    for number, fault in enumerate(points):
        cache = faults.copy_cache(before, tmp_path / f"fail{number}")
        ended = faults.run(lambda cache=cache: build(cache, 2), cache, fault)
        assert not ended.killed
        told[type(ended.error).__name__] += 1
        if ended.error is not None:
            assert isinstance(ended.error, Error), (fault, calls[fault.at], ended.shown)
            assert ended.error.next_step, fault
        check(cache, expected, fault)
    with capsys.disabled():
        print(f"\npublisher: {len(points)} failed calls: {dict(told)}", end=" ")
    assert told["FilesystemError"] > len(points) / 2


def test_killed_at_every_change_of_the_recovery_too(scene, tmp_path):
    """A build killed after staging, whose recovery is then killed at every change."""
    before, expected, calls = scene
    renames = [number for number, call in enumerate(calls) if call.name == "rename"]
    for first in itertools.islice(reversed(renames), 4):
        broken = faults.copy_cache(before, tmp_path / f"broken{first}")
        assert faults.run(lambda broken=broken: build(broken, 2), broken, faults.Fault(first, "after")).killed
        again = faults.copy_cache(broken, tmp_path / f"again{first}")
        points = faults.kills(faults.run(lambda again=again: build(again, 2), again).calls)
        assert points
        for number, fault in enumerate(points):
            cache = faults.copy_cache(broken, tmp_path / f"twice{first}-{number}")
            assert faults.run(lambda cache=cache: build(cache, 2), cache, fault).killed
            check(cache, expected, fault)
