"""What this host contributes to the choice: how fast it scans codes, measured once, and its instruction set."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

from provisioning.base.files import make_dirs, write_durably
from provisioning.index.choice import REFERENCE, Speed
from provisioning.index.training import index_dir

VECTORS, DIMENSION, REPEATS = 16_384, 512, 5
_RECORD = "speed.json"


def recorded_speed(build_dir: Path) -> Speed:
    """Return the speed recorded in `.build`, or the reference where none was measured."""
    try:
        raw = json.loads((index_dir(build_dir) / _RECORD).read_bytes())
        return Speed(**{field.name: int(raw[field.name]) for field in dataclasses.fields(Speed)})
    except (OSError, ValueError, KeyError, TypeError):
        return REFERENCE


def record_speed(build_dir: Path) -> Speed:
    """Measure and record the speed of this host unless that was done; about a second. Only under the build lock."""
    path = index_dir(build_dir) / _RECORD
    if not path.exists():
        make_dirs(path.parent)
        write_durably(path, (json.dumps(dataclasses.asdict(measure_speed()), sort_keys=True) + "\n").encode())
    return recorded_speed(build_dir)


def on_grid(picoseconds: float) -> int:
    """Return the power of √2 next to `picoseconds`: a second measurement on the same host mostly gives the same."""
    return max(1, round(2 ** (round(2 * math.log2(max(picoseconds, 1))) / 2)))


def measure_speed() -> Speed:
    """Time one query against each kind on one core: the least of a few, in picoseconds per component."""
    import faiss
    import numpy as np

    rows = np.random.default_rng(1).standard_normal((VECTORS, DIMENSION)).astype(np.float32)
    names = {"flat": "Flat", "sqfp16": "SQfp16", "sq8": "SQ8", "hrq": f"HR{DIMENSION},RaBitQfs,Refine(SQ8)"}
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        return Speed(**{kind: on_grid(_scan(name, rows)) for kind, name in names.items()})
    finally:
        faiss.omp_set_num_threads(threads)


def _scan(name: str, rows: object) -> float:
    import faiss

    index = faiss.index_factory(DIMENSION, name, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    if name.endswith("Refine(SQ8)"):
        index.k_factor = 30
    seconds = min(_seconds(lambda: index.search(rows[:1], 10)) for _ in range(REPEATS))  # type: ignore[index]
    return seconds * 1e12 / (VECTORS * DIMENSION)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def instruction_set() -> str:
    """Return the architecture and vector extensions that decide which FAISS kernels run."""
    known = ("avx2", "avx512f", "avx512vpopcntdq", "amx_tile", "asimd", "sve")
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    flags = set(
        next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "").split()
    )
    return "-".join((platform.machine(), *(name for name in known if name in flags)))
