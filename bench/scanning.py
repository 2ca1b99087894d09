"""What a tile costs when a container of many is scanned: first, untouched, touched, with one tile changed.

    python bench/scanning.py --scratch /tmp/scanning --tiles 48000

Two containers are scanned, one with a sixth of the tiles of the other: the difference of their times is what a tile
costs, what is left of the time is fixed (processes that are started, what they import, the catalogue opened). A tile's
cost is compared with its floor, found in the same way: the same bytes read and hashed with sqlite3 or os.pread and
hashlib alone. Processor time of a scan and of the processes that it starts, user and system, files in the page cache;
both by turns, the least of --runs, but one first scan.

JPEG of 256 pixels, a different picture each (half as many), are inspected as in a build; beside their floor stands
the decoder alone, which reads each tile to its end and gives an eighth of its size. PNG of one pixel show what a tile
costs beside its bytes. The changed tile has another length than it had.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.noop import Z, addresses, flight_of, png  # noqa: E402
from bench.results import machine, replace_section, say_goal, used_s  # noqa: E402

FLOOR, DECODER, CHANGED = "read and hash", "read, hash, decode an eighth", "one tile changed"
GOALS = {"first scan": 4.0, CHANGED: 1.5, "touched": 1.5}
KINDS = ("mbtiles", "pmtiles")
PR_SET_CHILD_SUBREAPER = 36
JPEG_SHARE = 2
FIELD = 3072
"""Side of the picture that JPEG tiles are cut from, pixels."""


def jpegs(quality: int = 80) -> Callable[[int], bytes]:
    """Return a function to tiles of 256 pixels, each another part of one rough landscape."""
    import numpy as np
    import simplejpeg
    from PIL import Image

    rng = np.random.default_rng(7)
    field = np.zeros((FIELD, FIELD, 3), np.float32)
    for side, levels in ((32, 60), (128, 35), (512, 20), (2048, 10)):
        rough = (rng.random((side, side, 3)) * 255).astype(np.uint8)
        grown = Image.fromarray(rough).resize((FIELD, FIELD), Image.Resampling.BICUBIC)
        field += (np.asarray(grown, np.float32) - 127) * (levels / 64)
    pixels = np.clip(field + 100, 0, 215).astype(np.uint8)

    def tile(n: int) -> bytes:
        own = np.random.default_rng(n)
        y, x = own.integers(0, FIELD - 256, 2).tolist()
        shades = own.integers(0, 41, (8, 1, 8, 1, 1), np.uint8)  # none looks like another
        cut = pixels[y : y + 256, x : x + 256].reshape(8, 32, 8, 32, 3) + shades
        data: bytes = simplejpeg.encode_jpeg(
            cut.reshape(256, 256, 3), quality=quality, colorspace="RGB", colorsubsampling="420"
        )
        return data

    return tile


def longer(data: bytes, count: int) -> bytes:
    """Return an image with so many bytes behind its end, which decoders pass over."""
    return data + bytes(count)


def make_mbtiles(path: Path, tile: Callable[[int], bytes], count: int) -> None:
    """Write tiles in the order of their numbers."""
    top = (1 << Z) - 1
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE metadata(name TEXT, value TEXT)")
        db.execute("CREATE TABLE tiles(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)")
        rows = ((Z, x, top - y, tile(n)) for n, x, y in addresses(count))
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles(zoom_level, tile_column, tile_row)")
    db.close()


def change_mbtiles(path: Path, data: bytes) -> None:
    """Put other bytes in place of the first tile."""
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tiles SET tile_data = ? WHERE rowid = 1", (data,))
    db.close()


def make_pmtiles(path: Path, count: int) -> None:
    """Write the tiles of the MBTiles file beside it, with the reference implementation."""
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    mbtiles = sqlite3.connect(path.with_suffix(".mbtiles"))
    with open(path, "wb") as stream, contextlib.closing(mbtiles):
        writer = Writer(stream)
        for tileid, n in sorted((zxy_to_tileid(Z, x, y), n) for n, x, y in addresses(count)):
            select = "SELECT tile_data FROM tiles WHERE rowid = ?"
            writer.write_tile(tileid, mbtiles.execute(select, (n + 1,)).fetchone()[0])
        corner = {f"{edge}_{angle}_e7": 0 for edge in ("min", "max", "center") for angle in ("lon", "lat")}
        header = {"tile_type": TileType.UNKNOWN, "tile_compression": Compression.NONE, "min_zoom": Z, "max_zoom": Z}
        writer.finalize({**header, **corner, "center_zoom": 0}, {})


def read_and_hash(path: Path) -> None:
    """The floor: every tile's bytes, read and hashed, and nothing else."""
    if path.suffix == ".mbtiles":
        for (data,) in sqlite3.connect(path).execute("SELECT tile_data FROM tiles"):
            hashlib.sha256(data).digest()
        return
    from provisioning.config import TileSource
    from provisioning.sources.containers.pmtiles import PMTiles

    store = PMTiles(TileSource(path=path))
    fd = os.open(path, os.O_RDONLY)
    for _, runs, lengths, offsets in store._directories(None):  # noqa: SLF001 - where the bytes lie
        for run, length, offset in zip(runs, lengths, offsets, strict=True):
            if run:
                hashlib.sha256(os.pread(fd, length, store.header.data_offset + offset)).digest()


def decode_eighths(path: Path) -> None:
    """The decoder alone: every JPEG of an MBTiles file read, hashed, and decoded in an eighth of its size."""
    import simplejpeg

    for (data,) in sqlite3.connect(path).execute("SELECT tile_data FROM tiles"):
        hashlib.sha256(data).digest()
        simplejpeg.decode_jpeg(data, min_height=32, min_width=32)


PEERS = {FLOOR: "floor", DECODER: "decode"}


def in_this_process(path: Path, count: int, what: str) -> None:
    """Do one of these and print the processor time it took."""
    from provisioning.base.process import workers
    from provisioning.base.process.blas import begin_with_one_thread

    begin_with_one_thread()
    from provisioning.catalogue import scan

    flight = asked(path.parent, path, count)
    flight.build_dir.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = used_s()
    other = {"floor": read_and_hash, "decode": decode_eighths}.get(what)
    _ = other(path) if other else scan(flight.selection, flight.build_dir)
    workers._close_server()  # noqa: SLF001 - whose processes are counted when they have ended
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    seconds = used_s() - before
    print(json.dumps({"seconds": seconds, "rss_mb": peak_mb()}))


def peak_mb() -> float:
    """Return the largest resident size of this process, without that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def asked(scratch: Path, path: Path, count: int):
    """Return the flight over the tiles of a store; imagery is looked at for blank tiles, pixels are not."""
    from dataclasses import replace

    flight = flight_of(scratch, path, count, "stat")
    return flight if path.stem == "png" else replace(flight, tiles=replace(flight.tiles, blank="hole"))


def processor_s(path: Path, count: int, what: str = "scan") -> tuple[float, float]:
    """Return processor time and RSS in MB of a fresh process."""
    time.sleep(0.05)  # a file must not be too young to be trusted
    command = [sys.executable, __file__, "--child", str(path), "--tiles", str(count), "--what", what]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return done["seconds"], done["rss_mb"]


class Store:
    """One container, with what it took: seconds and RSS in MB of each run, by what was done."""

    def __init__(self, folder: Path, name: str, tile: Callable[[int], bytes], count: int) -> None:
        self._folder, self._name, self._tile, self.count = folder, name, tile, count
        folder.mkdir()
        self._path = folder / f"{name}.{KINDS[0]}"
        self._changes = 0
        self.taken: dict[str, list[tuple[float, float]]] = {}
        make_mbtiles(self._path, tile, count)

    def begin(self, kind: str) -> None:
        """Make the container of another kind from the first one, and scan it for the first time."""
        self._path = self._folder / f"{self._name}.{kind}"
        if kind == "pmtiles":
            make_pmtiles(self._path, self.count)
        self.taken = {}
        self.run("first scan")

    def run(self, what: str) -> None:
        """Do something with it once more."""
        if what == "touched":
            os.utime(self._path)
        if what == CHANGED:
            self._changes += 1
            data = longer(self._tile(self.count + self._changes), self._changes)
            change_mbtiles(self._path.with_suffix(".mbtiles"), data)
            if self._path.suffix == ".pmtiles":
                make_pmtiles(self._path, self.count)
        self.taken.setdefault(what, []).append(processor_s(self._path, self.count, PEERS.get(what, "scan")))


def rows(stores: Sequence[Store], name: str, kind: str, runs: int) -> Iterator[str]:
    """Yield the lines of a small and a large container of one kind, which take turns."""
    small, large = stores
    for store in stores:
        store.begin(kind)
    for what in (FLOOR, *([DECODER] if (name, kind) == ("jpeg", "mbtiles") else []), "no-op", "touched", CHANGED):
        for store in [*stores] * runs:
            store.run(what)
    of = {what: min(taken)[0] for what, taken in large.taken.items()}
    more = large.count - small.count
    slopes = {what: (seconds - min(small.taken[what])[0]) / more for what, seconds in of.items()}
    title = f"{name}, {kind}, {small.count:,} and {large.count:,}"
    for what in sorted(slopes, key=lambda what: what not in PEERS):
        goal, times = GOALS.get(what), slopes[what] / slopes[FLOOR]
        if goal and name == "jpeg":
            say_goal(f"JPEG in {kind}: {what}, a tile, against reading and hashing it", times, most=goal)
        met = f"{goal} | {'met' if times <= goal else 'missed'}" if goal else " | "
        rss = max(rss for _, rss in large.taken[what])
        fixed = of[what] - slopes[what] * large.count
        yield f"| {title} | {what} ({rss:.0f} MB) | {fixed:.2f} | {1e6 * slopes[what]:.1f} | {times:.2f} | {met} |"
        title = ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=48_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--what", default="scan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        in_this_process(args.child, args.tiles, args.what)
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    lines = ["| store, tiles | what | fixed, s | µs a tile | against the floor | goal | |"]
    lines += ["|---|---|---:|---:|---:|---:|---|"]
    for name, tile, many in (("png", png, args.tiles), ("jpeg", jpegs(), args.tiles // JPEG_SHARE)):
        stores = [Store(args.scratch / f"{name}-{count}", name, tile, count) for count in (many // 6, many)]
        for kind in KINDS:
            found = list(rows(stores, name, kind, args.runs))
            print("\n".join(found), flush=True)
            lines += found
        shutil.rmtree(args.scratch)
        args.scratch.mkdir()
    text = "\n".join([f"`python bench/scanning.py --tiles {args.tiles}`\n\n{machine()}; processor time\n", *lines])
    if args.results:
        replace_section(args.results, "Scanning a container", text)


if __name__ == "__main__":
    main()
