"""`flightcache bench-engine`: how fast an engine is on this computer."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from provisioning.base.disk.files import read_input, wrap_os_errors
from provisioning.base.errors import EngineError
from provisioning.base.hashing import sha256_bytes
from provisioning.config import Engine
from provisioning.config.parse import read_flight
from provisioning.engines import Network
from provisioning.engines.selection import backend_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "engine", type=Path, help="an .engine file, or a cache directory: every engine of its current generation"
    )
    parser.add_argument(
        "--batch",
        type=_positive,
        help="tiles per call besides 1; at_a_time says how many fit (default: engine.batch of flight.toml, or 8)",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each batch size is measured (default 3)")
    parser.add_argument("--custom-ops", type=Path, help="shared library with custom operators for onnxruntime")
    parser.epilog = (
        "The engine is run: give one you trust (`flightcache verify` first).\n"
        "example: flightcache bench-engine mycache --seconds 5"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of tiles")
    return number


def run(args: argparse.Namespace) -> int:
    """Print latency and throughput as JSON, one object for each engine."""
    batch = args.batch or _configured_batch(args.engine)
    for path in _engines(args.engine):
        print(json.dumps(measure(path, batches=sorted({1, batch}), seconds=args.seconds, custom_ops=args.custom_ops)))
    return 0


def _configured_batch(path: Path) -> int:
    return read_flight(path).engine.batch if (path / "flight.toml").is_file() else Engine().batch


def _engines(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted((path / "current").glob("*.engine")) or sorted(path.glob("*.engine"))
    if not found:
        raise EngineError(
            "no engine here", file=path, next_step="build one with `doit engine`, or name an .engine file"
        )
    return found


def measure(path: Path, *, batches: list[int], seconds: float, custom_ops: Path | None = None) -> dict[str, object]:
    """Return the figures of one engine; EngineError if it cannot run here or takes no tiles."""
    with wrap_os_errors("read an engine", path):
        data = read_input(path)
    backend = backend_of(data)
    network = backend.load(data, custom_ops=custom_ops)
    return {
        "engine": path.name,
        "sha256": sha256_bytes(data),
        "host": backend.probe()._asdict(),
        "input": [*network.size, 3],
        "dimension": network.dimension,
        "batches": [_figures(network, batch, seconds) for batch in batches],
    }


def _figures(network: Network, batch: int, seconds: float) -> dict[str, object]:
    """Return latency and throughput of calls with `batch` noise tiles, after two calls that warm up.

    `at_a_time`: fewer than `batch` where the engine's profile or memory takes no more: then that is the largest.
    """
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (batch, *network.size, 3), np.uint8)
    for _ in range(2):
        network(images)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        network(images)
        times.append(time.perf_counter() - started)
    median, p99 = (float(np.quantile(times, q)) * 1000 for q in (0.5, 0.99))
    return {
        "batch": batch,
        "at_a_time": min(batch, getattr(network, "most", None) or batch),
        "calls": len(times),
        "median_ms": round(median, 3),
        "p99_ms": round(p99, 3),
        "tiles_per_s": round(batch * len(times) / sum(times), 1),
    }
