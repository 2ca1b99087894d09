"""`flightcache evaluate`: how often a cache knows the place, and what other settings would give."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from provisioning.base.errors import Error
from provisioning.base.files import write_durably
from provisioning.cli.deliver.common import add_custom_ops, add_keys, ground, verified
from provisioning.cli.measure.variants import locators, parse_variant
from provisioning.flight.manifest import Manifest
from provisioning.index.ids import HEADING_BITS
from provisioning.quality.evaluate import (
    Query,
    Result,
    as_json,
    as_text,
    ask,
    per_query,
    read_queries,
    to_csv,
    to_svg,
    usual_distance_m,
)
from provisioning.quality.locate import Locator

EXAMPLE = """\
examples:
  flightcache evaluate queries.csv                                  the cache here; columns file,lat,lon[,yaw]
  flightcache evaluate queries.csv gist/ megaloc/ --within 50       two caches side by side
  flightcache evaluate queries.csv . --try transform=center --try "transform=pca-whiten(128)" --try rotations=4 \\
      --try zooms=17+18 --csv answers.csv --plot recall.svg         other settings of this cache, nothing published
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("queries", type=Path, metavar="QUERIES.csv", help="file, lat, lon and optionally yaw, degree")
    parser.add_argument("cache", type=Path, nargs="*", default=[Path()], help="cache directories or generations")
    parser.add_argument("--within", type=float, metavar="M", help="metre a tile's centre may be off (a tile's side)")
    parser.add_argument("--rotate", type=int, metavar="N", help="try N headings instead of the yaw in the list")
    parser.add_argument(
        "--try",
        dest="variants",
        action="append",
        default=[],
        metavar="NAME=VALUE[,…]",
        help="also the first cache with other settings: transform, rotations, kind, zooms (a+b), rotate",
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every answer under every setting")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="write share of photos against distance")
    add_custom_ops(parser)
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Ask every setting every query and print one table."""
    if (args.rotate is not None and args.rotate < 1) or (args.within is not None and args.within <= 0):
        raise Error("--rotate and --within: greater than zero")
    queries = read_queries(args.queries)
    results = list(_results(args, queries))
    if args.csv:
        to_csv(per_query(results), args.csv)
    if args.plot:
        write_durably(args.plot, to_svg(results))
    print(json.dumps([as_json(result) for result in results], indent=2) if args.json else as_text(results))
    return 0


def _results(args: argparse.Namespace, queries: Sequence[Query]) -> Iterator[Result]:
    within_m, manifests = args.within, []
    for cache in args.cache:
        with verified(cache, ground(args, cache)) as (verdict, _):
            locator, manifest = Locator.from_verdict(verdict, custom_ops=args.custom_ops), verdict.require()
        manifests.append(manifest)
        within_m = within_m or usual_distance_m(locator, queries)
        size = manifest.descriptor_index.bytes
        yield _result(_named(cache, manifest), locator, queries, args.rotate, within_m, size)
    if args.variants:
        variants = [parse_variant(text) for text in args.variants]
        with locators(args.cache[0], variants, manifest=manifests[0], custom_ops=args.custom_ops) as built:
            for variant, locator, request in built:
                rotate = variant.rotate or args.rotate
                size = request.index.path.stat().st_size
                yield _result(variant.name, locator, queries, rotate, within_m, size)


def _named(cache: Path, manifest: Manifest) -> str:
    """Return how the table calls a cache: its directory and what sets it apart."""
    index = manifest.descriptor_index
    words = [cache.resolve().name, index.kind]
    words += [index.transform] if index.transform != "none" else []
    words += [f"{index.rotations} headings"] if index.rotations > 1 else []
    return " ".join(words)


def _result(
    name: str, locator: Locator, queries: Sequence[Query], rotate: int | None, within_m: float, index_bytes: int
) -> Result:
    asked = ask(locator, queries, rotate=rotate, within_m=within_m)
    tiles = len(np.unique(locator.ids >> HEADING_BITS))
    return Result(name, tiles, index_bytes, locator.index.d, asked, within_m)
