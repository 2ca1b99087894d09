"""Scanning a container of many tiles: the first time, untouched, touched, with one tile changed; against its floor.

    python bench/scanning.py --scratch /tmp/scanning --tiles 100000

The floor reads and hashes the same bytes with sqlite3 or os.pread and hashlib alone. Processor time of a scan and of
the processes that it starts, user and system, files in the page cache, best of --runs; what this process imports is
left out, what those import (0.3 s in all) is not. JPEG of 256 pixels, a different picture each (a fifth as many), are
inspected as in a build; beside their floor stands the decoder alone, which reads each tile to its
end and gives an eighth of its size. PNG of one pixel show what a tile costs beside its bytes. The changed tile has
another length than it had.
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
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.noop import X0, Y0, Z, addresses, flight_of, png  # noqa: E402
from bench.results import machine, replace_section, say_goal, used_s  # noqa: E402

GOALS = {"first scan": 4.0, "one tile changed": 1.5, "touched": 1.5}
PR_SET_CHILD_SUBREAPER = 36
JPEG_SHARE = 5
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
    pixels = np.clip(field + 120, 20, 235).astype(np.uint8)

    def tile(n: int) -> bytes:
        own = np.random.default_rng(n)
        y, x = own.integers(0, FIELD - 256, 2).tolist()
        shades = np.kron(own.integers(-20, 21, (8, 8, 1)), np.ones((32, 32, 1), np.int16))  # none looks like another
        cut = np.clip(pixels[y : y + 256, x : x + 256] + shades, 0, 255).astype(np.uint8)
        data: bytes = simplejpeg.encode_jpeg(cut, quality=quality, colorspace="RGB", colorsubsampling="420")
        return data

    return tile


def longer(data: bytes, count: int) -> bytes:
    """Return an image with so many bytes behind its end, which decoders pass over."""
    return data + bytes(count)


def write_mbtiles(path: Path, tile: Callable[[int], bytes], count: int, changed: int) -> None:
    """Write the store anew, or change one tile of it where it lies."""
    top, first = (1 << Z) - 1, not path.exists()
    with sqlite3.connect(path) as db:
        if first:
            db.execute("CREATE TABLE metadata(name TEXT, value TEXT)")
            db.execute("CREATE TABLE tiles(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)")
            rows = ((Z, x, top - y, tile(n)) for n, x, y in addresses(count))
            db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
            db.execute("CREATE UNIQUE INDEX tile_index ON tiles(zoom_level, tile_column, tile_row)")
        else:
            where = "WHERE tile_column = ? AND tile_row = ?"
            db.execute(
                f"UPDATE tiles SET tile_data = ? {where}", (longer(tile(count + changed), changed), X0, top - Y0)
            )
    db.close()


def write_pmtiles(path: Path, tile: Callable[[int], bytes], count: int, changed: int) -> None:
    """Write the store with the reference implementation; `changed` makes its first tile another one."""
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    with open(path, "wb") as stream:
        writer = Writer(stream)
        for tileid, n in sorted((zxy_to_tileid(Z, x, y), n) for n, x, y in addresses(count)):
            writer.write_tile(tileid, longer(tile(count + changed), changed) if changed and n == 0 else tile(n))
        corner = {f"{edge}_{angle}_e7": 0 for edge in ("min", "max", "center") for angle in ("lon", "lat")}
        header = {"tile_type": TileType.UNKNOWN, "tile_compression": Compression.NONE, "min_zoom": Z, "max_zoom": Z}
        writer.finalize({**header, **corner, "center_zoom": 0}, {})


WRITERS = {"mbtiles": write_mbtiles, "pmtiles": write_pmtiles}


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


def in_this_process(path: Path, count: int, what: str) -> None:
    """Do one of these and print the processor time it took."""
    from provisioning.base.process import workers
    from provisioning.base.process.blas import begin_with_one_thread

    begin_with_one_thread()
    import numpy  # noqa: F401, ICN001 - imports are left out
    import simplejpeg  # noqa: F401
    from PIL import Image

    from provisioning.catalogue import scan

    Image.init()
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


def rows(scratch: Path, name: str, kind: str, tile: Callable[[int], bytes], count: int, runs: int) -> Iterator[str]:
    """Yield the lines of one store, and remove it."""
    path = scratch / f"{name}.{kind}"
    write = WRITERS[kind]
    write(path, tile, count, 0)
    cache = flight_of(scratch, path, count, "stat").root
    floors = [processor_s(path, count, "floor")[0] for _ in range(runs + 1)][1:]
    found: dict[str, list[tuple[float, float]]] = {"first scan": [], "no-op": [], "touched": [], "one tile changed": []}
    for n in range(runs):
        shutil.rmtree(cache, ignore_errors=True)
        found["first scan"].append(processor_s(path, count))
        found["no-op"].append(processor_s(path, count))
        os.utime(path)
        found["touched"].append(processor_s(path, count))
        write(path, tile, count, n + 1)
        found["one tile changed"].append(processor_s(path, count))
    floor = min(floors)
    yield f"| {name}, {kind}, {count:,} | read and hash | {1e6 * floor / count:.1f} | 1 | | |"
    if (name, kind) == ("jpeg", "mbtiles"):
        decoded = min(processor_s(path, count, "decode")[0] for _ in range(runs))
        yield f"| | read, hash, decode an eighth | {1e6 * decoded / count:.1f} | {decoded / floor:.2f} | | |"
    for what, taken in found.items():
        seconds, rss = min(taken)
        goal = GOALS.get(what)
        if goal and name == "jpeg":
            say_goal(f"{count:,} JPEG in {kind}: {what}, against reading and hashing", seconds / floor, most=goal)
        met = f"{goal} | {'met' if seconds <= goal * floor else 'missed'}" if goal else " | "
        yield f"| | {what} ({rss:.0f} MB) | {1e6 * seconds / count:.1f} | {seconds / floor:.2f} | {met} |"
    shutil.rmtree(cache)
    path.unlink()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--what", default="scan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        in_this_process(args.child, args.tiles, args.what)
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    lines = ["| store | what | µs a tile | against the floor | goal | |", "|---|---|---:|---:|---:|---|"]
    for name, tile, count in (("png", png, args.tiles), ("jpeg", jpegs(), args.tiles // JPEG_SHARE)):
        for kind in WRITERS:
            found = list(rows(args.scratch, name, kind, tile, count, args.runs))
            print("\n".join(found), flush=True)
            lines += found
    text = "\n".join([f"`python bench/scanning.py --tiles {args.tiles}`\n\n{machine()}; processor time\n", *lines])
    if args.results:
        replace_section(args.results, "Scanning a container", text)


if __name__ == "__main__":
    main()
