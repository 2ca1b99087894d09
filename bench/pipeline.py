"""Tiles through decoding, network and store, beside what this machine can do with the parts, in one run.

    python bench/pipeline.py --scratch /var/tmp/pipeline            about four minutes on four cores
    python bench/pipeline.py --scratch /var/tmp/pipeline --rss 20000 200000

*bare network*: as many callers as threads, each with one thread, on images already fitted. *raw decoding*: as many
processes, each a loop that opens a file, calls simplejpeg and Pillow's resize, and copies the pixels: no check, no
limits, nobody who waits for the result. *our decoding*: the processes of a build with their limits, no network.
What is ours is measured over a quarter of the tiles and over all: the difference is what a tile costs, and starting
processes is left out, as it is for the loops of raw decoding.
*possible*: network and raw decoding in series on the same cores, 1 / (1/network + 1/decoding). The parts and the whole
are taken alternately. In processor time, the whole is compared with raw decoding and with what the calls of the network
took in it, for the bare network differs by more than the rest from one minute to the next. Processor time is that of
all processes. Nothing outside --scratch is written, unless --results names a file whose section `Pipeline` is then
replaced.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import simplejpeg
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, print_section, say_goal, used_by_all_s  # noqa: E402
from provisioning.base.batches import batches_of  # noqa: E402
from provisioning.base.hashing import sha256_bytes  # noqa: E402
from provisioning.catalogue import Tile, iter_tiles, open_reader, scan  # noqa: E402
from provisioning.config import Area, Backbone, BBox, Engine, Flight, Tiles, TileSource  # noqa: E402
from provisioning.config.schema import Descriptors  # noqa: E402
from provisioning.descriptors.pipeline import layouts  # noqa: E402
from provisioning.descriptors.pipeline.decoders import Decoders  # noqa: E402
from provisioning.descriptors.pipeline.loader import TileLoader, Unit  # noqa: E402
from provisioning.descriptors.pipeline.results import Results  # noqa: E402
from provisioning.descriptors.store.store import DescriptorStore  # noqa: E402
from provisioning.engines import Network, OnnxRuntime  # noqa: E402
from provisioning.network.backbone import onnx_source, prepare  # noqa: E402
from provisioning.sources.processes.common import keep_memory  # noqa: E402
from provisioning.sources.processes.decoding import View  # noqa: E402
from tests.describing import describe  # noqa: E402

ZOOM, COLUMN, ROW = 18, 130_000, 90_000
AREA = BBox(-1_790_000_000, -800_000_000, 1_790_000_000, 800_000_000)
BASES, LEAST = 64, 256
"""Different images, and tiles with which each stands in four places: where only some do, a scan leaves these out."""
BATCH = 8
DEVICES = (1000, 2500, 5000, 10_000)
"""Tiles per second of simulated devices."""


def jpeg(seed: int, side: int) -> bytes:
    """Return a JPEG q85 with texture on four scales; 256 px are about 16 kB, as satellite imagery is."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        )
        for n in (4, 12, 40, 90)
    ]
    mixed = sum(layer * weight for layer, weight in zip(layers, (0.4, 0.3, 0.2, 0.1), strict=True))
    file = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_tiles(root: Path, first: int, end: int, side: int) -> None:
    """Write tiles that are all different: few images, each with a comment of its own."""
    bases = [jpeg(n, side) for n in range(BASES)]
    for n in range(first, end):
        column = root / str(ZOOM) / str(COLUMN + n // 500)
        column.mkdir(parents=True, exist_ok=True)
        base, note = bases[n % BASES], b"%010d" % n
        (column / f"{ROW + n % 500}.jpg").write_bytes(base[:2] + b"\xff\xfe\x00\x0c" + note + base[2:])


def resnet18(rng: np.random.Generator) -> onnx.ModelProto:
    """Return a network with ResNet-18's convolutions, random weights, 224 px in, 512 numbers out."""
    nodes: list[Any] = []
    weights: list[Any] = []

    def conv(value: str, channels: tuple[int, int], side: int, stride: int, *, relu: bool = True) -> str:
        name = f"c{len(nodes)}"
        kernel = rng.standard_normal((channels[1], channels[0], side, side)) * np.sqrt(2 / (channels[0] * side * side))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), name + "w"))
        pads = [side // 2] * 4
        nodes.append(helper.make_node("Conv", [value, name + "w"], [name], strides=[stride, stride], pads=pads))
        if not relu:
            return name
        nodes.append(helper.make_node("Relu", [name], [name + "r"]))
        return name + "r"

    value = conv("image", (3, 64), 7, 2)
    nodes.append(helper.make_node("MaxPool", [value], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
    value, width = "p", 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            inner = conv(conv(value, (width, channels), 3, stride), (channels, channels), 3, 1, relu=False)
            skip = value if (stride, width) == (1, channels) else conv(value, (width, channels), 1, stride, relu=False)
            nodes.append(helper.make_node("Add", [inner, skip], [f"s{stage}{block}"]))
            nodes.append(helper.make_node("Relu", [f"s{stage}{block}"], [f"b{stage}{block}"]))
            value, width = f"b{stage}{block}", channels
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "resnet18",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 512])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Timed:
    """The backend, and a network whose calls add up their processor time: each runs in its caller's thread alone."""

    name = OnnxRuntime.name

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._mutex = threading.Lock()

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Timed:
        self._network = OnnxRuntime().load(data, custom_ops=custom_ops)
        self.size, self.dimension = self._network.size, self._network.dimension
        return self

    def __call__(self, images: np.ndarray) -> np.ndarray:
        began = time.thread_time()
        found = self._network(images)
        with self._mutex:
            self.cpu_s += time.thread_time() - began
        return found

    def clone(self) -> Timed:
        return self


def flight_of(root: Path, threads: int) -> Flight:
    """Return a flight over the tiles in `root`, scanned."""
    flight = Flight(
        root=root,
        area=Area(bbox=AREA, zooms=(ZOOM,)),
        tiles=Tiles(source=(TileSource(path=root / "tiles", name="bench"),)),
        backbone=(Backbone(name="m"),),
        engine=Engine(batch=BATCH),
        descriptors=Descriptors(threads=threads),
    )
    flight.build_dir.mkdir(exist_ok=True)
    scan(flight.selection, flight.build_dir)
    return flight


def engine_of(scratch: Path, name: str) -> bytes:
    """Return the engine of the light model, or of the ResNet-18-sized one."""
    onnx_path = scratch / "resnet18.onnx"
    if name == "resnet18" and not onnx_path.exists():
        onnx.save(resnet18(np.random.default_rng(0)), str(onnx_path))
    backbone = Backbone(name="m") if name == "gist-color" else Backbone(name="m", onnx=str(onnx_path))
    prepare(backbone, onnx_source(backbone, scratch, None), scratch / f"{name}.network.onnx")
    return (scratch / f"{name}.network.onnx").read_bytes()


class Cost(NamedTuple):
    """Tiles per second on the wall, and microseconds of processor time for one tile."""

    rate: float
    cpu_us: float


@contextmanager
def cost_of(found: list[Cost], count: Callable[[], int]) -> Iterator[None]:
    """Add the cost of the block, which did `count()` tiles, to `found`."""
    cpu, wall = used_by_all_s(), time.perf_counter()
    yield
    tiles, seconds = count(), time.perf_counter() - wall
    found.append(Cost(tiles / seconds, 1e6 * (used_by_all_s() - cpu) / tiles))


def in_threads(threads: int, work: Callable[[int], int]) -> Cost:
    """Run `work(n)` in each thread and return the cost of the sum of what it returns."""
    done = [0] * threads

    def run(n: int) -> None:
        done[n] = work(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    found: list[Cost] = []
    with cost_of(found, lambda: sum(done)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found[0]


def bare_network(network: Network, images: np.ndarray, threads: int, seconds: float) -> Cost:
    def work(_: int) -> int:
        own, count, until = network.clone(), 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            own(images)
            count += len(images)
        return count

    return in_threads(threads, work)


@contextmanager
def decoders_of(flight: Flight, size: tuple[int, int], batch: int, threads: int) -> Iterator[Decoders]:
    """Yield decoders as a build has them, already started."""
    with open_reader(flight.tiles.source, flight.build_dir) as reader:
        view = View((Fraction(0),), size, "resize", 1 << 22)
        decoders = Decoders(reader, view, batch=batch, slots=layouts.slots(threads))
        try:
            yield decoders
        finally:
            decoders.close()


def few_of(count: int) -> int:
    """Return about a quarter of `count`, in which every image stands equally often."""
    return max(1, count // 4 // BASES) * BASES


def of_a_tile(work: Callable[[int], object], count: int) -> Cost:
    """Return what a tile costs beyond the first ones: `work` does few of `count`, then all."""
    few, took = few_of(count), []
    for tiles in (few, count):
        cpu, wall = used_by_all_s(), time.perf_counter()
        work(tiles)
        took.append((time.perf_counter() - wall, used_by_all_s() - cpu))
    (wall, cpu), (whole_wall, whole_cpu) = took
    return Cost((count - few) / (whole_wall - wall), 1e6 * (whole_cpu - cpu) / (count - few))


def decode_and_fit(flight: Flight, tiles: Sequence[Tile], size: tuple[int, int], threads: int) -> Cost:
    def decode(count: int) -> None:
        with decoders_of(flight, size, BATCH, threads) as decoders:

            def work(n: int) -> int:
                decoder, mine = decoders.decoder(), tiles[:count][n::threads]
                for batch in batches_of(mine, BATCH):
                    decoder.load_batch([Unit(tile, 0) for tile in batch])
                return len(mine)

            in_threads(threads, work)

    return of_a_tile(decode, len(tiles))


def raw_decoding(flight: Flight, size: tuple[int, int], threads: int) -> Cost:
    """Return what reading, decoding and fitting cost in plain loops, as many processes as `threads`."""
    with open_reader(flight.tiles.source, flight.build_dir) as reader:
        paths = [str(reader.given(tile)) for tile in iter_tiles(flight.build_dir)]
    fork = multiprocessing.get_context("fork")
    begin, end, used = fork.Barrier(threads + 1), fork.Barrier(threads + 1), fork.Array("d", threads)

    def work(n: int) -> None:
        keep_memory()
        room = np.empty((*size, 3), np.uint8)
        begin.wait()
        for path in paths[n::threads]:
            with open(path, "rb") as file:
                picture = Image.fromarray(simplejpeg.decode_jpeg(file.read(), colorspace="RGB"))
            room[:] = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
        used[n] = time.process_time()
        end.wait()

    processes = [fork.Process(target=work, args=(n,)) for n in range(threads)]
    for process in processes:
        process.start()
    begin.wait()
    started = time.perf_counter()
    end.wait()
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
        assert not process.exitcode
    return Cost(len(paths) / seconds, 1e6 * sum(used) / len(paths))


class Rates(NamedTuple):
    """The parts and the whole: of one round, or the best of several. `inference`: the network's calls in the whole."""

    network: Cost
    raw: Cost
    ours: Cost
    whole: Cost
    inference: Cost

    @property
    def possible(self) -> Cost:
        return Cost(1 / (1 / self.network.rate + 1 / self.raw.rate), self.network.cpu_us + self.raw.cpu_us)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Return what of the possible the pipeline gets by the clock and in processor time, and our decoding of raw."""
        wall, cpu = self.whole.rate / self.possible.rate, (self.inference.cpu_us + self.raw.cpu_us) / self.whole.cpu_us
        return wall, cpu, self.raw.cpu_us / self.ours.cpu_us

    @property
    def cells(self) -> str:
        """Return the cells of one row of the table."""
        costs = (self.network, self.raw, self.ours, self.possible, self.whole)
        return " | ".join(f"{cost.rate:.0f} ({cost.cpu_us:.0f})" for cost in costs)


def throughput(flight: Flight, part: Flight, engine: bytes, *, threads: int, rounds: int) -> list[Rates]:
    """Measure the parts and the whole alternately, and return all rounds. `part` has the first of the tiles."""
    tiles, network = list(iter_tiles(flight.build_dir)), OnnxRuntime().load(engine)
    with open_reader(flight.tiles.source, flight.build_dir) as reader:
        images = np.stack(
            [TileLoader(reader.read, (0,), network.size, "resize", 1 << 22).image(Unit(t, 0)) for t in tiles[:BATCH]]
        )
    return [
        Rates(
            bare_network(network, images, threads, 3),
            raw_decoding(flight, network.size, threads),
            decode_and_fit(flight, tiles, network.size, threads),
            *_whole(flight, part, engine, len(tiles)),
        )
        for _ in range(rounds)
    ]


def best(costs: Sequence[Cost]) -> Cost:
    """Return the best of several rounds, of wall and of processor time each by itself."""
    return Cost(max(cost.rate for cost in costs), min(cost.cpu_us for cost in costs))


def _whole(flight: Flight, part: Flight, engine: bytes, count: int) -> tuple[Cost, Cost]:
    """Return what describing a tile costs, and the calls of the network in it."""
    timed = Timed()

    def work(tiles: int) -> None:
        which = flight if tiles == count else part
        shutil.rmtree(which.descriptor_store, ignore_errors=True)
        timed.cpu_s = 0.0
        assert describe(which, engine=engine, backend=timed, keys=[sha256_bytes(b"")]).computed == tiles

    cost = of_a_tile(work, count)
    return cost, Cost(cost.rate, 1e6 * timed.cpu_s / count)


class Device:
    """A GPU as Python sees it: a call that takes its time without the interpreter lock."""

    size, dimension = (224, 224), 512

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, images: np.ndarray) -> np.ndarray:
        until = time.perf_counter() + len(images) / self.rate
        answer = np.ones((len(images), self.dimension), np.float32)
        time.sleep(max(0.0, until - time.perf_counter()))
        return answer

    def clone(self) -> Device:
        return self


def simulated_gpu(flight: Flight, rate: float, threads: int) -> Cost:
    """Return what a tile costs in the GPU layout, batch 32, with a device of `rate`."""
    tiles = list(iter_tiles(flight.build_dir))

    def work(count: int) -> None:
        shutil.rmtree(flight.descriptor_store, ignore_errors=True)
        kept = DescriptorStore(flight.descriptor_store, sha256_bytes(b"gpu"), "float32")
        with kept, decoders_of(flight, Device.size, 32, threads) as decoders:
            units = (Unit(tile, 0) for tile in tiles[:count])
            layouts.staged(units, Device(rate), decoders, Results([kept]), threads=threads, batch=32)

    return of_a_tile(work, len(tiles))


def one_percent(flight: Flight, root: Path, engine: bytes, count: int, side: int) -> tuple[int, float]:
    """Return how many tiles 1 % are, and the seconds to describe them when the others are known."""
    key = sha256_bytes(b"delta")
    with DescriptorStore(flight.descriptor_store, key, "float32") as kept:
        known = [bytes.fromhex(tile.sha256) for tile in iter_tiles(flight.build_dir)]
        kept.append(known, np.random.default_rng(0).random((len(known), 512), np.float32))
    new = max(1, count // 100)
    write_tiles(root, count, count + new, side)
    scan(flight.selection, flight.build_dir)
    started = time.perf_counter()
    assert describe(flight, engine=engine, backend=OnnxRuntime(), keys=[key]).computed == new
    return new, time.perf_counter() - started


RSS = """
import json, sys, threading, time
sys.path.insert(0, {root!r})
from pathlib import Path
from bench.pipeline import flight_of, RSS_ENGINE, sha256_bytes, describe, OnnxRuntime
flight = flight_of(Path({tree!r}), {threads})
seen, going = [], True
def watch():
    while going:
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        seen.append([int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS")])
        time.sleep(0.05)
thread = threading.Thread(target=watch); thread.start()
done = describe(flight, engine=Path({engine!r}).read_bytes(), backend=OnnxRuntime(), keys=[sha256_bytes(b"rss")])
going = False; thread.join()
print(json.dumps([done.computed, seen]))
"""
RSS_ENGINE = "gist-color"


class Resident(NamedTuple):
    """RSS in MiB of a process that describes small tiles: anonymous in the middle of its second half, and largest."""

    usual: float
    largest: float
    largest_whole: float


def resident(scratch: Path, count: int, threads: int) -> Resident:
    """Return what a fresh process that describes `count` tiles has in memory."""
    tree = scratch / f"rss-{count}"
    if not tree.exists():
        write_tiles(tree / "tiles", 0, count, 32)
    flight_of(tree, threads)
    shutil.rmtree(tree / ".build" / "descriptors", ignore_errors=True)
    engine = scratch / f"{RSS_ENGINE}.network.onnx"
    script = RSS.format(root=str(ROOT), tree=str(tree), engine=str(engine), threads=threads)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    computed, seen = json.loads(done.stdout.splitlines()[-1])
    assert computed == count
    anonymous, whole = zip(*seen, strict=True)
    return Resident(median(anonymous[len(seen) // 2 :]), max(anonymous), max(whole))


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the section of the results, measuring as it goes."""
    scratch, threads = options.scratch, options.threads
    flights, parts = {}, {}
    for name, count in (("gist-color", options.tiles), ("resnet18", max(LEAST, options.tiles // 8))):
        for made, folder, tiles in ((flights, name, count), (parts, f"{name}-part", few_of(count))):
            write_tiles(scratch / folder / "tiles", 0, tiles, 256)
            made[name] = flight_of(scratch / folder, threads)
            assert len(list(iter_tiles(made[name].build_dir))) == tiles
    yield f"JPEG tiles of 256 px, {threads} threads, batch {BATCH}, best of {options.rounds} rounds. Tiles per second,"
    yield "in brackets microseconds of processor time for one tile. Then medians of the rounds: what the pipeline gets"
    yield "of what is possible, by the clock and in processor time, which hangs less on what else the machine does, and"
    yield "what our decoding gets of raw decoding."
    yield ""
    yield (
        "| model | tiles | bare network | raw decoding | our decoding | possible | pipeline with store "
        "| wall | CPU | decoding |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    rates = {}
    for name, flight in flights.items():
        rounds = throughput(flight, parts[name], engine_of(scratch, name), threads=threads, rounds=options.rounds)
        rates[name] = Rates(*map(best, zip(*rounds, strict=True)))
        wall, cpu, decoding = map(median, zip(*(each.shares for each in rounds), strict=True))
        count = len(list(iter_tiles(flight.build_dir)))
        yield f"| {name} | {count} | {rates[name].cells} | {wall:.2f} | {cpu:.2f} | {decoding:.2f} |"
        say_goal(f"{name}: our decoding of raw decoding, processor time", decoding, least=0.9)
        say_goal(f"{name}: pipeline with store, of what decoder and network allow, processor time", cpu, least=0.95)
    yield ""
    yield from gpu_lines(flights["gist-color"], threads, options.rounds)
    yield ""
    yield from delta_lines(flights["gist-color"], scratch, options.tiles, rates["resnet18"])
    yield ""
    yield "| tiles | anonymous RSS, MiB: median of the second half | largest | largest RSS, MiB |"
    yield "|---|---|---|---|"
    for count in options.rss:
        rss = resident(scratch, count, threads)
        yield f"| {count} | {rss.usual:.0f} | {rss.largest:.0f} | {rss.largest_whole:.0f} |"


def gpu_lines(flight: Flight, threads: int, rounds: int) -> Iterator[str]:
    """Yield what the GPU layout gets of a device, or of the cores where these are what is slower. Goal: 0.95.

    The device is compared by the clock, the cores by processor time: what they could decode while they are kept busy.
    """
    yield "| simulated GPU, tiles/s | raw decoding | pipeline | of the lesser | goal 0.95 |"
    yield "|---|---|---|---|---|"
    for rate in DEVICES:
        pairs = [
            (raw_decoding(flight, Device.size, threads), simulated_gpu(flight, rate, threads)) for _ in range(rounds)
        ]
        cores, got = map(best, zip(*pairs, strict=True))
        if cores.rate < rate:
            less, share = "the cores, processor time", median(raw.cpu_us / each.cpu_us for raw, each in pairs)
        else:
            less, share = "the device", got.rate / rate
        say_goal(f"simulated device of {rate:,} tiles/s: of the lesser, {less}", share, least=0.95)
        figures = " | ".join(f"{cost.rate:.0f} ({cost.cpu_us:.0f})" for cost in (cores, got))
        yield f"| {rate} | {figures} | {share:.2f} | {'met' if share >= 0.95 else 'missed'} |"


def delta_lines(flight: Flight, scratch: Path, count: int, rates: Rates) -> Iterator[str]:
    new, seconds = one_percent(flight, flight.root / "tiles", engine_of(scratch, "resnet18"), count, 256)
    yield (
        f"1 % new tiles ({new} of {count}, ResNet-18-sized): {seconds:.2f} s, of it {new / rates.network.rate:.2f} s "
        f"bare inference; describing all of them would take {count / rates.whole.rate:.0f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rss", type=int, nargs="*", default=[20_000, 100_000])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    shutil.rmtree(options.scratch, ignore_errors=True)
    options.scratch.mkdir(parents=True)
    head = f"`python bench/pipeline.py {' '.join(sys.argv[1:])}`, {machine()}, onnxruntime {onnxruntime.__version__}.\n"
    print_section("Pipeline", head, lines(options), options.results)


if __name__ == "__main__":
    main()
