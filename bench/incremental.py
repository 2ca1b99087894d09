"""What one per cent of new tiles costs a large corpus, beside their inference and the floor of writing the index.

    python bench/incremental.py --tiles 100000 --scratch /var/tmp/incremental     about 3 GB of disk, 5 minutes

The corpus is known: its descriptors lie in the store (random ones: nobody looks at them), its index is built. Then one
per cent of new tiles is described with the ResNet-18-sized network of `pipeline.py` and the index is built again, as
`doit` does both. *floor*: the bare network on as many images, one caller a core, measured before and after, plus
reading all descriptors and writing as many bytes as the index has. A full build is told from the rate at which the new
tiles were described. Nothing outside --scratch is written, unless --results names a file whose section `Incremental`
is then replaced.
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
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.index import read_and_write  # noqa: E402
from bench.pipeline import BATCH, bare_network, engine_of, flight_of, write_tiles  # noqa: E402
from bench.results import machine, replace_section  # noqa: E402
from provisioning.config import Flight  # noqa: E402
from provisioning.descriptors import store_path  # noqa: E402
from provisioning.descriptors.store import DescriptorStore  # noqa: E402
from provisioning.descriptors.update import describe  # noqa: E402
from provisioning.engines import OnnxRuntime  # noqa: E402
from provisioning.hashing import Sha256, sha256_bytes  # noqa: E402
from provisioning.index.corpus import build_corpus_index, corpus_rows  # noqa: E402
from provisioning.tiles import distinct_digests, last_corpus, scan  # noqa: E402

KEY = sha256_bytes(b"incremental")
DIMENSION, BLOCK = 512, 4096


class Cost(NamedTuple):
    """Seconds: scanning; describing and indexing the new tiles; their bare inference; the index's floor; a full one."""

    scan_s: float
    describe_s: float
    index_s: float
    inference_s: float
    floor_s: float
    clean_index_s: float


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def know_all(flight: Flight, key: Sha256) -> None:
    """Put a random unit descriptor of every tile into the store."""
    rng, shas = np.random.default_rng(0), list(distinct_digests(flight))
    with DescriptorStore(store_path(flight), key, "float32") as store:
        for start in range(0, len(shas), BLOCK):
            vectors = rng.standard_normal((len(shas[start : start + BLOCK]), DIMENSION), np.float32)
            store.append(shas[start : start + BLOCK], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def build(flight: Flight, output: Path) -> None:
    """Build the index as `doit` does."""
    with ExitStack() as stack:
        store = stack.enter_context(DescriptorStore(store_path(flight), KEY, "float32"))
        corpus, rows = last_corpus(flight), corpus_rows(flight)
        assert corpus is not None
        build_corpus_index(flight, corpus, rows, [store.gather], output, descriptor_keys=[KEY])


def measure(scratch: Path, count: int) -> Cost:
    """Return what one per cent of new tiles costs."""
    tiles, threads, new = scratch / "tiles", len(os.sched_getaffinity(0)), count // 100
    write_tiles(tiles, 0, count, 256)
    flight = flight_of(scratch, threads)
    engine = engine_of(scratch, "resnet18")
    network = OnnxRuntime().load(engine)
    know_all(flight, KEY)
    build(flight, scratch / "index")
    write_tiles(tiles, count, count + new, 256)
    images = np.random.default_rng(1).integers(0, 256, (BATCH, *network.size, 3), np.uint8)
    scan_s = seconds(lambda: scan(flight))
    rates = [bare_network(network, images, threads, 5).rate]
    describe_s = seconds(lambda: describe(flight, engine=engine, backend=OnnxRuntime(), keys=[KEY]))
    index_s = seconds(lambda: build(flight, scratch / "index"))
    rates.append(bare_network(network, images, threads, 5).rate)
    size = (scratch / "index").stat().st_size
    descriptors = scratch / "descriptors"
    np.zeros((count + new, DIMENSION), np.float32).tofile(descriptors)
    floors = [seconds(lambda: read_and_write(descriptors, size, scratch / "copy")) for _ in range(3)]
    shutil.rmtree(scratch / ".build" / "index")
    clean_s = seconds(lambda: build(flight, scratch / "index"))
    return Cost(scan_s, describe_s, index_s, new / max(rates), min(floors), clean_s)


def told(cost: Cost, count: int) -> str:
    """Return the section for RESULTS.md."""
    new = count // 100
    floor, mine = cost.inference_s + cost.floor_s, cost.describe_s + cost.index_s
    full = cost.describe_s * count / new + cost.clean_index_s
    return "\n".join(
        (
            f"`python bench/incremental.py --tiles {count}`\n\n{machine()}\n",
            f"| {new:,} new tiles to {count:,}, ResNet-18-sized, d = {DIMENSION} | s |",
            "|---|---:|",
            f"| finding and hashing them | {cost.scan_s:.2f} |",
            f"| describing them | {cost.describe_s:.2f} |",
            f"| the index again | {cost.index_s:.2f} |",
            f"| their bare inference | {cost.inference_s:.2f} |",
            f"| floor of the index | {cost.floor_s:.2f} |",
            f"\nDescribing and indexing against inference and floor: {mine / floor:.2f}.",
            f"A full build at the same rate, {full:.0f} s, takes {full / mine:.0f} times as long.",
        )
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    shutil.rmtree(args.scratch, ignore_errors=True)
    args.scratch.mkdir(parents=True)
    text = told(measure(args.scratch, args.tiles), args.tiles)
    print(text)
    shutil.rmtree(args.scratch)
    if args.results:
        replace_section(args.results, "Incremental", text)


if __name__ == "__main__":
    main()
