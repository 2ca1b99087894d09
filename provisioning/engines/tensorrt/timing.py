"""TensorRT's timing cache: what kernels took on this host, kept from one compile to the next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.base.hashing import digest_of, sha256_bytes
from provisioning.engines.spec import EngineSpec


@contextlib.contextmanager
def lend_timing_cache(config: Any, spec: EngineSpec) -> Iterator[dict[str, object]]:
    """Lend the host's timing cache to one compile, keep what it learnt, and yield the digests before and after."""
    digests: dict[str, object] = {}
    if not spec.timing_cache or spec.host.backend != "tensorrt":  # a no-op in RTX, which does not time kernels
        yield digests
        return
    path = timing_cache_path(spec)
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None:  # written by another release: start again
        known, cache = b"", config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    yield digests
    learnt = bytes(config.get_timing_cache().serialize())
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(learnt)
    os.replace(temporary, path)
    digests |= {"timing_cache_before": sha256_bytes(known), "timing_cache_after": sha256_bytes(learnt)}


def timing_cache_path(spec: EngineSpec) -> Path:
    """Return where the timing cache of this host tuple is kept."""
    return spec.state / f"timing-{digest_of(spec.host._asdict())[:16]}.cache"
