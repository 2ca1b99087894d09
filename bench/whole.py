"""What a whole `doit` with nothing to do costs, ten tiles beside very many.

    python bench/whole.py --tiles 1000000 --scratch /var/tmp/whole

Caches of the same tiles as in `noop.py`, as an XYZ directory (`scan = "dirs"`), MBTiles and PMTiles, and one of ten
tiles, each built once with a network of six outputs and one descriptor store; then `doit` again, the caches taking
turns. Every run is a fresh process as a user starts it; the least of several counts. Nothing outside --scratch is
written, unless --results names a file whose section `Whole no-op` is then replaced.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.noop import make_mbtiles, make_tree  # noqa: E402
from bench.results import machine, replace_section, say_goal  # noqa: E402
from bench.verify import peak_mib  # noqa: E402
from provisioning.catalogue import scan, write_pmtiles  # noqa: E402
from provisioning.cli.begin.init import create_cache  # noqa: E402
from provisioning.config.parse import read_flight  # noqa: E402
from provisioning.flight.signing import generate_key  # noqa: E402
from tests import building, models, networks  # noqa: E402


class Run(NamedTuple):
    """One `doit`: wall and processor seconds, peak RSS in MiB."""

    seconds: float
    cpu_s: float
    rss_mib: float


def doit(cache: Path) -> Run:
    """Run `doit` in a fresh process."""
    started = time.perf_counter()
    before, peak = os.times(), 0.0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "doit"], cwd=cache, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(0.005)
        seconds, after = time.perf_counter() - started, os.times()
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{cache}: doit ended with {process.returncode}:\n{said.read()}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(seconds, cpu_s, peak)


def made(scratch: Path, name: str, tiles: Path) -> Path:
    """Return a cache of `tiles`, made and built unless it is there."""
    cache = scratch / name
    if not cache.is_dir():
        create_cache(cache, tiles=tiles, backbone=scratch / "model.onnx", key=scratch / "key.pem", flight_id="F-1")
        building.edit(cache, '# scan = "stat"', 'scan = "dirs"')
        for gate in ("index_recall", "recognition"):
            set_key(cache, gate, "0.0")  # tiles of one pixel are no imagery
        set_key(cache, "max_degenerate", "1.0")
        set_key(cache, "store", '"../descriptors"')
    built = doit(cache)
    print(f"# {name}: built in {built.seconds:.1f} s, {built.rss_mib:.0f} MiB", flush=True)
    return cache


def set_key(cache: Path, key: str, value: str) -> None:
    """Set a key that flight.toml holds as a comment."""
    line = next(line for line in (cache / "flight.toml").read_text().splitlines() if line.startswith(f"# {key} = "))
    building.edit(cache, line, f"{key} = {value}")


def ten_tiles(scratch: Path) -> Path:
    """Return the built cache of ten tiles; key.pem and model.onnx lie beside it."""
    if not (scratch / "key.pem").exists():
        generate_key(scratch / "key.pem", password=None)
        networks.save(models.linear(), scratch / "model.onnx")
    make_tree(scratch / "ten", 10)
    return made(scratch, "cache-10", scratch / "ten")


def caches(scratch: Path, count: int) -> dict[str, Path]:
    """Return the built caches by what they hold; their tiles are made first."""
    found = {"10, xyz": ten_tiles(scratch)}
    make_tree(scratch / str(count), count)
    make_mbtiles(scratch / f"{count}.mbtiles", count)
    found[f"{count:,}, xyz, scan = dirs"] = made(scratch, f"cache-{count}", scratch / str(count))
    archive = scratch / f"{count}.pmtiles"
    if not archive.exists():
        flight = read_flight(scratch / f"cache-{count}")
        scan(flight.selection, flight.build_dir)
        write_pmtiles(flight.selection, flight.build_dir, archive)
    for kind in ("mbtiles", "pmtiles"):
        found[f"{count:,}, {kind}"] = made(scratch, f"cache-{count}-{kind}", scratch / f"{count}.{kind}")
    return found


def measure(scratch: Path, count: int, rounds: int) -> dict[str, Run]:
    """Return the least of what each cache took, in turns."""
    runs: dict[str, list[Run]] = {}
    there = caches(scratch, count)
    for _ in range(rounds):
        for name, cache in there.items():
            runs.setdefault(name, []).append(doit(cache))
    return {name: Run(*map(min, zip(*each, strict=True))) for name, each in runs.items()}


def table(measured: dict[str, Run]) -> str:
    """Return the rows as a Markdown table, each with its ratio to the first."""
    least = next(iter(measured.values()))
    lines = ["| tiles | `doit`, s | against 10 tiles | processor s | RSS MiB |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {name} | {run.seconds:.2f} | {run.seconds / least.seconds:.2f} | {run.cpu_s:.2f} | {run.rss_mib:.0f} |"
        for name, run in measured.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    measured = measure(args.scratch, args.tiles, args.rounds)
    text = table(measured)
    print(text)
    ten, *others = (run.cpu_s for run in measured.values())
    say_goal(
        f"`doit` with nothing to do at {args.tiles:,} tiles, against 10, processor time", max(others) / ten, most=2
    )
    if args.results:
        head = f"`python bench/whole.py --tiles {args.tiles}`\n\n{machine()}, least of {args.rounds}"
        replace_section(args.results, "Whole no-op", f"{head}\n\n{text}")


if __name__ == "__main__":
    main()
