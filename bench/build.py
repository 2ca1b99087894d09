"""What a whole build costs: the first, one with one tile more, one with 1 % more, one with nothing to do.

    python bench/build.py --side 24 --scratch /var/tmp/build

A square of synthetic tiles and the built-in backbone through `doit`, each a fresh process as a user starts it; the
raw network's rate on the same tiles is taken in the same run, so that tiles a second can be given as a share of it.
The gates are measured alone, in processor time of `doit gates` and its processes above one that finds nothing to do.
Nothing outside --scratch is written, unless --results names a file whose section `Whole build` is then replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.results import machine, replace_section, say_goal  # noqa: E402
from provisioning.engines import OnnxRuntime  # noqa: E402
from tests.building import NORTH, WEST, new_cache, put_tile  # noqa: E402


class Row(NamedTuple):
    """One build: wall seconds, descriptors computed, largest RSS of doit or a child."""

    what: str
    seconds: float
    descriptors: int
    rss_mb: float


def doit(cache: Path, what: str) -> Row:
    """Run `doit` in a fresh process and return what it took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "doit"], cwd=cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{what}: doit ended with {process.returncode}")
    report = json.loads((cache / ".build" / "build-report.json").read_text())
    return Row(what, seconds, report["descriptors_generated"], usage.ru_maxrss / 1024)


def gates_s(cache: Path) -> float:
    """Return the processor seconds that the gates take where nothing of them is kept, beyond looking at them."""
    looked = processor_s(cache, "gates")
    build = cache / ".build"
    for path in (*build.glob("store/*/gates.json"), *build.glob("store/*/gates.json.record")):
        path.unlink()
    shutil.rmtree(build / "gates")
    return processor_s(cache, "gates") - looked


def processor_s(cache: Path, task: str) -> float:
    """Return the processor seconds of `doit TASK` and its processes, user and system."""
    with subprocess.Popen([sys.executable, "-m", "doit", task], cwd=cache, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"doit {task} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def best(cache: Path, what: str, rounds: int) -> Row:
    """Return the quickest of some runs."""
    return min((doit(cache, what) for _ in range(rounds)), key=lambda row: row.seconds)


def raw_rate(cache: Path) -> float:
    """Return tiles a second of the engine alone, one caller per core, on images already fitted."""
    engine = next((cache / "current").resolve().glob("*.engine")).read_bytes()
    network = OnnxRuntime().load(engine)
    images = np.zeros((8, *network.size, 3), np.uint8)
    cores = len(os.sched_getaffinity(0))

    def call(_: int) -> int:
        mine = network.clone()
        for _ in range(20):
            mine(images)
        return 160

    with ThreadPoolExecutor(cores) as pool:
        started = time.perf_counter()
        tiles = sum(pool.map(call, range(cores)))
        return tiles / (time.perf_counter() - started)


def measure(scratch: Path, side: int) -> tuple[list[Row], float]:
    """Return the rows of the table and the raw rate."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    cache = new_cache(scratch, side=side)
    lacking = [(x, y) for x in range(side) for y in range(side)][: 1 + max(1, side * side // 100)]
    images = {at: scratch / "tiles" / "14" / str(WEST + at[0]) / f"{NORTH + at[1]}.jpg" for at in lacking}
    for path in images.values():
        path.unlink()
    text = (cache / "flight.toml").read_text()
    (cache / "flight.toml").write_text(text.replace("# min_coverage = {}", 'min_coverage = {"14" = 0.5}'))
    rows = [doit(cache, f"first build, {side * side - len(lacking)} tiles")]
    rows.append(best(cache, "nothing to do", 5))
    put_tile(scratch / "tiles", WEST + lacking[0][0], NORTH + lacking[0][1], seed=1)
    rows.append(doit(cache, "1 tile more"))
    for n, (x, y) in enumerate(lacking[1:]):
        put_tile(scratch / "tiles", WEST + x, NORTH + y, seed=1000 + n)
    rows.append(doit(cache, f"1 % more ({len(lacking) - 1} tiles)"))
    say_goal(f"gates of {side * side} tiles, nothing of them kept, processor time", gates_s(cache), most=2, unit="s")
    return rows, raw_rate(cache)


def table(rows: list[Row], rate: float, side: int) -> str:
    lines = [
        "| build | s | descriptors | RSS MB | times a no-op |",
        "|---|---|---|---|---|",
        *(
            f"| {r.what} | {r.seconds:.2f} | {r.descriptors} | {r.rss_mb:.0f} | {r.seconds / rows[1].seconds:.1f} |"
            for r in rows
        ),
    ]
    first = rows[0]
    how = (
        f"`python bench/build.py --side {side}` on {machine()}. The engine alone: {rate:.0f} tiles/s; the first build, "
        f"with everything around it: {first.descriptors / first.seconds:.0f} tiles/s."
    )
    return "\n".join([how, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=24, help="tiles on a side of the square")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    text = table(*measure(args.scratch, args.side), args.side)
    print(text)
    shutil.rmtree(args.scratch)
    if args.results:
        replace_section(args.results, "Whole build", text)


if __name__ == "__main__":
    main()
