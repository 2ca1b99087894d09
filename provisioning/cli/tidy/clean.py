"""`flightcache clean --old`: list and remove what `.build` keeps and nothing uses any more."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from provisioning.base.disk.lock import build_lock
from provisioning.base.printable import printable
from provisioning.build import unused
from provisioning.build.request import Request, read_request
from provisioning.config.parse import read_flight

EXAMPLE = """\
examples:
  flightcache clean --old              list what would be removed, with sizes
  flightcache clean --old --yes        remove it

Listed are engines, indexes, descriptors, measurements and logs in .build that neither flight.toml, nor the last build,
nor a published generation uses: `doit` makes them again where they are asked for again. `current` and all generations
stay.
`doit` itself removes what was not used for publish.keep_build_days. `doit clean` resets the whole cache.
"""
_DAY_S = 86_400


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory")
    parser.add_argument(
        "--old", action="store_true", required=True, help="what nothing uses any more; always to be said"
    )
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("-n", "--dry-run", action="store_true", help="list only, which is what happens without --yes")
    doing.add_argument("-y", "--yes", action="store_true", help="remove what is listed")


def run(args: argparse.Namespace) -> int:
    """List, and with --yes remove under the build lock, what is not used. EmptyCorpusError before the first scan."""
    cache = args.cache.absolute()
    if not args.yes:
        request = read_request(cache)
        found = unused.find_unused(request)
        _show(request, found, f"{_total(found)} would be freed; nothing was removed: add --yes" if found else "")
        return 0
    flight = read_flight(cache)
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        request = read_request(cache)
        found = unused.find_unused(request)
        gone = unused.remove(request, found)
    _show(request, gone, f"{_total(gone)} freed" if gone else "")
    for each in found:
        if each not in gone:
            print(f"left: {printable(each.path)} is in use by another process")
    return 0


def _show(request: Request, listed: Iterable[unused.Unused], last: str) -> None:
    now = time.time()
    for each in listed:
        days = max(0, int((now - each.used_s) // _DAY_S))
        print(f"{each.bytes / 1e6:10.1f} MB  {days:4d} days  {printable(_short(each.path))}  {each.holds}")
    store = request.flight.descriptor_store
    if request.flight.build_dir not in store.parents:
        print(f"not looked at: {printable(store)} may serve other caches too")
    print(last or "nothing in .build is unused")


def _short(path: str) -> str:
    folder, _, name = path.partition("/")
    return f"{folder}/{name[:8]}…" if len(name) > 60 else path


def _total(listed: Iterable[unused.Unused]) -> str:
    return f"{sum(each.bytes for each in listed) / 1e6:.1f} MB"
