"""What looking at unchanged tiles costs, beside tools that look at unchanged files, in one run on one tree.

    python bench/noop.py --tiles 10000 100000 1000000 --scratch /var/tmp/noop

What a whole `doit` costs beside bare doit is measured by `commands.py`. Every row is a fresh process, page cache warm:
processor time, the least of several runs; RSS is the largest of the process and its children. Tiles are
PNG files of 2 x 1 pixels, all different, a thousand rows to a column. Nothing outside --scratch is written, unless
--results names a file whose section `No-op` is then replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, ratio, replace_section, say_goal, used_s  # noqa: E402

Z, X0, Y0, ROWS = 20, 500_000, 400_000, 1000
DECODERS = [sys.executable, "-c", "import numpy, simplejpeg, PIL.Image"]
"""What one new tile cannot be decoded without, in a process that holds no secret."""


class Row(NamedTuple):
    """One measurement."""

    tiles: int
    what: str
    seconds: float
    rss_mb: float
    note: str = ""


def png(n: int) -> bytes:
    """Return a PNG of 2 x 1 pixels that differs for each `n` and is not of one colour, which would be no imagery."""
    colour = ((n + 1) * 0x9E3779B1 % (1 << 24)).to_bytes(3, "big")
    pixel = zlib.compress(b"\0" + colour + b"\xff" + bytes(255 - part for part in colour) + b"\xff", 1)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 6, 0, 0, 0)), (b"IDAT", pixel), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def addresses(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield n, x, y of each tile."""
    rows = min(ROWS, count)
    return ((n, X0 + n // rows, Y0 + n % rows) for n in range(count))


def make_tree(tree: Path, count: int) -> None:
    """Write the XYZ directory."""
    if tree.is_dir():
        return
    partial = tree.with_name(tree.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for n, x, y in addresses(count):
        column = partial / str(Z) / str(x)
        if n % min(ROWS, count) == 0:
            column.mkdir(parents=True)
        (column / f"{y}.png").write_bytes(png(n))
    partial.rename(tree)


def make_mbtiles(path: Path, count: int) -> None:
    """Write the same tiles as MBTiles."""
    if path.exists():
        return
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE metadata(name TEXT, value TEXT)")
        db.execute("CREATE TABLE tiles(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)")
        top = (1 << Z) - 1
        rows = ((Z, x, top - y, png(n)) for n, x, y in addresses(count))
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles(zoom_level, tile_column, tile_row)")
    db.close()


def flight_of(scratch: Path, source: Path, count: int, scan: str):
    """Return the flight whose area is exactly the tiles."""
    from provisioning.base.geometry.geo import tile_bounds_e7
    from provisioning.config import Area, BBox, Flight, Tiles, TileSource

    rows = min(ROWS, count)
    north_west, south_east = tile_bounds_e7(Z, X0, Y0), tile_bounds_e7(Z, X0 + (count - 1) // rows, Y0 + rows - 1)
    bbox = BBox(north_west.west, south_east.south, south_east.east, north_west.north)
    return Flight(
        root=scratch / f"cache-{source.suffix or '.xyz'}-{count}",
        area=Area(bbox=bbox, zooms=(Z,), min_coverage={Z: Decimal(0)}),
        tiles=Tiles(source=(TileSource(path=source, name="tiles"),), scan=scan, blank="keep"),
    )


def run_scan(scratch: Path, source: Path, count: int, mode: str) -> None:
    """Scan once, in this process: what the child processes of this benchmark do."""
    from provisioning.base.process.blas import begin_with_one_thread
    from provisioning.catalogue import scan

    begin_with_one_thread()  # as flightcache and doit do
    flight = flight_of(scratch, source, count, mode)
    flight.build_dir.mkdir(parents=True, exist_ok=True)
    start = used_s()
    corpus = scan(flight.selection, flight.build_dir)
    seconds = used_s() - start
    heavy = sorted({"numpy", "PIL", "simplejpeg", "onnxruntime", "faiss"} & set(sys.modules))
    assert corpus.count == count - corpus.removed, corpus
    print(json.dumps({"scan_s": seconds, "added": corpus.added, "imported": heavy, "sha256": corpus.coverage_sha256}))


def timed(command: list[str], *, cwd: Path | None = None, runs: int = 3) -> tuple[float, float, str]:
    """Return least processor seconds, largest RSS in MB and the fastest's output of `runs` fresh processes."""
    best, rss, best_out = float("inf"), 0.0, ""
    for _ in range(runs):
        with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            out = drain(process)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command} failed with {process.returncode}: {out}")
        seconds, rss = usage.ru_utime + usage.ru_stime, max(rss, usage.ru_maxrss / 1024)
        if seconds < best:
            best, best_out = seconds, out
    return best, rss, best_out


def drain(process: subprocess.Popen[bytes]) -> str:
    """Read all output and keep its end, so that no tool waits for a reader."""
    tail = b""
    assert process.stdout
    while block := process.stdout.read(1 << 20):
        tail = (tail + block)[-65536:]
    return tail.decode(errors="replace")


def child(args: argparse.Namespace, source: Path, count: int, mode: str) -> list[str]:
    """Return the command that scans in a fresh process."""
    fixed = ["--tiles", str(count), "--mode", mode, "--scratch", str(args.scratch)]
    return [sys.executable, __file__, "--scan", str(source), *fixed]


def scans(args: argparse.Namespace, count: int, tree: Path) -> Iterator[Row]:
    """Yield our own rows: first scan, no-op, one tile added, for each kind of store."""
    mbtiles, pmtiles = args.scratch / f"{count}.mbtiles", args.scratch / f"{count}.pmtiles"
    make_mbtiles(mbtiles, count)
    digests = set()
    for source in (tree, mbtiles, pmtiles):
        if source == pmtiles and not pmtiles.exists():
            # In a process of its own: a child's RSS as the kernel tells it is never below its parent's.
            subprocess.run([*child(args, tree, count, "stat"), "--archive", str(pmtiles)], check=True)
        name = source.suffix[1:] or "xyz"
        root = flight_of(args.scratch, source, count, "stat").root
        if not (args.keep and root.is_dir()):
            shutil.rmtree(root, ignore_errors=True)
            time.sleep(0.1)
            seconds, rss, _ = timed(child(args, source, count, "stat"), runs=1)
            yield Row(count, f"{name}: first scan", seconds, rss)
        _, _, out = timed(child(args, source, count, "stat"), runs=1)  # files too young at first are settled now
        digests.add(json.loads(out)["sha256"])
        if source == tree:
            yield from directory_rows(args, count, tree)
        else:
            yield no_op(f"{name}: no-op", count, timed(child(args, source, count, "stat"), runs=args.runs))
    assert len(digests) == 1, "the three stores must give one coverage_sha256"


def directory_rows(args: argparse.Namespace, count: int, tree: Path) -> Iterator[Row]:
    """Yield the rows of an XYZ directory; the scan of every file and find take turns, for the machine is noisy."""
    find = ["find", str(tree), "-type", "f", "-printf", "%p %s %T@ %i\\n"]
    turns = [(timed(find, runs=1), timed(child(args, tree, count, "stat"), runs=1)) for _ in range(args.runs)]
    finds, looks = zip(*turns, strict=True)
    yield Row(count, "find -type f -printf", min(finds)[0], max(row[1] for row in finds))
    row = no_op("xyz: no-op, scan = stat", count, min(looks))
    alone = [json.loads(look[2])["scan_s"] for look in looks]
    looked_for = [find[0] for find in finds]
    yield row._replace(note=f"{row.note}, {ratio(alone, looked_for)} of find's time in the same turn")
    against = median(mine / peer for mine, peer in zip(alone, looked_for, strict=True))
    say_goal(f"looking at {count:,} unchanged XYZ tiles, against `find`", against, most=1.5)
    yield one_added(args, count, tree)
    timed(child(args, tree, count, "dirs"), runs=1)  # another setting: written once
    yield no_op("xyz: no-op, scan = dirs", count, timed(child(args, tree, count, "dirs"), runs=args.runs))


def no_op(what: str, count: int, measured: tuple[float, float, str]) -> Row:
    """Return the row of a scan that found nothing new; it must not have imported anything heavy."""
    seconds, rss, out = measured
    said = json.loads(out)
    assert not said["imported"], said
    assert not said["added"], said
    return Row(count, what, seconds, rss, f"scan alone {said['scan_s']:.3f} s")


def one_added(args: argparse.Namespace, count: int, tree: Path) -> Row:
    """Take a tile away, scan, put it back: to the catalogue it is new. Each time beside a scan that finds nothing.

    It is one of the first column, one of the last, and so on by turns.
    """
    last, aside = X0 + (count - 1) // min(ROWS, count), args.scratch / "aside.png"
    again = child(args, tree, count, "stat")
    turns = []
    for n in range(args.runs):
        tile = tree / str(Z) / str(last if n % 2 else X0) / f"{Y0 + 7}.png"
        os.rename(tile, aside)
        timed(again, runs=1)
        os.rename(aside, tile)
        time.sleep(0.1)
        seconds, rss, out = timed(again, runs=1)
        assert json.loads(out)["added"] == 1, out
        time.sleep(0.1)
        timed(again, runs=1)  # the new tile was too young to be remembered
        _, _, looked = timed(again, runs=1)
        turns.append((json.loads(out)["scan_s"] - json.loads(looked)["scan_s"], seconds, rss))
    more = sorted(turn[0] for turn in turns)
    say_goal(f"finding and hashing one tile added to {count:,}, beside looking", median(more), most=0.1, unit="s")
    note = f"the scan takes {median(more):.3f} [{more[0]:.3f}–{more[-1]:.3f}] s more than one that finds nothing"
    note += f"; a bare process that imports the decoders takes {timed(DECODERS, runs=args.runs)[0]:.3f} s"
    return Row(count, "xyz: one tile added, scan = stat", *min(turns)[1:], note)


def peers(args: argparse.Namespace, count: int, tree: Path) -> Iterator[Row]:
    """Yield what other tools take to see that nothing has changed."""
    for tool, prepare in (("git", with_git), ("ninja", with_ninja), ("make", with_make), ("dvc", with_dvc)):
        if shutil.which(tool) and count <= (args.dvc_most if tool == "dvc" else sys.maxsize):
            yield prepare(args, count, tree)
        else:
            why = "not installed" if not shutil.which(tool) else f"left out above {args.dvc_most} tiles"
            print(f"# {tool}: {why}", flush=True)


def with_git(args: argparse.Namespace, count: int, tree: Path) -> Row:
    """Time `git status` on the tree, its index beside it."""
    options = ["-c", "core.fsync=none", "-c", "gc.auto=0"]
    git = ["git", f"--git-dir={args.scratch}/{count}.git", f"--work-tree={tree}", *options]
    if not (args.scratch / f"{count}.git" / "index").exists():
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "add", "-A", "."], check=True, cwd=tree, stderr=subprocess.DEVNULL)
    subprocess.run([*git, "status", "--porcelain"], check=True, cwd=tree, stdout=subprocess.DEVNULL)
    seconds, rss, _ = timed([*git, "status", "--porcelain"], cwd=tree, runs=args.runs)
    return Row(count, "git status", seconds, rss)


def files_of(count: int, tree: Path) -> Iterator[str]:
    """Yield every tile's path."""
    return (f"{tree}/{Z}/{x}/{y}.png" for _, x, y in addresses(count))


def with_ninja(args: argparse.Namespace, count: int, tree: Path) -> Row:
    """Time ninja with one target that depends on every tile."""
    folder = args.scratch / f"ninja-{count}"
    folder.mkdir(exist_ok=True)
    inputs = " $\n  ".join(files_of(count, tree))
    (folder / "build.ninja").write_text(f"rule stamp\n  command = touch $out\nbuild out: stamp | $\n  {inputs}\n")
    subprocess.run(["ninja"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds, rss, _ = timed(["ninja"], cwd=folder, runs=args.runs)
    return Row(count, "ninja, one target", seconds, rss)


def with_make(args: argparse.Namespace, count: int, tree: Path) -> Row:
    """Time make -r with one target that depends on every tile."""
    folder = args.scratch / f"make-{count}"
    folder.mkdir(exist_ok=True)
    inputs = " \\\n  ".join(files_of(count, tree))
    (folder / "Makefile").write_text(f"out: {inputs}\n\ttouch out\n")
    subprocess.run(["make", "-r"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds, rss, _ = timed(["make", "-r"], cwd=folder, runs=args.runs)
    return Row(count, "make -r, one target", seconds, rss)


def with_dvc(args: argparse.Namespace, count: int, tree: Path) -> Row:
    """Time `dvc status` of a directory that was added; hard links, so that no second copy is made."""
    folder = args.scratch / f"dvc-{count}"
    if not (folder / "tiles.dvc").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run(["cp", "-a", str(tree), "tiles"], cwd=folder, check=True)
        for command in (["init", "--no-scm", "-q"], ["config", "cache.type", "hardlink"], ["add", "-q", "tiles"]):
            subprocess.run(["dvc", *command], cwd=folder, check=True)
    subprocess.run(["dvc", "status", "-q"], cwd=folder, check=False)
    seconds, rss, _ = timed(["dvc", "status", "-q"], cwd=folder, runs=args.runs)
    return Row(count, "dvc status", seconds, rss)


def report(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| tiles | what | processor s | RSS MB | |", "|---:|---|---:|---:|---|"]
    lines += [f"| {r.tiles:,} | {r.what} | {r.seconds:.3f} | {r.rss_mb:.0f} | {r.note} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dvc-most", type=int, default=100_000)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--keep", action="store_true", help="use catalogues that are there: no first scans")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--archive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="stat", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.archive:
        from provisioning.catalogue import write_pmtiles

        flight = flight_of(args.scratch, args.scan, args.tiles[0], args.mode)
        write_pmtiles(flight.selection, flight.build_dir, args.archive)
    elif args.scan:
        run_scan(args.scratch, args.scan, args.tiles[0], args.mode)
    if args.archive or args.scan:
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for count in args.tiles:
        tree = args.scratch / f"{count}"
        make_tree(tree, count)
        for row in chain(scans(args, count, tree), peers(args, count, tree)):
            print(report([row]).splitlines()[-1], flush=True)
            rows.append(row)
    if args.results:
        command = f"`python bench/noop.py --tiles {' '.join(map(str, args.tiles))}`"
        text = "\n\n".join([command, machine(), report(rows)])
        replace_section(args.results, "No-op", text)
    print(f"# peak RSS of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
