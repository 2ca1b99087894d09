"""The header of a TensorRT plan, read without deserialising it.

As NVIDIA's trtexec does for `--getPlanVersionOnly` (Apache-2.0, sampleEngines.cpp): magic at 0, a zero u32 at 4, the
version of the builder in bytes 24 to 27. An old or foreign plan is found by it; it is no protection
against tampering, which only the signature is.
"""

from __future__ import annotations

import re

from provisioning.base.errors import EngineError

MAGICS = {"tensorrt": b"ftrt", "tensorrt_rtx": b"vtrt"}
HEADER_BYTES = 28


def plan_version(data: bytes, *, backend: str) -> str:
    """Return the four-part version of the builder that wrote the plan `data`.

    EngineError if the bytes are not a plan of `backend`: empty, cut off, or with the magic of something else.
    """
    head = bytes(data[:HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        raise EngineError(f"a {backend} plan cut off in its header", facts={"bytes": len(head)})
    if head[:4] != MAGICS[backend] or head[4:8] != bytes(4):
        other = next((name for name, magic in MAGICS.items() if magic == head[:4]), None)
        facts = {"begins with": head[:4].hex(" "), "expected": MAGICS[backend].hex(" "), "looks like": other}
        raise EngineError(f"not a {backend} plan", facts={k: v for k, v in facts.items() if v})
    return ".".join(map(str, head[24:28]))


def require_plan(data: bytes, *, backend: str, runtime: str) -> None:
    """Refuse a plan that `runtime` did not write: TensorRT would refuse it later, less clearly, or not at all."""
    wrote = plan_version(data, backend=backend)
    if not _wrote_it(wrote, runtime):
        raise EngineError(
            f"this plan was built by another version of {backend}",
            facts={"built by": wrote, "here": runtime},
            next_step="run `doit engine` on this computer",
        )


def _wrote_it(wrote: str, runtime: str) -> bool:
    """Compare as many parts as `runtime` reports; a header has one byte for each, so a build number above 255 wraps."""
    here = [int(part) & 0xFF for part in re.findall(r"\d+", runtime.partition("+")[0])[:4]]
    return len(here) >= 3 and [int(part) for part in wrote.split(".")][: len(here)] == here
