"""`flightcache tiles`: what the corpus is made of, and what it lacks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from provisioning.area.place import place_facts
from provisioning.base.disk.lock import build_lock
from provisioning.base.words import columns, counted
from provisioning.catalogue import scan
from provisioning.catalogue.inventory import Inventory, take_inventory
from provisioning.config.parse import read_flight

EXAMPLE = """\
examples:
  flightcache tiles                 what the last scan found here
  flightcache tiles --scan          look at the stores first (needs the build lock)
  flightcache tiles mycache --json
"""
MOST_NAMED = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory; default: here")
    parser.add_argument("--scan", action="store_true", help="bring the catalogue up to date first")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Print the inventory; 0 whatever it shows."""
    flight = read_flight(args.cache)
    if args.scan:
        with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
            scan(flight.selection, flight.build_dir)
    inventory = take_inventory(flight.selection, flight.build_dir)
    print(json.dumps(inventory.as_json(), indent=2) if args.json else as_text(inventory))
    return 0


def as_text(inventory: Inventory) -> str:
    """Return the inventory for a person."""
    parts = [
        "\n".join([
            f"{counted(inventory.count, 'tile')}, {_size(inventory.bytes)}",
            *(f"  {name + ':':8} {value}" for name, value in place_facts(inventory.bbox).items()),
        ]),
        f"coverage_sha256 {inventory.coverage_sha256}",
        _table(
            ("zoom", "present", "expected", "km² present", "km² expected", "holes", "largest hole"),
            (
                (z.zoom, f"{z.present:,}", f"{z.expected:,}", f"{z.present_km2:,.3f}", f"{z.expected_km2:,.3f}",
                 f"{z.holes:,}", f"{z.largest_hole_m:,.0f} m")
                for z in inventory.zooms
            ),
        ),
        _table(
            ("source", "zoom", "taken", "shadowed", "empty", "unusable", "bytes", "captured", "undated"),
            (
                (s.source, s.zoom, f"{s.taken:,}", f"{s.shadowed:,}", f"{s.empty:,}", f"{s.unusable:,}",
                 _size(s.bytes), _dates(s.oldest, s.newest), f"{s.undated:,}")
                for s in inventory.sources
            ),
        ),
        *_notes(inventory),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))


def _notes(inventory: Inventory) -> Iterable[str]:
    yield "\n".join(f"zoom {z.zoom}: {z.note}" for z in inventory.zooms if z.note)
    yield _named("unusable tiles", [f"{s.source} {s.z}/{s.x}/{s.y}: {s.reason}" for s in inventory.skipped])
    gone = [f"{t.z}/{t.x}/{t.y} ({t.why})" for t in inventory.required_missing]
    yield _named(f"missing of {inventory.required} required tiles", gone)


def _named(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = [f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
    return "\n  ".join([f"{len(lines)} {title}:", *lines[:MOST_NAMED], *more])


def _dates(oldest: str | None, newest: str | None) -> str:
    if oldest is None or oldest == newest:
        return oldest or "-"
    return f"{oldest} to {newest}"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024  # type: ignore[assignment]
    return f"{count:,} B" if unit == "B" else f"{count:,.1f} {unit}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(columns([head, *([str(cell) for cell in row] for row in rows)]))
