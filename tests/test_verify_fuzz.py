"""Mutation and fuzzing: nothing that differs from what was signed is ever accepted, and nothing ever raises."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from provisioning.flight.verify import CounterFloor, verify
from tests import faults, fuzzing
from tests.caches import FILES, Cache, publish

SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "1"))
timed = pytest.mark.parametrize("seconds", [SECONDS, pytest.param(30 * SECONDS, marks=pytest.mark.slow)])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return publish(tmp_path / "cache")


def accepted(cache: Cache) -> bool:
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.passed == (not verdict.reasons)
        return verdict.passed


def mutants(data: bytes, *, sampled: bool, step: int) -> list[bytes]:
    """`data` with single bits of sampled bytes, or of every step-th one, flipped, and cut off at several places."""
    rng = random.Random(SEED)
    places = (
        sorted({0, len(data) - 1, *rng.sample(range(len(data)), min(60, len(data)))})
        if sampled
        else range(0, len(data), step)
    )
    flipped = [data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] for at in places]
    cuts = {0, 1, len(data) // 2, len(data) - 1}
    return flipped + [data[:end] for end in sorted(cuts - {len(data)})] + [data + b"\0"]


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_byte_or_truncation_of_any_file_is_accepted(
    cache: Cache, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    """Every fifth, or every, byte of the Manifest, its signature and all sidecars; sampled bytes of every artefact."""
    refused: Counter[str] = Counter()
    survivors = []
    for path in sorted(p for p in cache.generation.rglob("*") if p.is_file()):
        name, data = str(path.relative_to(cache.generation)), path.read_bytes()
        for mutant in mutants(data, sampled=name in FILES, step=step):
            path.write_bytes(mutant)
            if accepted(cache):
                survivors.append((name, mutant))
            refused[name] += 1
        path.write_bytes(data)
    assert survivors == []
    assert accepted(cache)
    with capsys.disabled():
        print(f"\n{refused.total()} mutants of {len(refused)} files, none accepted", end="")
    assert refused.total() > 3500 / step


@timed
def test_fuzzed_manifests_are_refused_or_canonical_and_nothing_raises(
    capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    tried, _ = fuzzing.fuzz(seconds, seed=SEED)
    with capsys.disabled():
        print(f"\n{tried} fuzzed Manifests", end="")
    assert tried > 100


def test_kept_corpus_draws_most_answers_that_the_parser_has() -> None:
    said = [fuzzing.judge(data) for data in fuzzing.corpus()[1:]]
    assert len(frozenset().union(*said)) > 100
    assert all(said)
    assert fuzzing.judge(fuzzing.corpus()[0]) == {"accepted"}


# --- any number of changes to the directory -------------------------------------------------------------------------------


def snapshot(root: Path) -> dict[str, object]:
    """What a cache is: every path below it with its kind and content."""
    found: dict[str, object] = {}
    for directory, _, names in os.walk(root):
        found[os.path.relpath(directory, root)] = "directory"
        for name in names:
            path = Path(directory) / name
            key = str(path.relative_to(root))
            found[key] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "special"
    for path in root.rglob("*"):  # os.walk lists links to directories as directories
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", os.readlink(path))
    return found


def change(root: Path, rng: random.Random) -> None:
    """Do one random thing to a random place below `root`; what the file system refuses is not done."""
    places = [root / "generations", *root.rglob("*")]
    place, other = rng.choice(places), rng.choice(places)
    new = place.parent / rng.choice([f"new{rng.randrange(3)}", place.name + ".sha256", "current", "Manifest.json"])
    actions = [
        place.unlink,
        lambda: shutil.rmtree(place) if place.is_dir() and rng.random() < 0.2 else None,
        lambda: place.rename(new),
        lambda: shutil.copyfile(other, place),
        lambda: os.link(place, new),
        lambda: new.symlink_to(rng.choice(["generations/000007", "Manifest.json", str(other), "..", new.name])),
        lambda: os.mkfifo(new),
        new.mkdir,
        lambda: new.write_bytes(rng.randbytes(3)) if new.is_file() or not new.exists() else None,  # not to a FIFO
        lambda: os.truncate(place, rng.choice([0, 64, 65, 100, 9000, 1 << 20])) if place.is_file() else None,
        lambda: place.write_bytes(place.read_bytes()) if place.is_file() else None,
        lambda: place.chmod(rng.choice([0o400, 0o755])),
    ]
    with contextlib.suppress(OSError):
        rng.choice(actions)()


@timed
def test_a_changed_directory_is_never_accepted_and_an_unchanged_one_always(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    rng, end = random.Random(SEED), time.monotonic() + seconds
    verdicts: Counter[bool] = Counter()
    (tmp_path / "floor").write_text("7\n")
    while time.monotonic() < end or min(verdicts[True], verdicts[False]) < 5:
        root = tmp_path / "cache"
        made = publish(root)
        expect = made.expect._replace(counter_floor=CounterFloor(tmp_path / "floor", raise_on_pass=True))
        before = snapshot(root)
        for _ in range(rng.randint(1, 6)):
            change(root, rng)
        after = flown(snapshot(root))
        with verify(root, expect) as verdict:
            # a directory that holds a Manifest.json is that generation, whatever lies in it besides
            expected = after == flown(before) and not os.path.lexists(root / "Manifest.json")
            assert verdict.passed == expected, (
                verdict,
                set(after.items()) ^ set(flown(before).items()),
            )
        verdicts[verdict.passed] += 1
        faults.remove(root)
    assert (tmp_path / "floor").read_text() == "7\n"
    with capsys.disabled():
        print(f"\n{verdicts.total()} changed directories, {verdicts[False]} refused", end="")


def flown(found: dict[str, object]) -> dict[str, object]:
    """The part of a snapshot that flies: files beside the generation are nobody's promise."""
    inside = ("current", "generations/000007")
    return {path: kind for path, kind in found.items() if path in inside or path.startswith(inside[1] + "/")}
