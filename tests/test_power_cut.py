"""A power cut at any moment of a build: `current` verifies, what was reported done is there, every fsync is needed."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.base.disk import artifacts
from provisioning.base.hashing import sha256_bytes
from provisioning.flight import publish
from tests import faults, generations
from tests.generations import build, new_cache, targets
from tests.power_cut import Model, Op, Tree, recorded


class Recording(NamedTuple):
    """A build as calls: the tree before it, with inodes, the calls, and the revision and counter that it published."""

    before: Tree
    inodes: dict[str, int]
    directories: list[str]
    ops: list[Op]
    revision: int
    counter: int
    cache: Path

    def model(self) -> Model:
        return Model(self.before, self.inodes, self.directories)


def record(cache: Path, action, revision: int) -> Recording:
    before = faults.snapshot(cache)
    inodes = {name: os.lstat(cache / name).st_ino for name in before}
    directories = [
        path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_dir() and not path.is_symlink()
    ]
    ops: list[Op] = []

    def tell(path: Path) -> None:
        ops.append(Op("made", path.relative_to(cache).as_posix()))

    generations.on_finished.append(tell)
    with recorded(cache, ops):
        generation = action()
    generations.on_finished.remove(tell)
    return Recording(before, inodes, directories, ops, revision, int(generation.name), cache)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Recording]:
    """A first build, a second, a third that prunes, and a rollback."""
    cache = new_cache(tmp_path_factory.mktemp("power") / "cache")
    found = {f"build {n}": record(cache, functools.partial(build, cache, n), n) for n in (1, 2, 3)}

    def roll_back() -> Path:
        staged = generations.rolled_back(cache)
        return publish.commit(cache, staged, keep=2)

    found["rollback"] = record(cache, roll_back, 2)
    return found


def below(tree: Tree, directory: str) -> Tree:
    return {name.removeprefix(directory + "/"): body for name, body in tree.items() if name.startswith(directory + "/")}


def broken_promises(recording: Recording, ops: list[Op], *, most: int) -> Iterator[str]:
    """Cut the power after each call, look at what the disk may hold, and yield each promise that does not hold."""
    model = recording.model()
    shelf = {
        target.path.relative_to(recording.cache).as_posix(): generations.content(target)
        for target in targets(recording.cache, recording.revision).values()
    }
    for number, op in enumerate([None, *ops]):
        if op is not None:
            model.apply(op)
        over = number == len(ops)
        for tree, inodes in model.states(most=most, seed=number):
            for promise in _broken(recording, tree, inodes, shelf, model.made, over=over):
                yield f"after call {number} {op and op[:3]}: {promise}"


def _broken(recording: Recording, tree: Tree, inodes: dict[str, int], shelf, made, *, over: bool) -> Iterator[str]:
    current = tree.get("current")
    if current is None:
        if over or "current" in recording.before:
            yield "current is gone"
    elif wrong := generations.faults_among(below(tree, str(current))):
        yield f"current names a generation that does not verify: {wrong}"
    if over and current != f"generations/{recording.counter:06d}":
        yield "what was reported as published is not current"
    if over and tree.get(".build/counter") != b"%d\n" % recording.counter:
        yield "the counter is forgotten"
    for path, content in shelf.items():
        if _is_believed(tree, inodes, path):
            if tree[path] != content:
                yield f"{path} would be believed by its stat but has other bytes"
        elif over or path in made:
            yield f"{path} was reported as made but is lost"


def _is_believed(tree: Tree, inodes: dict[str, int], path: str) -> bool:
    """As `store.is_intact` does by stat, with inodes of the recording and an mtime that came through the cut."""
    try:
        record = json.loads(tree[path + artifacts.RECORD_SUFFIX])
    except (KeyError, ValueError):
        return False
    return path in tree and (len(tree[path]), inodes[path]) == (record["bytes"], record["inode"])


RECORDED = ("build 1", "build 2", "build 3", "rollback")


@pytest.mark.parametrize(
    ("name", "most"),
    [(name, 64) for name in RECORDED if name != "build 2"]
    + [pytest.param(name, 256, marks=pytest.mark.slow) for name in RECORDED],
)
def test_no_power_cut_breaks_a_promise(recordings, name, most):
    """The second build does nothing that the third does not."""
    recording = recordings[name]
    assert len(recording.ops) > 20
    assert list(broken_promises(recording, recording.ops, most=most)) == []


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_every_fsync_is_needed(recordings, capsys, every):
    """The mutation check: leave out any one fsync of a build and the simulation finds a state that breaks a promise."""
    tried, idle = 0, []
    for name, recording in recordings.items():
        for at in [at for at, op in enumerate(recording.ops) if op.name == "fsync"][::every]:
            tried += 1
            without = recording.ops[:at] + recording.ops[at + 1 :]
            if next(broken_promises(recording, without, most=64), None) is None:
                idle.append(f"{name}: fsync of {recording.ops[at].path} (call {at})")
    with capsys.disabled():
        print(f"\npower cut: {tried} fsyncs left out one at a time", end=" ")
    assert idle == []
    assert tried * every > 40


@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_what_a_power_cut_leaves_is_recovered_by_the_next_build(recordings, tmp_path, capsys, every):
    """States put on a real disk: the next build ends well and with the same bytes as without the cut."""
    recording = recordings["build 3"]
    expected = generations_bytes(recording.ops, recording)
    model, states = recording.model(), {}
    for number, op in enumerate(recording.ops):
        model.apply(op)
        for tree, _ in model.states(most=3, seed=number):
            states[sha256_bytes(repr(sorted(tree.items())).encode())] = tree
    for number, tree in enumerate([*states.values()][::every]):
        cache = put(tree, tmp_path / str(number))
        generation = build(cache, recording.revision)
        assert faults.snapshot(generation) == expected
    with capsys.disabled():
        print(f"\npower cut: {number + 1} of {len(states)} states recovered on a real disk", end=" ")
    assert len(states) > 50


def generations_bytes(ops: list[Op], recording: Recording) -> Tree:
    """The published generation of a recording that ran to its end."""
    model = recording.model()
    for op in ops:
        model.apply(op)
    tree, _ = list(model.states(most=1))[-1]
    return below(tree, f"generations/{recording.counter:06d}")


def put(tree: Tree, cache: Path) -> Path:
    """Write a tree to disk as a cache directory."""
    for name, body in tree.items():
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(body, str):
            path.symlink_to(body)
        else:
            path.write_bytes(body)
    return cache
