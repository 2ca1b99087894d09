"""What a cache directory holds at this moment, read without the lock; nothing is verified and nothing is written.

The directory may come from anyone: only regular files of bounded size are read, and nothing they name is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from provisioning.base.disk import lock
from provisioning.base.disk.files import free_bytes, read_regular, wrap_os_errors
from provisioning.base.errors import ConfigError, ManifestError
from provisioning.base.geometry.angles import Origin
from provisioning.base.outcome import FILE as REPORT_FILE
from provisioning.base.outcome import BuildReport, read_report
from provisioning.build.history import read_history
from provisioning.flight import manifest, publish
from provisioning.flight.summary import Summary, summarise, utc_today


@dataclass(frozen=True, kw_only=True)
class Current:
    """The generation that `current` names. `published_at` is in seconds since 1970; `bytes` counts listed files."""

    generation: str
    counter: int
    manifest_hash: str
    flight_id: str | None
    aircraft_id: str | None
    published_at: float
    tiles: int
    missing_tiles: int
    oldest_capture: str | None
    accepted: tuple[str, ...]
    takeoff: Origin | None
    bytes: int
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of one cache directory.

    `builder` is the process that holds the build lock; `built_at` is when the last build ended, seconds since 1970;
    `task_seconds` is how long each task took when it last ran, for `descriptors` one descriptor; `task_seconds_before`
    how long when it ran before that.
    """

    cache: str
    current: Current | None
    unreadable: str | None
    builder: int | None
    free_bytes: int
    last_build: BuildReport | None
    built_at: float | None
    task_seconds: Mapping[str, float]
    task_seconds_before: Mapping[str, float]

    def as_json(self) -> dict[str, object]:
        """Return the status as JSON values."""
        values = asdict(self)
        if self.current:
            values["current"]["summary"] = self.current.summary.as_json()
        return values


def read_status(cache: Path) -> Status:
    """Return the status of `cache`. Raises ConfigError if it is no cache directory, FilesystemError."""
    if not os.path.lexists(cache / "flight.toml") and not os.path.lexists(cache / publish.CURRENT):
        raise ConfigError(
            "this is no cache directory: it has neither flight.toml nor current",
            file=cache,
            next_step="run this in a cache directory, or make one with `flightcache init`",
        )
    current, unreadable = _current(cache)
    report, history = cache / ".build" / REPORT_FILE, read_history(cache / ".build")
    with wrap_os_errors("look at the cache directory", cache):
        return Status(
            cache=str(cache.absolute()),
            current=current,
            unreadable=unreadable,
            builder=_builder(cache / lock.FILE),
            free_bytes=free_bytes(cache),
            last_build=read_report(cache / ".build"),
            built_at=report.stat().st_mtime if report.exists() else None,
            task_seconds=history.seconds,
            task_seconds_before=history.seconds_before,
        )


def _current(cache: Path) -> tuple[Current | None, str | None]:
    """Return the current generation, and what is wrong with it if it cannot be read."""
    path = publish.current_generation(cache)
    if path is None:
        return None, _unnamed(cache / publish.CURRENT)
    try:
        read = manifest.parse(read_regular(path / publish.MANIFEST, limit=manifest.MAX_BYTES))
        published_at = os.lstat(cache / publish.CURRENT).st_mtime
    except (OSError, ManifestError) as error:
        return None, f"{path}: {error}"
    counts = read.tiles.per_zoom.values()
    return (
        Current(
            generation=str(path),
            counter=read.build.counter,
            manifest_hash=read.build.manifest_hash,
            flight_id=read.flight.flight_id,
            aircraft_id=read.flight.aircraft_id,
            published_at=published_at,
            tiles=read.tiles.count,
            missing_tiles=sum(max(0, count.expected - count.present) for count in counts),
            oldest_capture=read.tiles.oldest_capture,
            takeoff=read.flight.takeoff_origin,
            accepted=tuple(entry.detail for entry in read.accepted),
            bytes=sum(entry.bytes for entry in read.files),
            summary=summarise(read, "NOT VERIFIED", today=utc_today()),
        ),
        None,
    )


def _unnamed(link: Path) -> str | None:
    """Return why `current` names no generation though something is there."""
    try:
        return f"{link} names {os.readlink(link)}, which is no generation that is here"
    except FileNotFoundError:
        return None
    except OSError:
        return f"{link} is no link to a generation; see `flightcache doctor`"


def _builder(path: Path) -> int | None:
    """Return the process that holds the lock at `path`; taking the lock to find out could refuse a build its start."""
    try:
        inode, table = path.stat().st_ino, Path("/proc/locks").read_text(encoding="utf-8")
    except OSError:
        return None
    rows = (line.split() for line in table.splitlines() if "FLOCK" in line and "->" not in line)
    return next((int(row[4]) for row in rows if row[5].endswith(f":{inode}")), None)
