"""The status as Prometheus metrics, for node_exporter's textfile collector."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from provisioning.build.status import Status
from provisioning.flight.summary import Summary

HELP = {
    "published": "1 if a generation is published; its labels say which",
    "counter": "counter of the current generation",
    "published_timestamp_seconds": "when the current generation was published",
    "tiles": "tiles in the corpus",
    "missing_tiles": "tiles that the area expects and no source has",
    "skipped_tiles": "tiles left out because they could not be read",
    "waived_gates": "quality gates knowingly passed over",
    "warned_gates": "quality gates that warn",
    "lowered_gates": "quality gates held to less than the standard threshold",
    "accepted": "faults that a person accepted when the cache was set up",
    "heading_must_be_known": "1 if the index finds a photo only where its heading is known",
    "oldest_capture_timestamp_seconds": "capture date of the oldest imagery",
    "generation_bytes": "size of the files of the current generation",
    "free_bytes": "space left on the file system of the cache",
    "building": "1 while a build holds the lock",
    "last_build_success": "1 if the last build did not fail",
    "last_build_timestamp_seconds": "when the last build ended",
    "last_build_duration_seconds": "how long the last build took",
}


def metrics(status: Status) -> str:
    """Return the text format 0.0.4: one gauge for each fact that is known."""
    blocks = [
        f"# HELP flightcache_{name} {HELP[name]}\n# TYPE flightcache_{name} gauge\n"
        f"flightcache_{name}{{{_labels({'cache': status.cache, **labels})}}} {value}\n"
        for name, labels, value in _gauges(status)
    ]
    return "".join(blocks)


def _gauges(status: Status) -> Iterator[tuple[str, dict[str, str], float | int]]:
    current = status.current
    shown = {"manifest_hash": current.manifest_hash, "flight": current.flight_id or ""} if current else {}
    yield "published", shown, int(current is not None)
    if current:
        yield "counter", {}, current.counter
        yield "published_timestamp_seconds", {}, round(current.published_at, 3)
        yield "tiles", {}, current.tiles
        yield "missing_tiles", {}, current.missing_tiles
        yield from ((name, {}, value) for name, value in _summary(current.summary))
        yield "generation_bytes", {}, current.bytes
        if current.oldest_capture:
            captured = dt.datetime.fromisoformat(current.oldest_capture).replace(tzinfo=dt.timezone.utc)
            yield "oldest_capture_timestamp_seconds", {}, int(captured.timestamp())
    yield "free_bytes", {}, status.free_bytes
    yield "building", {}, int(status.builder is not None)
    if status.last_build and status.built_at is not None:
        yield "last_build_success", {}, int(status.last_build.outcome != "FAILURE")
        yield "last_build_timestamp_seconds", {}, round(status.built_at, 3)
        yield "last_build_duration_seconds", {}, status.last_build.elapsed_s


def _summary(summary: Summary) -> Iterator[tuple[str, int]]:
    yield "skipped_tiles", summary.tiles_skipped
    yield "waived_gates", len(summary.gates_waived)
    yield "warned_gates", len(summary.gates_warned)
    yield "lowered_gates", len(summary.gates_lowered)
    yield "accepted", len(summary.accepted)
    yield "heading_must_be_known", int(summary.heading_must_be_known)


def _labels(labels: dict[str, str]) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
