"""What one per cent of new tiles costs a large corpus, beside their inference and the floor of writing the index.

    python bench/incremental.py --tiles 100000 --scratch /var/tmp/incremental     about 1 GB of disk, 6 minutes
    python bench/incremental.py --tiles 100000 --new 50 200 --scratch …           fewer: 1 % follows from their slope

The corpus is known: small tiles, whose descriptors lie in the store (random ones: nobody looks at them), its index is
built. Then, in each of several rounds, new tiles of 256 px, few and many in turn, are described with the
ResNet-18-sized network of `pipeline.py` and the index is built again, as `doit` does both. *bare inference*: by the
clock, the bare network on as many images, one caller a core, measured before and after; in processor time, what the
calls of the network took while the tiles were described, for that differs by less from one minute to the next. *floor*:
reading all descriptors and writing as many bytes as the index has. From the two numbers of tiles follows what each tile
costs, and what is the same for any number. Processor time is that of all processes. Nothing outside --scratch is
written, unless --results names a file whose section `Incremental` is then replaced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.index import read_and_write  # noqa: E402
from bench.pipeline import BATCH, Timed, bare_network, engine_of, flight_of, write_tiles  # noqa: E402
from bench.results import machine, ratio, replace_section, say_goal, used_by_all_s  # noqa: E402
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
DIMENSION, BLOCK, KNOWN_SIDE = 512, 4096, 32
"""Length of a descriptor, tiles entered at a time, and pixels of a side of those that nobody decodes again."""


class Spent(NamedTuple):
    """Seconds by the clock, and of processor time."""

    wall_s: float
    cpu_s: float

    def plus(self, other: Spent) -> Spent:
        """Return both together."""
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


class Round(NamedTuple):
    """Scanning; describing the new tiles; the index again; the bare inference of the new tiles."""

    scan: Spent
    describe: Spent
    index: Spent
    inference: Spent

    @property
    def taken(self) -> Spent:
        """What is compared with inference and floor."""
        return self.describe.plus(self.index)


class Measured(NamedTuple):
    """All rounds by the number of new tiles, and what is the same for each: the index's floor, a clean build of it."""

    rounds: dict[int, list[Round]]
    floor: Spent
    clean_index: Spent


def spent(call: Callable[[], object]) -> Spent:
    cpu, started = used_by_all_s(), time.perf_counter()
    call()
    return Spent(time.perf_counter() - started, used_by_all_s() - cpu)


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


def measure(scratch: Path, count: int, numbers: Sequence[int], rounds: int) -> Measured:
    """Add tiles `rounds` times, each of the `numbers` of them in turn, and return what each time costs."""
    tiles, threads, total = scratch / "tiles", len(os.sched_getaffinity(0)), count
    write_tiles(tiles, 0, count, KNOWN_SIDE)
    flight = flight_of(scratch, threads)
    engine = engine_of(scratch, "resnet18")
    know_all(flight, KEY)
    build(flight, scratch / "index")
    found: dict[int, list[Round]] = {new: [] for new in numbers}
    for new in (*numbers,) * rounds:
        write_tiles(tiles, total, total + new, 256)
        total += new
        found[new].append(one_round(flight, engine, scratch / "index", new, threads))
    least = floor(scratch, total)
    os.unlink(scratch / "index")
    return Measured(found, least, spent(lambda: build(flight, scratch / "index")))


def one_round(flight: Flight, engine: bytes, index: Path, new: int, threads: int) -> Round:
    """Describe and index the `new` tiles, with the bare network before and after."""
    network = OnnxRuntime().load(engine)
    images = np.random.default_rng(1).integers(0, 256, (BATCH, *network.size, 3), np.uint8)
    scanned = spent(lambda: scan(flight.selection, flight.build_dir))
    before = bare_network(network, images, threads, 4)
    timed = Timed()
    described = spent(lambda: describe_all(flight, engine, timed, new))
    indexed = spent(lambda: build(flight, index))
    after = bare_network(network, images, threads, 4)
    return Round(scanned, described, indexed, Spent(2 * new / (before.rate + after.rate), timed.cpu_s))


def describe_all(flight: Flight, engine: bytes, backend: Timed, new: int) -> None:
    assert describe(flight, engine=engine, backend=backend, keys=[KEY]).computed == new


def floor(scratch: Path, count: int) -> Spent:
    """Return the least in which `count` descriptors are read and as many bytes as the index has are written."""
    size, descriptors = (scratch / "index").stat().st_size, scratch / "descriptors"
    np.zeros((count, DIMENSION), np.float32).tofile(descriptors)
    return min(spent(lambda: read_and_write(descriptors, size, scratch / "copy")) for _ in range(3))


def middle(costs: Sequence[Spent]) -> Spent:
    """Return the median of both."""
    return Spent(*map(median, zip(*costs, strict=True)))


def against(measured: Measured, new: int) -> list[tuple[list[float], list[float]]]:
    """Return what describing and indexing took, and the least, in each round: by the clock, and in processor time."""
    rounds = measured.rounds[new]
    least = [each.inference.plus(measured.floor) for each in rounds]
    return [([each.taken[n] for each in rounds], [each[n] for each in least]) for n in range(len(Spent._fields))]


def beyond(measured: Measured) -> tuple[float, float]:
    """Return the processor seconds beyond inference and floor: of each new tile, and of any number of them."""
    few, many = measured.rounds
    over = {
        new: median(mine - least for mine, least in zip(*against(measured, new)[1], strict=True)) for new in (few, many)
    }
    each = (over[many] - over[few]) / (many - few)
    return each, over[few] - few * each


def one_percent(measured: Measured, count: int) -> float:
    """Return what one per cent costs in processor time against inference and floor, from what any number costs."""
    each, same = beyond(measured)
    new, many = count // 100, max(measured.rounds)
    inference = middle([cost.inference for cost in measured.rounds[many]]).cpu_s / many
    return 1 + (new * each + same) / (new * inference + measured.floor.cpu_s)


def as_rows(measured: Measured, count: int) -> str:
    """Return the section for RESULTS.md."""
    costs = {new: Round(*map(middle, zip(*rounds, strict=True))) for new, rounds in measured.rounds.items()}
    few, many = costs
    rounds = len(measured.rounds[few])
    each, same = beyond(measured)
    full = costs[many].describe.wall_s * count / many + measured.clean_index.wall_s
    rows = {
        "finding and hashing them": [cost.scan for cost in costs.values()],
        "describing them": [cost.describe for cost in costs.values()],
        "the index again": [cost.index for cost in costs.values()],
        "their bare inference": [cost.inference for cost in costs.values()],
        "floor of the index": [measured.floor] * len(costs),
    }
    lines = [f"| {name} | {' | '.join(f'{n:.2f}' for cost in row for n in cost)} |" for name, row in rows.items()]
    shares = [ratio(*pair) for new in costs for pair in against(measured, new)]
    return f"""\
`python bench/incremental.py --tiles {count} --new {few} {many} --rounds {rounds}`

{machine()}

| new tiles to {count:,}, ResNet-18-sized, d = {DIMENSION}, median of {rounds} rounds | {few:,}: s | CPU, s \
| {many:,}: s | CPU, s |
|---|---:|---:|---:|---:|
{chr(10).join(lines)}
| describing and indexing, against inference and floor | {" | ".join(shares)} |

Processor time beyond inference and floor: {1000 * each:.2f} ms for each new tile, {same:.2f} s for any number of them,
so that 1 %, {count // 100:,}, costs {one_percent(measured, count):.3f} times inference and floor.
A full build at the same rate, {full:.0f} s, takes {full / costs[many].taken.wall_s:.0f} times as long."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--new", type=int, nargs=2, help="how many new tiles, few and many; 0.25 and 1 per cent")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    shutil.rmtree(args.scratch, ignore_errors=True)
    args.scratch.mkdir(parents=True)
    measured = measure(args.scratch, args.tiles, args.new or (args.tiles // 400, args.tiles // 100), args.rounds)
    text = as_rows(measured, args.tiles)
    print(text)
    what = f"1 % new of {args.tiles:,} tiles, ResNet-18-sized, of inference and floor"
    say_goal(f"{what}, processor time", one_percent(measured, args.tiles), most=1.05)
    if (new := max(measured.rounds)) >= args.tiles // 100:
        taken, least = against(measured, new)[0]
        say_goal(
            f"{what}, by the clock", median(mine / floor for mine, floor in zip(taken, least, strict=True)), most=1.05
        )
    shutil.rmtree(args.scratch)
    if args.results:
        replace_section(args.results, "Incremental", text)


if __name__ == "__main__":
    main()
