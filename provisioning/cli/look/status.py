"""`flightcache status`: what is current, and how the last build ended."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from provisioning.area.place import height_in_words
from provisioning.base.disk.files import wrap_os_errors, write_durably
from provisioning.base.errors import Error
from provisioning.base.geometry.angles import Origin
from provisioning.base.hashing import short
from provisioning.base.printable import printable
from provisioning.base.words import columns, counted
from provisioning.build.status import Status, read_status
from provisioning.cli.look.metrics import metrics
from provisioning.console.bar import size
from provisioning.console.style import sentence
from provisioning.flight.vehicle import find_vehicle, installed_trust
from provisioning.flight.verify.floor import read_floor
from provisioning.flight.verify.reasons import Refusal

MOST_STEPS = 6
"""Tasks whose time is shown, the longest first; `--json` has all."""
EXAMPLE = """\
examples:
  flightcache status
  flightcache status /var/cache/survey-7 --json
  flightcache status . --metrics /var/lib/node_exporter/flightcache.prom
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory; default: here")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="also write Prometheus metrics, by rename")


def run(args: argparse.Namespace) -> int:
    """Show the status; 0 also where nothing is published yet."""
    status = read_status(args.cache)
    if args.metrics is not None:
        with wrap_os_errors("write the metrics", args.metrics):
            write_durably(args.metrics, metrics(status).encode())
    facts = {**status.as_json(), "vehicle": _vehicle(args.cache)}
    print(json.dumps(facts, indent=2) if args.json else as_text(status, now=time.time()))
    return 0


def as_text(status: Status, *, now: float) -> str:
    """Return the status for a person, at the time `now` in seconds since 1970."""
    rows = {"cache": status.cache, **_current(status, now), **_build(status, now), **_vehicle(Path(status.cache))}
    rows["free space"] = size(status.free_bytes)
    shown = {name: printable(value) for name, value in rows.items()}
    if status.current is not None:
        shown["summary"] = sentence(status.current.summary.parts())
    return "\n".join(columns(shown.items(), left=2))


def _vehicle(cache: Path) -> dict[str, str]:
    """Return what a vehicle keeps beside its cache: counter floor and trust file, nothing where there is none."""
    try:
        vehicle = find_vehicle(cache)
        trust = installed_trust(vehicle)
    except Error as error:
        return {"vehicle": error.what}
    if vehicle is None:
        return {}
    try:
        floor = read_floor(vehicle.floor, cache)
        said = f"{floor.counter}" + (f", fell back to {floor.fallback.counter}" if floor.fallback else "")
    except Refusal as refusal:
        said = refusal.reason.detail
    return {"floor": said, **({"trust file": f"version {trust.newest.version}"} if trust else {})}


def _current(status: Status, now: float) -> dict[str, str]:
    current = status.current
    if current is None:
        return {"current": f"unreadable: {status.unreadable}" if status.unreadable else "nothing is published yet"}
    flight = " ".join(part for part in (current.flight_id, current.aircraft_id) if part)
    gaps = f", {current.missing_tiles} missing" if current.missing_tiles else ""
    age = f", oldest captured {current.oldest_capture}" if current.oldest_capture else ""
    return {
        "current": f"{Path(current.generation).name}, published {ago(now - current.published_at)}, not verified here",
        "flight": flight or "any",
        **({"take-off": _place(current.takeoff)} if current.takeoff else {}),
        "counter": str(current.counter),
        "hash": short(current.manifest_hash),
        "tiles": "; ".join([f"{current.tiles}{gaps}{age}", *current.accepted]),
        "size": size(current.bytes),
    }


def _place(takeoff: Origin) -> str:
    place = f"{takeoff.lat_e7 / 1e7:.7f}, {takeoff.lon_e7 / 1e7:.7f}"
    return ", ".join(filter(None, (place, height_in_words(takeoff).replace("\u00a0", " "))))


def _build(status: Status, now: float) -> dict[str, str]:
    rows = {}
    if status.builder is not None:
        rows["building"] = f"process {status.builder}"
    if status.last_build is None or status.built_at is None:
        return {**rows, "last build": "none"}
    took = f"{status.last_build.elapsed_s:.1f} s"
    rows["last build"] = f"{status.last_build.outcome}, {ago(now - status.built_at)}, took {took}"
    if status.task_seconds:
        rows["steps"] = ", ".join(_steps(status))
    if status.last_build.failure_reason:
        rows["reason"] = status.last_build.failure_reason.partition("\n")[0]
    return rows


def _steps(status: Status) -> Iterator[str]:
    """Yield how long a descriptor and the longest tasks took, and how long they took before."""
    took, before = status.task_seconds, status.task_seconds_before
    if each := took.get("descriptors"):
        was = f" (before {_two_digits(before['descriptors'] * 1000)})" if "descriptors" in before else ""
        yield f"{_two_digits(each * 1000)} ms{was} a descriptor"
    longest = sorted((task for task in took if task != "descriptors"), key=lambda task: -took[task])
    for task in longest[:MOST_STEPS]:
        was = f" (before {_two_digits(before[task])})" if task in before else ""
        yield f"{task} {_two_digits(took[task])} s{was}"


def _two_digits(figure: float) -> str:
    """Return a figure with two digits that count, never as a power of ten."""
    return f"{figure:.0f}" if figure >= 10 else f"{figure:.2g}"


def ago(seconds: float) -> str:
    """Return an age for reading: `just now`, `12 minutes ago`, `3 days ago`."""
    for length, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{counted(count, unit)} ago"
    return "just now"
