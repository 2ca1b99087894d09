"""Every file-system call of the publisher and the stores, killed and failed: `current` holds, the next build converges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.base.disk import artifacts
from provisioning.base.errors import Error
from provisioning.flight import publish
from tests import faults, generations
from tests.generations import build, faults_in, new_cache


def wanted(cache: Path) -> dict[str, object]:
    """What an undisturbed build leaves for its user: the current generation and the artefacts behind it."""
    current = publish.current_generation(cache)
    return {"generation": faults.snapshot(current), "counter": publish.next_counter(cache)}


class Scene(NamedTuple):
    """A cache before a build of `revision`, what an undisturbed build leaves, and the calls it makes."""

    before: Path
    revision: int
    keep: int
    expected: dict[str, object]
    calls: list[faults.Call]
    scratch: Path
    step: int = 1
    """One point in so many is tried."""

    def copy(self) -> Path:
        """A fresh copy of the cache, in place of the last one."""
        faults.remove(self.scratch)
        return faults.copy_cache(self.before, self.scratch)

    def run(self, fault: faults.Fault | None = None) -> tuple[Path, faults.Ended]:
        """Build a copy, with a fault."""
        cache = self.copy()
        return cache, faults.run(lambda: build(cache, self.revision, keep=self.keep), cache, fault)

    def check(self, cache: Path, fault: faults.Fault) -> None:
        """Assert what must hold after a fault, then build once more and assert that nothing differs."""
        current = publish.current_generation(cache)
        assert current is not None or self.revision == 1, fault
        assert current is None or faults_in(current) == [], fault
        shelf = generations.targets(cache, self.revision)
        finished = {name for name, target in shelf.items() if artifacts.is_intact(target)}
        # What is named and not switched to stays, as it may be the last good one: one of each build that was killed there.
        named = [] if current else numbers(cache)
        lost = [] if publish.current_generation(self.before) else numbers(self.before)
        generations.made.clear()
        build(cache, self.revision, keep=self.keep)
        assert not finished & set(generations.made), f"{fault}: finished work was done again"
        if named or lost:
            assert faults_in(publish.current_generation(cache)) == [], fault
            assert without_counter(wanted(cache)) == without_counter(self.expected), fault
            given = max(named) + 1 if named else max(lost) + 1
            assert wanted(cache)["counter"] == given + 1, f"{fault}: no counter is given twice"
        else:
            assert wanted(cache) == self.expected, fault
        assert leftovers(cache, self.keep) == [], fault


def numbers(cache: Path) -> list[int]:
    """The generations that have a name, switched to or not."""
    return [int(path.name) for path in (cache / "generations").glob("0*")]


def without_counter(what: dict[str, object]) -> dict[str, bytes]:
    """The files of a generation without the Manifest's, which hold its counter."""
    return {name: data for name, data in what["generation"].items() if not name.startswith("Manifest")}


@pytest.fixture(
    params=[
        pytest.param((1, 2, 1), id="first build", marks=pytest.mark.slow),
        pytest.param((3, 1, 1), id="third build, one kept", marks=pytest.mark.slow),
        pytest.param((3, 1, 23), id="third build, one kept, one point in twenty-three"),
    ]
)
def scene(request, tmp_path) -> Scene:
    """A first build, and a third one that keeps one generation: there every mistake in pruning hits the current one."""
    revision, keep, step = request.param
    before = new_cache(tmp_path / "before")
    for earlier in range(1, revision):
        build(before, earlier, keep=keep)
    scene = Scene(before, revision, keep, {}, [], tmp_path / "scratch", step)
    cache, ended = scene.run()
    assert ended.error is None, ended.shown
    return scene._replace(expected=wanted(cache), calls=ended.calls)


def leftovers(cache: Path, keep: int) -> list[str]:
    """Temporary names, unfinished stages and generations too many."""
    names = [path.relative_to(cache).as_posix() for path in cache.rglob("*")]
    stray = [name for name in names if "/.tmp-" in "/" + name or name.startswith(".build/stage/")]
    return stray + (["generations"] if len(list((cache / "generations").iterdir())) > keep else [])


def test_killed_at_every_change_the_next_build_converges(scene, capsys):
    points = faults.kills(scene.calls)[:: scene.step]
    for fault in points:
        cache, ended = scene.run(fault)
        assert ended.killed, (fault, ended)
        scene.check(cache, fault)
    changes = sum(call.changes for call in scene.calls)
    with capsys.disabled():
        print(f"\npublisher: {len(points)} kill points over {changes} changes and {len(scene.calls)} calls", end=" ")
    assert changes >= 40
    assert len(points) * scene.step >= 2 * changes


def test_every_call_may_fail_once_with_a_clear_error(scene, capsys):
    errors: Counter[str] = Counter()
    points = faults.failures(scene.calls)[:: scene.step if scene.step == 1 else 3 * scene.step]  # three for each call
    for fault in points:
        cache, ended = scene.run(fault)
        assert not ended.killed
        errors[type(ended.error).__name__] += 1
        if ended.error is not None:
            assert isinstance(ended.error, Error), (fault, scene.calls[fault.at], ended.shown)
            assert ended.error.next_step, fault
        scene.check(cache, fault)
    with capsys.disabled():
        print(f"\npublisher: {len(points)} failed calls: {dict(errors)}", end=" ")
    assert errors["FilesystemError"] > len(points) / 2


def test_killed_at_every_change_of_the_recovery_too(scene):
    """A build killed around its publication, whose recovery is then killed at every change."""
    renames = [number for number, call in enumerate(scene.calls) if call.name == "rename"]
    for first in renames[-4:]:
        broken, ended = scene.run(faults.Fault(first, "after"))
        assert ended.killed
        again = scene._replace(before=broken.rename(broken.with_name(f"broken{first}")))
        calls = again.run()[1].calls
        for fault in faults.kills(calls)[:: scene.step]:
            cache, ended = again.run(fault)
            assert ended.killed, fault
            again.check(cache, fault)
