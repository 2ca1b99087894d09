"""What an index costs and what it finds: our kinds, and what else FAISS has, against exact search.

    python bench/index.py                                   # the quick form: 10,000 and 100,000 × 512
    python bench/index.py --vectors 1000000 --rounds 1      # about 10 GB of memory, 10 minutes
    python bench/index.py --autofaiss VENV/bin/python       # a Python that imports autofaiss, as a peer

Descriptors are made twice. `terrain`: a random smooth field over a map, as overlapping views of ground give; a query is
the field at an off-grid position, through another "camera" (a fixed linear change) and with noise, never a stored
vector; a place is found if the answer lies within half a cell. `noise`: directions at random, where the second to tenth
neighbour are no nearer than chance: the worst that codes can meet. Recalls rank the kinds; `flightcache evaluate`
measures those of your imagery.

All builds start from rows in memory and end with a file. Kinds of ours are timed in turns with plain FAISS (`add` and
`write_index` of the same kind); shown are median and range of the ratios, then the median in processor time. Memory is
the growth of anonymous RSS in a fresh process beyond the rows. Queries are single, on one thread. Nothing outside
--scratch is written, unless --results names a file whose section `Index` is then replaced.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from bench.results import machine, ratio, replace_section, say_goal  # noqa: E402
from provisioning.config.schema import Index  # noqa: E402
from provisioning.index.choice import HRQ_REFINE, rotated  # noqa: E402
from provisioning.index.read import load_index, search  # noqa: E402
from provisioning.index.write.build import build  # noqa: E402

QUERIES = 500
KINDS = {"flat": "Flat", "sqfp16": "SQfp16", "sq8": "SQ8", "hrq": "HR{p},RaBitQfs,Refine(SQ8)", "sq4": "SQ4"}
"""Our kinds and the same in FAISS's words; {p}: the next power of two, {n}: inverted lists, a quarter of them read."""
OTHERS = {
    "pca(256) + hrq": "PCA256,HR256,RaBitQfs,Refine(SQ8)",
    "RaBitQ, refined": "HR{p},RaBitQ,Refine(SQ8)",
    "RaBitQ fast scan": "HR{p},RaBitQfs",
    "RaBitQ, 4 bits": "HR{p},RaBitQ4",
    "IVF + RaBitQ, refined": "HR{p},IVF{n},RaBitQ,Refine(SQ8)",
    "IVF + RaBitQ fast scan, refined": "HR{p},IVF{n},RaBitQfs,Refine(SQ8)",
}


class Row(NamedTuple):
    """One kind at one size; a dash where a figure was not measured."""

    vectors: int
    dimension: int
    kind: str
    bytes_per_vector: float
    build_s: float
    over_plain: str
    rss_mb: str
    query_ms: float
    recall_1: float
    recall_10: float
    place_1: float
    noise_10: float


class Rows(NamedTuple):
    """Stored vectors float32 [n, d], queries float32 [q, d], and the ten exact neighbours of each, row numbers."""

    stored: np.ndarray
    queries: np.ndarray
    exact: np.ndarray


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


def with_truth(stored: np.ndarray, queries: np.ndarray) -> Rows:
    return Rows(stored, queries, faiss.knn(queries, stored, 10, metric=faiss.METRIC_INNER_PRODUCT)[1])


def terrain(field: Field, vectors: int) -> tuple[Rows, np.ndarray]:
    """Return the rows of a map, and the places that its queries show."""
    stored = np.empty((vectors, field.mix.shape[1]), np.float32)
    for start in range(0, vectors, 8192):
        part = np.arange(start, min(start + 8192, vectors))
        stored[part] = field.at(field.cells(part))
    queries, places = field.queries(vectors)
    return with_truth(stored, queries), places


def noise(vectors: int, dimension: int) -> Rows:
    """Return random directions, and queries as far from their row as its next neighbours."""
    rng = np.random.Generator(np.random.PCG64(5))
    stored = unit(rng.standard_normal((vectors, dimension), np.float32))
    near = stored[rng.integers(0, vectors, QUERIES)]
    blurred = near + rng.standard_normal((QUERIES, dimension), np.float32) / np.sqrt(dimension)
    return with_truth(stored, unit(blurred))


def unit(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def both(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds; on a busy machine the second tells more."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def read_and_write(path: Path, size: int, output: Path) -> None:
    """Read every byte of the file of descriptors and write `size` bytes: the floor of a build from files."""
    block, left = memoryview(bytearray(1 << 20)), size
    with open(path, "rb", buffering=0) as source, open(output, "wb", buffering=0) as file:
        while got := source.readinto(block):
            left -= file.write(block[: min(left, got)]) if left else 0
        while left > 0:
            left -= file.write(block[: min(left, len(block))])


def ids_of(vectors: int) -> np.ndarray:
    return np.arange(vectors, dtype=np.int64) << 14


def ours(rows: np.ndarray, kind: str, output: Path) -> None:
    build(Index(kind=kind, memory_mb=1 << 20), ids_of(len(rows)), rows.__getitem__, output)


def lists_for(vectors: int) -> int:
    """Return the usual number of inverted lists: the power of two nearest to 4·√n."""
    return 1 << round(np.log2(4 * np.sqrt(vectors)))


def plain(rows: np.ndarray, factory: str, output: Path) -> None:
    """Write what one writes without this project: train, add, write_index."""
    count, dimension = rows.shape
    lists = lists_for(count)
    inner = faiss.index_factory(dimension, factory.format(p=rotated(dimension), n=lists), faiss.METRIC_INNER_PRODUCT)
    inner.train(rows[:: max(1, count // (1 << 14))])
    index = faiss.IndexIDMap2(inner)
    index.add_with_ids(rows, ids_of(count))
    if "Refine" in factory:
        inner.k_factor = HRQ_REFINE
    if "IVF" in factory:
        faiss.extract_index_ivf(inner).nprobe = -(-lists // 4)
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


def apart(stored: np.ndarray, kind: str, scratch: Path) -> str:
    """Return the memory that a build takes in a process of its own, in MiB."""
    path = scratch / "rows.npy"
    if not path.exists():
        np.save(path, stored)
    words = [sys.executable, __file__, "--apart", str(path), kind, str(scratch / "index")]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def found(index: Any, rows: Rows) -> tuple[float, float, np.ndarray]:
    """Return recall@1, recall@10 and the first answers as row numbers."""
    answers = search(index, rows.queries, 10)[1] >> 14
    same = (answers[:, :, None] == rows.exact[:, None, :]).any(axis=2)
    return float((answers[:, 0] == rows.exact[:, 0]).mean()), float(same.mean()), answers[:, 0]


def query_ms(index: Any, queries: np.ndarray) -> float:
    """Return the median time of one query on one thread."""
    faiss.omp_set_num_threads(1)
    times = [both(lambda q=q: search(index, queries[q : q + 1], 10))[0] for q in range(30)]
    faiss.omp_set_num_threads(2)
    return median(times) * 1000


def measure(vectors: int, dimension: int, kinds: list[str], scratch: Path, rounds: int) -> Iterator[Row]:
    """Yield one row for each of `kinds`, of ours and of the others."""
    field = Field(vectors, dimension)
    (rows, places), random = terrain(field, vectors), noise(vectors, dimension)
    scratch.joinpath("rows.npy").unlink(missing_ok=True)
    output, peer = scratch / "index", scratch / "plain"
    for kind, factory in {**KINDS, **OTHERS}.items():
        if kind not in kinds or (factory.startswith("PCA256") and dimension <= 256):
            continue
        make = (lambda r, k=kind: ours(r, k, output)) if kind in KINDS else (lambda r, f=factory: plain(r, f, output))
        make(random.stored)
        noise_10 = found(faiss.read_index(str(output)), random)[1]
        timed = [(both(lambda m=make: m(rows.stored)), plainly(rows.stored, kind, peer)) for _ in range(rounds)]
        index = load_index(output.read_bytes())
        recall_1, recall_10, first = found(index, rows)
        place = float((np.abs(field.cells(first) - places).max(axis=1) <= 0.5).mean())
        yield Row(
            vectors, dimension, kind, output.stat().st_size / vectors, min(mine[0] for mine, _ in timed), over(timed),
            apart(rows.stored, kind, scratch) if kind in KINDS else "–", query_ms(index, rows.queries),
            recall_1, recall_10, place, noise_10,
        )  # fmt: skip


def plainly(stored: np.ndarray, kind: str, output: Path) -> tuple[float, float] | None:
    return both(lambda: plain(stored, KINDS[kind], output)) if kind in KINDS else None


def over(timed: list[tuple[tuple[float, float], tuple[float, float] | None]]) -> str:
    """Return our time by that of plain FAISS: wall, median and range of the rounds; processor, median."""
    pairs = [(mine, other) for mine, other in timed if other is not None]
    if not pairs:
        return "–"
    cpu = median(mine[1] / max(other[1], 1e-4) for mine, other in pairs)
    return f"{ratio([mine[0] for mine, _ in pairs], [other[0] for _, other in pairs])} / {cpu:.2f}"


AUTOFAISS = """
import sys, time
import autofaiss, numpy
rows = numpy.load(sys.argv[1])
started = time.perf_counter()
autofaiss.build_index(embeddings=rows, index_path=sys.argv[2], index_infos_path=sys.argv[2] + ".json", metric_type="ip",
                      max_index_memory_usage="4GB", current_memory_available="8GB", nb_cores=2, verbose=40)
print(time.perf_counter() - started, autofaiss.__version__)
"""


def autofaiss(python: Path, vectors: int, dimension: int, scratch: Path) -> str:
    """Return what autofaiss takes and finds beside `kind = "auto"`, both to a file."""
    (rows, _), theirs, mine = terrain(Field(vectors, dimension), vectors), scratch / "autofaiss", scratch / "index"
    np.save(scratch / "rows.npy", rows.stored)
    command = [str(python), "-c", AUTOFAISS, str(scratch / "rows.npy"), str(theirs)]
    took, version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    our_s = both(lambda: ours(rows.stored, "auto", mine))[0]
    index = faiss.read_index(str(theirs))
    hits = (search(index, rows.queries, 10)[1][:, :, None] == rows.exact[:, None, :]).any(axis=2).mean()
    return (
        f"autofaiss {version}, {vectors:,} × {dimension}: {type(faiss.downcast_index(index)).__name__}, "
        f'{float(took):.2f} s where `kind = "auto"` takes {our_s:.2f} s; R@10 {hits:.3f} and '
        f"{found(load_index(mine.read_bytes()), rows)[1]:.3f}."
    )


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    names = ("N × d", "kind", "bytes / vector", "build s", "÷ plain FAISS, wall / processor", "RSS MiB", "ms / query",
             "R@1", "R@10", "place@1", "R@10, noise")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [
        f"| {r.vectors:,} × {r.dimension} | {r.kind} | {r.bytes_per_vector:.0f} | {r.build_s:.2f} | {r.over_plain} | "
        f"{r.rss_mb} | {r.query_ms:.2f} | {r.recall_1:.3f} | {r.recall_10:.3f} | {r.place_1:.3f} | {r.noise_10:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *OTHERS], choices=[*KINDS, *OTHERS], metavar="KIND")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp/flightcache-index"))
    parser.add_argument("--autofaiss", type=Path, metavar="PYTHON", help="a Python that imports autofaiss, as a peer")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--apart", nargs=3, metavar=("NPY", "KIND", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    faiss.omp_set_num_threads(2)
    if args.apart:
        stored, output = np.load(args.apart[0]), Path(args.apart[2])
        ours(stored[:300], args.apart[1], output)
        print(peak_growth_mb(lambda: ours(stored, args.apart[1], output)))
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for vectors in args.vectors:
        for row in measure(vectors, args.dimension, args.kinds, args.scratch, args.rounds):
            rows.append(row)
            print(row, flush=True)
            if " / " in row.over_plain:
                what = f"index {row.kind}, {vectors:,} × {args.dimension}, from rows in memory, against plain FAISS"
                say_goal(f"{what}, processor time", float(row.over_plain.rpartition(" / ")[2]), most=1)
    peers = "autofaiss was not measured: give --autofaiss."
    if args.autofaiss:
        peers = "\n\n".join(autofaiss(args.autofaiss, n, args.dimension, args.scratch) for n in args.vectors)
    text = f"`python {' '.join(sys.argv)}` on {machine()}, faiss {faiss.__version__}\n\n{table(rows)}\n\n{peers}\n"
    print(text)
    if args.results:
        replace_section(args.results, "Index", text)


if __name__ == "__main__":
    main()
