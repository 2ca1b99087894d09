"""What an index costs and what it finds: against copying its bytes, against plain FAISS, against exact search.

    python bench/index.py --vectors 10000 100000 --dimension 512 --scratch /var/tmp/index
    python bench/index.py --vectors 1000000 --scratch /var/tmp/index        # about 10 GB of disk, 15 minutes
    python bench/index.py --autofaiss VENV/bin/python --scratch /var/tmp/index   # a Python that imports autofaiss

The floor of a build is reading its descriptors (a .npy file, page cache warm) and writing as many bytes as the index
has. Subject, floor and plain FAISS (`add_with_ids` + `write_index` of the same kind) are timed alternately; told are
median and range of the rounds' ratios, then the median in CPU time. Memory is the growth of anonymous RSS in a fresh
process. Descriptors are synthetic: a random smooth field over a map, normalised, as overlapping views of terrain would
give; a query is the field at an off-grid position, through another "camera" (a fixed linear change) and with noise,
never a database vector. A place is found if the answer lies within half a cell. Recalls rank the kinds; they are not
those of your imagery: `flightcache evaluate` measures that. Nothing outside --scratch is written, unless --results
names a file whose section `Index` is then replaced.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from provisioning.index.memo import History  # noqa: E402
from provisioning.index.training import Training  # noqa: E402

from bench.results import machine, ratio, replace_section  # noqa: E402
from provisioning.config.schema import Index  # noqa: E402
from provisioning.index import choose_kind  # noqa: E402
from provisioning.index.build import build_index  # noqa: E402
from provisioning.index.choice import HRQ_COMPONENTS  # noqa: E402
from provisioning.index.read import load_index, search  # noqa: E402

KINDS = ("flat", "sqfp16", "sq8", "hrq", "ivf-sq8")
QUERIES = 1000
PLAIN = {"flat": "Flat", "sqfp16": "SQfp16", "sq8": "SQ8"}


class Row(NamedTuple):
    """One kind at one size. `floor_s` is wall time; `build` and `plain` are told as `over` tells them."""

    vectors: int
    dimension: int
    kind: str
    floor_s: float
    build: str
    plain: str
    delta: float
    rss_mb: int
    load: float
    query_ms: float
    recall_1: float
    recall_10: float
    place_1: float


class Field:
    """Descriptors over a square map of cells: sums of waves of many scales, one mixture for each component."""

    def __init__(self, vectors: int, dimension: int) -> None:
        rng = np.random.Generator(np.random.PCG64(3))
        self.side = int(np.ceil(np.sqrt(vectors)))
        waves = 256
        scale = 2.0 ** rng.uniform(0.5, 7, waves)
        angle = rng.uniform(0, 2 * np.pi, waves)
        self.wave = (2 * np.pi / scale * np.stack([np.cos(angle), np.sin(angle)])).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
        self.mix = (rng.standard_normal((waves, dimension)) * (scale**0.25)[:, None]).astype(np.float32)
        self.cone = (0.5 * np.sqrt(waves) * rng.standard_normal(dimension)).astype(np.float32)
        self.camera = (0.06 * rng.standard_normal((dimension, dimension)) / np.sqrt(dimension) * 4).astype(np.float32)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return unit descriptors float32 [n, d] at map places [n, 2]."""
        seen = np.cos(places.astype(np.float32) @ self.wave + self.phase) @ self.mix + self.cone
        return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """Return the places of rows."""
        return np.stack([rows // self.side, rows % self.side], axis=1)

    def queries(self, vectors: int) -> tuple[np.ndarray, np.ndarray]:
        """Return queries float32 [q, d] and the places they show."""
        rng = np.random.Generator(np.random.PCG64(4))
        places = self.cells(rng.integers(0, vectors, QUERIES)) + rng.uniform(-0.5, 0.5, (QUERIES, 2))
        seen = self.at(places)
        seen = seen + seen @ self.camera + 0.25 / np.sqrt(seen.shape[1]) * rng.standard_normal(seen.shape)
        return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32), places


def descriptors(path: Path, field: Field, vectors: int, dimension: int) -> np.ndarray:
    """Return the descriptors, made once and mapped."""
    if not path.exists():
        rows = np.lib.format.open_memmap(path, "w+", np.float32, (vectors, dimension))
        for start in range(0, vectors, 8192):
            part = np.arange(start, min(start + 8192, vectors))
            rows[start : start + len(part)] = field.at(field.cells(part))
        rows.flush()
        del rows
    return np.load(path, mmap_mode="r")


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def both(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds; on a busy machine the second tells more."""
    start = time.process_time()
    wall = seconds(call)
    return wall, time.process_time() - start


def over(subject: list[tuple[float, float]], floor: list[tuple[float, float]]) -> str:
    """Return the ratios of the rounds, taken in turns: wall time, median and range; CPU time, median."""
    if not subject:
        return "–"
    wall = ratio([each[0] for each in subject], [each[0] for each in floor], 1)
    cpu = median(mine[1] / max(least[1], 1e-4) for mine, least in zip(subject, floor, strict=True))
    return f"{wall} / {cpu:.1f}"


def read_and_write(path: Path, size: int, output: Path) -> None:
    """The floor: read every byte of the file of descriptors, write `size` bytes."""
    block, left = memoryview(bytearray(1 << 20)), size
    with open(path, "rb", buffering=0) as source, open(output, "wb", buffering=0) as file:
        while got := source.readinto(block):
            left -= file.write(block[: min(left, got)]) if left else 0
        while left > 0:
            left -= file.write(block[: min(left, len(block))])


def plain(rows: np.ndarray, ids: np.ndarray, kind: str, output: Path) -> None:
    """What one writes without this project: everything in memory, then write_index."""
    held = np.load(rows.filename) if isinstance(rows, np.memmap) else rows
    inner = faiss.index_factory(rows.shape[1], PLAIN[kind], faiss.METRIC_INNER_PRODUCT)
    inner.train(held[: 1 << 14])
    index = faiss.IndexIDMap2(inner)
    index.add_with_ids(held, ids)
    faiss.write_index(index, str(output))


def anonymous_mb() -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) >> 10


def peak_growth_mb(call: Callable[[], object]) -> int:
    """Return by how many MiB anonymous memory grew at most while `call` ran."""
    before, peak, stop = anonymous_mb(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    stop.set()
    watcher.join()
    return peak[0] - before


def builder(rows: np.ndarray, ids: np.ndarray, kind: str) -> Callable[..., object]:
    choice = choose_kind(Index(kind=kind, memory_mb=1 << 20), vectors=len(rows), dimension=rows.shape[1])
    return lambda output, which=slice(None), history=None: build_index(
        choice, ids[which], lambda each: np.ascontiguousarray(rows[which][each]), output, history=history
    )


def ids_of(vectors: int) -> np.ndarray:
    return np.arange(vectors, dtype=np.int64) << 14


def delta(rows: np.ndarray, ids: np.ndarray, kind: str, scratch: Path) -> tuple[float, float]:
    """Return seconds of a clean build and of one that adds 1 % to a build before."""
    build, count = builder(rows, ids, kind), len(rows)
    content = np.frombuffer(hashlib.shake_128(b"content").digest(16 * count), np.uint8).reshape(count, 16)
    old = np.flatnonzero(np.arange(count) % 100 != 50)
    training = Training("old", len(old), builder_lists(kind, count), "keys")
    kept = rows[old] if kind == "ivf-sq8" and count <= 200_000 else None
    source = rows if kept is None else None
    known = History(scratch / "memory", "keys", content[old], "old", training)
    choice = choose_kind(Index(kind=kind, memory_mb=1 << 20), vectors=count, dimension=rows.shape[1])

    def first(output: Path) -> None:
        gather = (
            (lambda each: kept[each]) if kept is not None else (lambda each: np.ascontiguousarray(source[old[each]]))
        )
        build_index(choice, ids[old], gather, output, history=known)

    clean_s = seconds(lambda: first(scratch / "first"))
    os.unlink(scratch / "first")
    more = History(scratch / "memory", "keys", content, "new", training)
    grown_s = seconds(lambda: build(scratch / "grown", history=more))
    os.unlink(scratch / "grown")
    return clean_s, grown_s


def builder_lists(kind: str, count: int) -> int:
    return choose_kind(Index(kind=kind, memory_mb=1 << 20), vectors=count, dimension=8).nlist


def load_ratio(path: Path) -> float:
    """Return reading, hashing and loading, divided by reading and hashing alone."""

    def verified() -> bytes:
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        return data

    rounds = [(seconds(verified), seconds(lambda: load_index(verified()))) for _ in range(4)]
    return min(r[1] for r in rounds) / min(r[0] for r in rounds)


def quality(
    index: object, rows: np.ndarray, field: Field, found_exactly: np.ndarray, *, shift: int = 14
) -> tuple[float, ...]:
    """Return ms per query on one thread, recall@1, recall@10 and place@1."""
    queries, places = field.queries(len(rows))
    faiss.omp_set_num_threads(1)
    some = min(QUERIES, max(20, 2 * 10**9 // rows.size))
    times = sorted(seconds(lambda q=q: search(index, queries[q : q + 1], 10)) for q in range(some))
    faiss.omp_set_num_threads(2)
    found = search(index, queries, 10)[1] >> shift
    near = np.abs(field.cells(found[:, 0]) - places).max(axis=1) <= 0.5
    same = (found[:, :, None] == found_exactly[:, None, :]).any(axis=2)
    return (
        times[len(times) // 2] * 1000,
        float((found[:, 0] == found_exactly[:, 0]).mean()),
        float(same.mean()),
        float(near.mean()),
    )


def exact(rows: np.ndarray, field: Field) -> np.ndarray:
    """Return the ten exact neighbours of each query, row numbers [q, 10]."""
    queries, _ = field.queries(len(rows))
    scores, best = np.full((QUERIES, 0), 0, np.float32), np.empty((QUERIES, 0), np.int64)
    for start in range(0, len(rows), 8192):
        part = queries @ np.ascontiguousarray(rows[start : start + 8192]).T
        scores = np.concatenate([scores, part], axis=1)
        best = np.concatenate([best, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return best


def measure(vectors: int, dimension: int, kinds: list[str], scratch: Path, rounds: int) -> Iterator[Row]:
    """Yield one row for each kind."""
    field = Field(vectors, dimension)
    path = scratch / f"{vectors}x{dimension}.npy"
    rows, ids = descriptors(path, field, vectors, dimension), ids_of(vectors)
    truth = exact(rows, field)
    for kind in kinds:
        if kind == "hrq" and dimension > HRQ_COMPONENTS:
            continue
        output = scratch / "index"
        told = (str(path), kind, str(output))
        apart = subprocess.run([sys.executable, __file__, "--apart", *told], capture_output=True, text=True, check=True)
        rss, *alone = (float(word) for word in apart.stdout.split())
        timed = rounds_of(rows, ids, kind, scratch, 1 if kind == "ivf-sq8" else rounds)
        clean_s, grown_s = delta(rows, ids, kind, scratch)
        built = over(timed["build"] or [(alone[0], alone[1])], timed["floor"])
        measured = quality(load_index(output.read_bytes()), rows, field, truth)
        costs = built, over(timed["plain"], timed["floor"]), grown_s / clean_s, int(rss), load_ratio(output)
        yield Row(vectors, dimension, kind, min(timed["floor"])[0], *costs, *measured)  # type: ignore[arg-type]


def rounds_of(
    rows: np.ndarray, ids: np.ndarray, kind: str, scratch: Path, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of floor, build and plain FAISS, taken in turn; ivf-sq8, which learns for minutes, once."""
    timed: dict[str, list[tuple[float, float]]] = {"floor": [], "build": [], "plain": []}
    output, build = scratch / "index", builder(rows, ids, kind)
    size = output.stat().st_size
    for _ in range(rounds):
        timed["floor"].append(both(lambda: read_and_write(Path(rows.filename), size, scratch / "copy")))
        if kind != "ivf-sq8":
            timed["build"].append(both(lambda: build(output)))
        if kind in PLAIN:
            timed["plain"].append(both(lambda: plain(rows, ids, kind, scratch / "plain")))
    return timed


AUTOFAISS = """
import sys, time
import autofaiss, numpy
rows = numpy.load(sys.argv[1])
started = time.perf_counter()
autofaiss.build_index(embeddings=rows, index_path=sys.argv[2], index_infos_path=sys.argv[2] + ".json", metric_type="ip",
                      max_index_memory_usage="4GB", current_memory_available="8GB", nb_cores=2, verbose=40)
print(time.perf_counter() - started, autofaiss.__version__)
"""


def autofaiss(python: Path, vectors: int, dimension: int, scratch: Path, rounds: int) -> str:
    """Return what autofaiss and `kind = "auto"` take and find, in turns, both from a .npy file to a file."""
    field, path = Field(vectors, dimension), scratch / f"{vectors}x{dimension}.npy"
    rows, ids = descriptors(path, field, vectors, dimension), ids_of(vectors)
    theirs, ours = scratch / "autofaiss", scratch / "index"
    their_s, our_s, version = [], [], ""
    for _ in range(rounds):
        command = [str(python), "-c", AUTOFAISS, str(path), str(theirs)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        took, version = said.split()
        their_s.append(float(took))
        our_s.append(seconds(lambda: builder(rows, ids, "auto")(ours)))
    truth, index = exact(rows, field), faiss.read_index(str(theirs))
    peer = quality(index, rows, field, truth, shift=0)
    found = quality(load_index(ours.read_bytes()), rows, field, truth)
    return (
        f"autofaiss {version}, {vectors:,} × {dimension}: {type(faiss.downcast_index(index)).__name__}, "
        f'{min(their_s):.2f} s, {ratio(their_s, our_s, 0)} times the {min(our_s):.3f} s of `kind = "auto"`. '
        f"R@10 {peer[2]:.3f} and {found[2]:.3f}, place@1 {peer[3]:.3f} and {found[3]:.3f}, "
        f"{peer[0]:.2f} and {found[0]:.2f} ms a query."
    )


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    names = ("N × d", "kind", "floor s", "build ÷ floor, wall / CPU", "plain FAISS ÷ floor, wall / CPU", "+1 % ÷ clean",
             "RSS MiB", "load ÷ SHA-256", "ms / query, 1 thread", "R@1", "R@10", "place@1")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [
        f"| {r.vectors:,} × {r.dimension} | {r.kind} | {r.floor_s:.3f} | {r.build} | {r.plain} | {r.delta:.2f} | "
        f"{r.rss_mb} | {r.load:.2f} | {r.query_ms:.2f} | {r.recall_1:.3f} | {r.recall_10:.3f} | {r.place_1:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


def told(rows: list[Row]) -> str:
    """Return the section for RESULTS.md."""
    core = os.environ.get("OPENBLAS_CORETYPE", "not set")
    command = f"python {' '.join(sys.argv)}"
    return f"`{command}` on {machine()}, faiss {faiss.__version__}, OPENBLAS_CORETYPE {core}\n\n{table(rows)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=[*KINDS, "hnsw-sq8"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp/flightcache-index"))
    parser.add_argument("--autofaiss", type=Path, metavar="PYTHON", help="a Python that imports autofaiss, as a peer")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--apart", nargs=3, metavar=("NPY", "KIND", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    faiss.omp_set_num_threads(2)
    if args.apart:
        rows, output = np.load(args.apart[0], mmap_mode="r"), Path(args.apart[2])
        builder(rows[:300], ids_of(300), args.apart[1])(output)
        build, spent = builder(rows, ids_of(len(rows)), args.apart[1]), []
        print(peak_growth_mb(lambda: spent.append(both(lambda: build(output)))), *spent[0])
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    found: list[Row] = []
    for vectors in args.vectors:
        for row in measure(vectors, args.dimension, args.kinds, args.scratch, args.rounds):
            found.append(row)
            print(row, flush=True)
    text = told(found)
    if args.autofaiss:
        sizes = [vectors for vectors in args.vectors if vectors <= 100_000]
        lines = [autofaiss(args.autofaiss, vectors, args.dimension, args.scratch, 3) for vectors in sizes]
        text += "\n" + "\n\n".join(lines) + "\n"
    else:
        text += "\nautofaiss was not measured: give --autofaiss.\n"
    print(text)
    if args.results:
        replace_section(args.results, "Index", text)


if __name__ == "__main__":
    main()
