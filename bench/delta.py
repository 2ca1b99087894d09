"""What a changed generation costs on the link: our deltas beside rsync and `zstd --patch-from`, file by file.

    python bench/delta.py --scratch /var/tmp/delta            # 50,000 vectors of 512, 2,000 tiles

The index is made as a build makes it, of bench/index.py's terrain; the archive holds JPEG tiles. In each a hundredth of
the rows or tiles is new, then a tenth, anywhere; then all are others of the same places: descriptors that differ in
their third digit, imagery compressed again. Shown is what crosses the link as a share of the new file, and processor
seconds of both ends: rsync's two processes, zstd's compressing and unpacking. A tool that is not installed is said.
Nothing outside --scratch is written, unless --results names a file whose section `Delta` is then replaced.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.index import Field, ids_of, unit  # noqa: E402
from bench.results import machine, replace_section, say_goal  # noqa: E402
from bench.scanning import jpegs  # noqa: E402
from provisioning.base.hashing import sha256_file  # noqa: E402
from provisioning.config.schema import Index  # noqa: E402
from provisioning.delivery.bundle.contents import Listed  # noqa: E402
from provisioning.delivery.bundle.delta import Base, Pieces, differences, rebuilt  # noqa: E402
from provisioning.index.write.build import build  # noqa: E402

KINDS = ("sqfp16", "sq8", "hrq")
CHANGES = {"1 % new": 100, "10 % new": 10, "all made again": 1}
"""Which one in so many is new."""
GOALS = {"1 % new": 1.5}


class Cost(NamedTuple):
    """Bytes that cross the link and processor seconds of both ends."""

    bytes: int
    seconds: float


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*words: str | Path) -> tuple[str, float]:
    """Return what a program wrote and the processor seconds it took."""
    before = children_s()
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout, children_s() - before


def ours(old: Path, new: Path, scratch: Path) -> Cost:
    """Make a delta, apply it, compare the file."""
    file = Listed(new.name, new.stat().st_size, sha256_file(new))
    fd = os.open(old, os.O_RDONLY)
    before = time.process_time()
    base = Base(fd, os.fstat(fd).st_size)
    with open(new, "rb") as source:
        pieces = [piece for _, piece in differences(source, base, file)]
    (scratch / "out").write_bytes(b"".join(rebuilt(Pieces(iter(pieces)), base, file)))
    took = time.process_time() - before
    os.close(fd)
    return _checked(new, scratch / "out", Cost(sum(map(len, pieces)), took))


def zstd(level: str, old: Path, new: Path, scratch: Path) -> Cost:
    """Compress against the old file and unpack."""
    patch, out = scratch / "patch", scratch / "out"
    (_, packed), (_, unpacked) = (
        run("zstd", "-qf", level, "--long=27", f"--patch-from={old}", new, "-o", patch),
        run("zstd", "-qdf", "--long=27", f"--patch-from={old}", patch, "-o", out),
    )
    return _checked(new, out, Cost(patch.stat().st_size, packed + unpacked))


def rsync(old: Path, new: Path, scratch: Path) -> Cost:
    """Bring a copy of the old file to the new one with rsync's own deltas."""
    out = scratch / "out"
    shutil.copyfile(old, out)
    said, took = run("rsync", "--no-whole-file", "--ignore-times", "--stats", new, out)
    sent = sum(int(each.replace(",", "")) for each in re.findall(r"Total bytes (?:sent|received): ([\d,]+)", said))
    return _checked(new, out, Cost(sent, took))


def _checked(new: Path, out: Path, cost: Cost) -> Cost:
    if new.read_bytes() != out.read_bytes():
        raise SystemExit(f"{out} is not {new}")
    return cost


TOOLS: dict[str, tuple[str, Callable[[Path, Path, Path], Cost]]] = {
    "flightcache": ("", ours),
    "rsync": ("rsync", rsync),
    "zstd -3": ("zstd", lambda *files: zstd("-3", *files)),
    "zstd -12": ("zstd", lambda *files: zstd("-12", *files)),
}


def index_pair(kind: str, vectors: int, one_in: int, folder: Path) -> tuple[Path, Path]:
    """Write an index before and after."""
    field = Field(vectors, 512)
    rows = np.concatenate([field.at(field.cells(part)) for part in np.array_split(np.arange(vectors), 32)])
    before, numbers = rows, np.arange(vectors)
    if one_in == 1:
        before = unit(rows + 0.002 * np.random.default_rng(1).standard_normal(rows.shape, np.float32))
    else:
        numbers = numbers[~_is_new(vectors, one_in)]
    old, new = folder / "old.index", folder / "new.index"
    for path, held, which in ((old, before, numbers), (new, rows, np.arange(vectors))):
        asked = Index(kind=kind, memory_mb=1 << 20)
        build(asked, ids_of(vectors)[which], lambda part, h=held, w=which: h[w[part]], path)
    return old, new


def tiles_pair(count: int, one_in: int, folder: Path) -> tuple[Path, Path]:
    """Write an archive of tiles before and after."""
    tile, again = jpegs(), jpegs(quality=82)
    is_new = _is_new(count, one_in)
    old, new = folder / "old.pmtiles", folder / "new.pmtiles"
    if one_in == 1:
        write_archive(old, [(n, again(n)) for n in range(count)])
    else:
        write_archive(old, [(n, tile(n)) for n in range(count) if not is_new[n]])
    write_archive(new, [(n, tile(n)) for n in range(count)])
    return old, new


def _is_new(count: int, one_in: int) -> np.ndarray:
    return np.random.default_rng(2).permutation(count) < count // one_in


def write_archive(path: Path, tiles: Sequence[tuple[int, bytes]]) -> None:
    """Write tiles in the order of their ids."""
    from pmtiles.tile import Compression, TileType
    from pmtiles.writer import Writer

    with open(path, "wb") as stream:
        writer = Writer(stream)
        for n, data in tiles:
            writer.write_tile((1 << 32) + n, data)
        corner = {f"{edge}_{angle}_e7": 0 for edge in ("min", "max", "center") for angle in ("lon", "lat")}
        header = {"tile_type": TileType.JPEG, "tile_compression": Compression.NONE, "min_zoom": 0, "max_zoom": 20}
        writer.finalize({**header, **corner, "center_zoom": 0}, {})


def rows(vectors: int, tiles: int, scratch: Path) -> Iterator[str]:
    """Yield a line for each file and change."""
    pairs: list[tuple[str, Callable[[int], tuple[Path, Path]]]] = [
        (f"index {kind}, {vectors:,} × 512", lambda one_in, k=kind: index_pair(k, vectors, one_in, scratch))
        for kind in KINDS
    ]
    pairs.append((f"tiles.pmtiles, {tiles:,}", lambda one_in: tiles_pair(tiles, one_in, scratch)))
    for name, make in pairs:
        for change, one_in in CHANGES.items():
            old, new = make(one_in)
            whole = new.stat().st_size
            costs = [
                tool(old, new, scratch) if not program or shutil.which(program) else None
                for program, tool in TOOLS.values()
            ]
            assert costs[0]
            goal, share = GOALS.get(change), 100 * costs[0].bytes / whole
            if goal:
                say_goal(f"{change} of {name}: share of the file that crosses the link", share, most=goal, unit="%")
            met = f"≤ {goal} % | {'met' if share <= goal else 'missed'}" if goal else " | "
            yield f"| {name} ({whole / 1e6:.1f} MB) | {change} | {' | '.join(_said(c, whole) for c in costs)} | {met} |"


def _said(cost: Cost | None, whole: int) -> str:
    return "not installed" if cost is None else f"{100 * cost.bytes / whole:.2f} %, {cost.seconds:.2f} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--tiles", type=int, default=2_000)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    lines = [f"| file | change | {' | '.join(TOOLS)} | goal | |", "|---|---|" + "---:|" * len(TOOLS) + "---:|---|"]
    print("\n".join(lines))
    for line in rows(args.vectors, args.tiles, args.scratch):
        print(line, flush=True)
        lines.append(line)
    versions = [run(tool, "--version")[0].splitlines()[0].strip() for tool in ("rsync", "zstd") if shutil.which(tool)]
    head = (
        f"`python bench/delta.py --vectors {args.vectors} --tiles {args.tiles}`\n\n{machine()}; {'; '.join(versions)}"
    )
    if args.results:
        replace_section(args.results, "Delta", f"{head}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
