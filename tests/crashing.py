"""The real build, small and fast, for tests that kill it: four tiles, a tiny network, gates that any network passes.

Imported in a process that has run no build itself: a fork of one that has would inherit the locks of its thread pools.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before any library counts the cores: many small builds run side by side

import contextlib
import hashlib
import importlib
import io
import json
import pkgutil
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import provisioning
import rules
from provisioning.base.errors import Error
from provisioning.cli.begin.init import create_cache
from provisioning.config import Flight
from provisioning.config.parse import read_flight
from provisioning.flight import manifest, publish
from provisioning.flight.signing import generate_key, load_public_key, sign
from provisioning.flight.verify import ANY, Expectations, verify
from tests import building, caches, faults, networks

VOLATILE = (
    "build-report.json",
    "history.json",
    "doit.sqlite",
    "build.log",
    ".c10.lock",
    ".users",
    ".lock",
    "last.rows",
)
"""Names whose bytes differ from build to build (times, pids, inodes) and decide nothing."""
HEAVY = ("numpy.ma", "onnx", "onnxruntime", "faiss", "cryptography", "simplejpeg", "doit.cmd_run", "sqlite3", "threadpoolctl", "gzip")  # fmt: skip


def load_everything() -> None:
    """Import what a build imports, so that a forked child does not spend its time on it."""
    for name in HEAVY:
        importlib.import_module(name)
    Image.init()  # all its formats
    for package in (provisioning, rules):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "__main__" not in module.name:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)


def put_tile(tiles: Path, column: int, row: int, *, seed: int) -> None:
    """Write the tile of `seed`, of few pixels, at a place in the small area."""
    path = tiles / str(building.ZOOM) / str(building.WEST + column) / f"{building.NORTH + row}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(building.tile_image(seed, side=64))


def new_world(parent: Path, *, side: int = 2) -> Path:
    """Make tiles, key, network and a cache directory below `parent`; return the cache directory."""
    for column in range(side):
        for row in range(side):
            put_tile(parent / "tiles", column, row, seed=10 * column + row)
    generate_key(parent / "key.pem", password=None)
    (parent / "camera.yaml").write_text("focal_px: 812.5\n")
    model = networks.save(networks.user_model()[0], parent / "net.onnx")
    cache = parent / "cache"
    create_cache(
        cache,
        tiles=parent / "tiles",
        key=parent / "key.pem",
        backbone=model,
        calibration=[parent / "camera.yaml"],
        flight_id="F-1",
        index_overlap=1,
    )
    for old, new in (("samples = 64", "samples = 1"), ("recognition = 0.5", "recognition = 0"),
                     ("max_degenerate = 0.2", "max_degenerate = 1"), ("index_recall = 0.9", "index_recall = 0")):  # fmt: skip
        building.edit(cache, "# " + old, new)
    building.edit(cache, "# min_coverage = {}", f'min_coverage = {{"{building.ZOOM}" = 0}}')
    return cache


def world_of_two_generations(parent: Path) -> Flight:
    """Return the flight of a cache directory with generations 1 and 2, signed by its own key."""
    root = new_world(parent)
    flight = read_flight(root)
    for counter in (1, 2):
        made = caches.publish(root / "made", manifest=caches.manifest_of(counter=counter))
        data = (made.generation / "Manifest.json").read_bytes()
        sources = {name: made.generation / name for name in caches.FILES}
        staged = publish.stage(root, manifest=data, signature=sign(flight.signing, data), files=sources, records={})
        publish.commit(root, staged, keep=2)
        shutil.rmtree(root / "made")
    return flight


class Outcome(NamedTuple):
    """What one build reported."""

    outcome: str
    failure: Error | None
    engines_built: int
    descriptors_generated: int
    said: str


def build(cache: Path, *words: str) -> Outcome:
    """Build as `doit` with these words does, quietly."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        built = building.build(cache, *words)
    report = built.report
    return Outcome(report.outcome, built.failure, report.engines_built, report.descriptors_generated, out.getvalue())


def in_clean_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` in a process that has everything loaded and nothing running: a fork of a server that only imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.loaded"])
    with ProcessPoolExecutor(1, mp_context=context, initializer=load_everything) as pool:
        return pool.submit(function, *args).result()


def whole(cache: Path) -> list[str]:
    """Why `current` would be refused; [] if it verifies or is absent."""
    if not os.path.lexists(cache / "current"):
        return []
    key = load_public_key(cache.parent / "key.pub.pem")
    expect = Expectations((key,), flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)
    with verify(cache, expect) as verdict:
        return [str(reason) for reason in verdict.reasons]


def published(cache: Path) -> dict[str, bytes | str]:
    """Every file of the current generation; the report tells times and is left to its own tests."""
    generation = publish.current_generation(cache)
    assert generation is not None
    return faults.snapshot(generation)


def leftovers(cache: Path) -> list[str]:
    """What recovery and a finished build should not leave."""
    names = [path.relative_to(cache).as_posix() for path in cache.rglob("*")]
    return [name for name in names if "/.tmp-" in "/" + name or name.startswith(".build/stage/")]


def state_of(cache: Path) -> str:
    """A digest of all that a cut-off build left, without what decides nothing; temporary names count by their target."""
    digest = hashlib.sha256()
    for name, path in sorted((_stable_name(path), path) for path in _below(str(cache))):
        mode = os.lstat(path).st_mode
        digest.update(f"{name}\0{mode}\0".encode())
        if stat.S_ISLNK(mode):
            digest.update(os.readlink(path).encode())
        elif path.endswith(".record"):
            digest.update(_record_of(Path(path)))
        elif stat.S_ISREG(mode) and os.path.basename(path) not in VOLATILE:
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def _below(directory: str) -> Iterator[str]:
    """Every path below `directory`; strings, for a campaign looks at each thousands of times."""
    for folder, folders, files in os.walk(directory):
        yield from (f"{folder}/{name}" for name in (*folders, *files))


def _record_of(path: Path) -> bytes:
    """A artifact record without inode and time, which differ from copy to copy, but with whether they fit the file."""
    try:
        record = json.loads(path.read_bytes())
        status = path.with_suffix("").stat()
        fits = (status.st_ino, status.st_mtime_ns) == (record.pop("inode"), record.pop("mtime_ns"))
        return f"{fits} {sorted(record.items())}".encode()
    except (OSError, ValueError):
        return path.read_bytes()


def _stable_name(path: str) -> str:
    return "/".join(part.split("-", 3)[-1] if part.startswith(".tmp-") else part for part in path.split("/"))


class Campaign(NamedTuple):
    """What a campaign did."""

    points: int
    calls: int
    changes: int
    covered: int
    """Changes before which a kill leaves a state that was tried."""
    distinct: int
    outcomes: dict[str, int]


def campaigns(home: Path, scene: str, *kinds: str) -> list[Campaign]:
    """Carry out every fault of each of the `kinds` in the build of `scene` and assert what must hold after each.

    scene: "first" (nothing there yet) or "next" (a tile was added). kinds: "kill", "kill-some", "fail", "fail-some".
    """
    prepared = _prepare(home, scene, look=any(kind.startswith("kill") for kind in kinds))
    return [_campaign(home, scene, kind, *prepared) for kind in kinds]


def _campaign(
    home: Path, scene: str, kind: str, cache: Path, expected: dict[str, bytes | str], undisturbed: faults.Ended
) -> Campaign:
    calls = undisturbed.calls
    chosen, outcomes, seen = CHOICES[kind](undisturbed), Counter[str](), set[str]()
    for fault in chosen:
        scratch = _restored(home, cache)
        ended = faults.run(lambda scratch=scratch: build(scratch), scratch, fault)
        what = (fault, calls[fault.at])
        assert ended.killed is (not fault.how.startswith("E")), (what, ended)
        outcomes[_outcome(ended, what)] += 1
        assert whole(scratch) == [], what
        assert scene == "first" or os.path.lexists(scratch / "current"), what
        if (state := state_of(scratch)) not in seen:
            seen.add(state)
            _converges(scratch, expected, what, report_too=calls[fault.at].changes)
    changes = [number for number, call in enumerate(calls) if call.changes]
    return Campaign(len(chosen), len(calls), len(changes), _covered(undisturbed, chosen), len(seen), dict(outcomes))


def _covered(undisturbed: faults.Ended, chosen: list[faults.Fault]) -> int:
    """Count the changes before which a kill leaves a state that was tried."""
    tried = {undisturbed.seen[fault.at] for fault in chosen if fault.how == "before"}
    states = zip(undisturbed.calls, undisturbed.seen, strict=bool(tried))
    return sum(call.changes and state in tried for call, state in states)


def _prepare(home: Path, scene: str, *, look: bool) -> tuple[Path, dict[str, bytes | str], faults.Ended]:
    """Return the cache before the build of `scene`, what it must publish, and the build without a fault.

    look: with the state before each change, by which kills are chosen.
    """
    cache = new_world(home / "world")
    if scene == "next":
        assert faults.run(lambda: build(cache), cache).value.outcome == "SUCCESS"
        put_tile(home / "world" / "tiles", 1, 1, seed=999)
    before = home / "world" / "before"
    shutil.move(cache, before)
    scratch = _restored(home, before)
    ended = faults.run(lambda: build(scratch), scratch, look=(lambda: state_of(scratch)) if look else None)
    assert ended.value is not None, ended.shown
    assert ended.value.outcome == "SUCCESS", ended.value
    return before, published(scratch), ended


def _restored(home: Path, before: Path) -> Path:
    """Put the cache back as it was, under the name that it always has."""
    scratch = home / "world" / "cache"
    faults.remove(scratch)
    return faults.copy_cache(before, scratch)


def _outcome(ended: faults.Ended, what: object) -> str:
    """Return how a build with a fault ended; anything but a known error with a next step is a failure of the test."""
    if ended.killed:
        return "killed"
    assert ended.error is None, (what, ended.shown)
    outcome: Outcome = ended.value
    if outcome.failure is None:
        return outcome.outcome
    assert "failed unexpectedly" not in outcome.failure.what, (what, outcome.said)
    assert outcome.failure.next_step, (what, outcome.failure)
    return type(outcome.failure).__name__


def decided(files: dict[str, bytes | str]) -> dict[str, object]:
    """What any two builds of one request have in common: all but the counter and the report of what changed."""
    document = manifest.parse(bytes(files["Manifest.json"]))
    same = {name: body for name, body in files.items() if not name.startswith(("Manifest.json", "report.html"))}
    return {
        **same,
        "hash": document.build.manifest_hash,
        "gates": document.gates,
        "tiles": document.tiles,
        "flight": document.flight,
    }


def _converges(cache: Path, expected: dict[str, bytes | str], what: object, *, report_too: bool) -> None:
    """Build again without a fault: no finished work is done twice, and every byte is as if nothing had happened.

    report_too: also in the report, which a build that could not read the generation before draws without comparison.
    """
    engines = finished_engines(cache)
    ended = faults.run(lambda: build(cache), cache)
    assert ended.value is not None, (what, ended.shown)
    assert ended.value.outcome in ("SUCCESS", "IDEMPOTENT_NO_OP"), (what, ended.value)
    assert not (engines and ended.value.engines_built), f"{what}: a finished engine was compiled again"
    assert decided(published(cache)) == decided(expected), what
    assert not report_too or published(cache) == expected, what
    assert whole(cache) == [], what
    assert leftovers(cache) == [], what


def finished_engines(cache: Path) -> list[Path]:
    """Engines in the store that have a artifact record."""
    return [
        path
        for path in (cache / ".build" / "store").glob("*/*.engine")
        if path.with_name(path.name + ".record").exists()
    ]


SOME = 37
"""The bounded forms take one point in so many; the full ones, which take each, run with `-m slow`."""


def _some_kills(undisturbed: faults.Ended) -> list[faults.Fault]:
    """One in a few of the states that a kill can leave: before a change that the last one made a difference to, half a write.

    And always those behind a generation's name and behind `current`, where a wrong order shows. After a call is before
    the next one, and many a call (opening a lock file that is there, fsync) changes no state.
    """
    kills = faults.kills(undisturbed.calls)
    fresh = {state: number for number, state in reversed(list(enumerate(undisturbed.seen)))}
    states = [
        fault
        for fault in kills
        if fault.how == "half" or (fault.how == "before" and fresh[undisturbed.seen[fault.at]] == fault.at)
    ]
    moments = [number for number, call in enumerate(undisturbed.calls) if _publishes(call)]
    return [*states[::SOME], *(faults.Fault(number, "after") for number in moments), kills[-1]]


def _publishes(call: faults.Call) -> bool:
    """Whether a call gives a generation its name or lets `current` name it."""
    return call.name == "rename" and (call.what.endswith("-current") or call.what.startswith(".build/stage/0"))


def _some_failures(undisturbed: faults.Ended) -> list[faults.Fault]:
    """One error at one in a few changes, in turn; what only reads is left to the full form."""
    turns = ("ENOSPC", "EIO", "EACCES")
    changes = [number for number, call in enumerate(undisturbed.calls) if call.changes]
    return [faults.Fault(number, turns[turn % 3]) for turn, number in enumerate(changes[::SOME])]


CHOICES: dict[str, Callable[[faults.Ended], list[faults.Fault]]] = {
    "kill": lambda undisturbed: faults.kills(undisturbed.calls),
    "kill-some": _some_kills,
    "fail": lambda undisturbed: faults.failures(undisturbed.calls),
    "fail-some": _some_failures,
}
