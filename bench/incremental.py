"""What one per cent of new tiles costs a large corpus, beside their inference and the floor of writing the index.

    python bench/incremental.py --tiles 100000 --scratch /var/tmp/incremental     about 3 GB of disk, 4 minutes

The corpus is known: its descriptors lie in the store (random ones: nobody looks at them), its index is built. Then, in
each of several rounds, one per cent of new tiles is described with the ResNet-18-sized network of `pipeline.py` and the
index is built again, as `doit` does both. *floor*: the bare network on as many images, one caller a core, measured
before and after, plus reading all descriptors and writing as many bytes as the index has. A full build shows in the
rate at which the new tiles were described. Nothing outside --scratch is written, unless --results names a file whose
section `Incremental` is then replaced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.index import read_and_write  # noqa: E402
from bench.pipeline import BATCH, bare_network, engine_of, flight_of, write_tiles  # noqa: E402
from bench.results import machine, ratio, replace_section, say_goal  # noqa: E402
from provisioning.base.hashing import Sha256, sha256_bytes  # noqa: E402
from provisioning.catalogue import corpus_table, distinct_digests, last_corpus, scan  # noqa: E402
from provisioning.config import Flight  # noqa: E402
from provisioning.descriptors.store.receipts import write_receipt  # noqa: E402
from provisioning.descriptors.store.store import DescriptorStore  # noqa: E402
from provisioning.engines import OnnxRuntime  # noqa: E402
from provisioning.index.ids import rows_of  # noqa: E402
from provisioning.index.write.build import build as build_index  # noqa: E402
from tests.describing import describe  # noqa: E402

KEY = sha256_bytes(b"incremental")
DIMENSION, BLOCK = 512, 4096


class Cost(NamedTuple):
    """Seconds of one round: scanning; describing and indexing the new tiles; their bare inference."""

    scan_s: float
    describe_s: float
    index_s: float
    inference_s: float


class Measured(NamedTuple):
    """All rounds, and the seconds that are the same for each: the index's floor and a clean build of it."""

    rounds: list[Cost]
    floor_s: float
    clean_index_s: float


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def know_all(flight: Flight, key: Sha256) -> None:
    """Put a random unit descriptor of every tile into the store, and the receipt that all are there."""
    rng, shas = np.random.default_rng(0), list(distinct_digests(flight.build_dir))
    with DescriptorStore(flight.descriptor_store, key, "float32") as store:
        for start in range(0, len(shas), BLOCK):
            vectors = rng.standard_normal((len(shas[start : start + BLOCK]), DIMENSION), np.float32)
            store.append(shas[start : start + BLOCK], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    corpus = last_corpus(flight.selection, flight.build_dir)
    assert corpus is not None
    write_receipt(flight.descriptor_store, key, corpus.coverage_sha256)


def build(flight: Flight, output: Path) -> None:
    """Build the index as `doit` does."""
    with ExitStack() as stack:
        store = stack.enter_context(DescriptorStore(flight.descriptor_store, KEY, "float32"))
        rows = rows_of(*corpus_table(flight.build_dir))
        build_index(flight.index, rows.ids, rows.gather([store.gather]), output)


def measure(scratch: Path, count: int, rounds: int) -> Measured:
    """Add one per cent of tiles `rounds` times and return what each time costs."""
    tiles, threads, new = scratch / "tiles", len(os.sched_getaffinity(0)), count // 100
    write_tiles(tiles, 0, count, 256)
    flight = flight_of(scratch, threads)
    engine = engine_of(scratch, "resnet18")
    know_all(flight, KEY)
    build(flight, scratch / "index")
    costs = []
    for n in range(rounds):
        write_tiles(tiles, count + n * new, count + (n + 1) * new, 256)
        costs.append(one_round(flight, engine, scratch / "index", new, threads))
    floor_s = floor(scratch, count + rounds * new)
    os.unlink(scratch / "index")
    return Measured(costs, floor_s, seconds(lambda: build(flight, scratch / "index")))


def one_round(flight: Flight, engine: bytes, index: Path, new: int, threads: int) -> Cost:
    """Describe and index the `new` tiles, with the bare network before and after."""
    network = OnnxRuntime().load(engine)
    images = np.random.default_rng(1).integers(0, 256, (BATCH, *network.size, 3), np.uint8)
    scan_s = seconds(lambda: scan(flight.selection, flight.build_dir))
    before = bare_network(network, images, threads, 4).rate
    describe_s = seconds(lambda: describe(flight, engine=engine, backend=OnnxRuntime(), keys=[KEY]))
    index_s = seconds(lambda: build(flight, index))
    after = bare_network(network, images, threads, 4).rate
    return Cost(scan_s, describe_s, index_s, new / ((before + after) / 2))


def floor(scratch: Path, count: int) -> float:
    """Return the seconds in which `count` descriptors are read and as many bytes as the index has are written."""
    size, descriptors = (scratch / "index").stat().st_size, scratch / "descriptors"
    np.zeros((count, DIMENSION), np.float32).tofile(descriptors)
    return min(seconds(lambda: read_and_write(descriptors, size, scratch / "copy")) for _ in range(3))


def as_rows(measured: Measured, count: int) -> str:
    """Return the section for RESULTS.md."""
    new = count // 100
    mine = [cost.describe_s + cost.index_s for cost in measured.rounds]
    least = [cost.inference_s + measured.floor_s for cost in measured.rounds]
    full = median(cost.describe_s for cost in measured.rounds) * count / new + measured.clean_index_s
    scan_s, describe_s, index_s, inference_s = map(median, zip(*measured.rounds, strict=True))
    return "\n".join(
        (
            f"`python bench/incremental.py --tiles {count} --rounds {len(mine)}`\n\n{machine()}\n",
            f"| {new:,} new tiles to {count:,}, ResNet-18-sized, d = {DIMENSION}, median of {len(mine)} rounds | s |",
            "|---|---:|",
            f"| finding and hashing them | {scan_s:.2f} |",
            f"| describing them | {describe_s:.2f} |",
            f"| the index again | {index_s:.2f} |",
            f"| their bare inference | {inference_s:.2f} |",
            f"| floor of the index | {measured.floor_s:.2f} |",
            f"\nDescribing and indexing against inference and floor: {ratio(mine, least)}.",
            f"A full build at the same rate, {full:.0f} s, takes {full / median(mine):.0f} times as long.",
        )
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    shutil.rmtree(args.scratch, ignore_errors=True)
    args.scratch.mkdir(parents=True)
    measured = measure(args.scratch, args.tiles, args.rounds)
    text = as_rows(measured, args.tiles)
    print(text)
    least = [cost.inference_s + measured.floor_s for cost in measured.rounds]
    taken = [cost.describe_s + cost.index_s for cost in measured.rounds]
    against = median(mine / floor for mine, floor in zip(taken, least, strict=True))
    say_goal(f"1 % new of {args.tiles:,} tiles, ResNet-18-sized, against inference and floor", against, most=1.05)
    shutil.rmtree(args.scratch)
    if args.results:
        replace_section(args.results, "Incremental", text)


if __name__ == "__main__":
    main()
