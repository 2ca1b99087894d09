"""`flightcache evaluate`: how often a cache knows the place, and what other settings would give."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from provisioning.base.disk.files import write_durably
from provisioning.base.errors import Error
from provisioning.cli.deliver.common import add_custom_ops, add_keys, add_own, ground, verified
from provisioning.cli.measure.locate import add_view, question_of, require_view, second_stage
from provisioning.cli.measure.track import add_track, flown, report, require_track, settings_of
from provisioning.cli.measure.variants import Variant, locators, parse_variant
from provisioning.cli.parsing import needs
from provisioning.flight.manifest import Manifest
from provisioning.index.ids import HEADING_BITS
from provisioning.quality.evaluate.plot import to_svg
from provisioning.quality.evaluate.queries import Query, find_queries, has_subtitles, to_csv
from provisioning.quality.evaluate.run import Trial, ask, usual_distance_m
from provisioning.quality.evaluate.score import RANKS
from provisioning.quality.evaluate.table import Result, as_json, as_text, per_query
from provisioning.quality.locate import Locator, Question

Measured = TypeVar("Measured")
EXAMPLE = """\
examples:
  flightcache evaluate DCIM/100MEDIA --radius 1000              a folder of photos as it comes, position known to 1 km
  flightcache evaluate queries.csv                              a list: file,lat,lon[,yaw,pitch,roll,height_m,fov_deg]
  flightcache evaluate flight/ --track --radius 500 --plot a.svg --geojson a.geojson   as a flight
  flightcache evaluate queries.csv gist/ megaloc/ --within 50   two caches side by side
  flightcache evaluate queries.csv . --own --try transform=center --try "transform=pca-whiten(128)" --try rotations=4 \\
      --try zooms=17+18 --csv answers.csv --plot recall.svg         other settings of this cache, nothing published
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "queries",
        type=Path,
        metavar="PHOTOS",
        help="folder of photos with positions, a .SRT or a flight log, or a CSV file,lat,lon",
    )
    parser.add_argument("cache", type=Path, nargs="*", default=[Path()], help="cache directories or generations")
    parser.add_argument("--within", type=float, metavar="M", help="metre an answer may be off (a tile's side)")
    parser.add_argument(
        "--radius", type=float, metavar="M", help="search only a circle of this radius that holds the truth"
    )
    parser.add_argument("--frame-step", type=int, metavar="N", help="frames of the video between two images (1)")
    add_view(parser)
    parser.add_argument(
        "--try",
        dest="variants",
        action="append",
        default=[],
        metavar="NAME=VALUE[,…]",
        help="also the first cache with other transform, rotations, overlap, kind, zooms (a+b), rotate, patches, "
        "mean=running",
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every answer under every setting")
    parser.add_argument(
        "--plot", type=Path, metavar="SVG", help="write share of photos against distance; of a track its error"
    )
    add_track(parser)
    add_custom_ops(parser)
    add_own(parser)
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Ask every setting every query and print one table."""
    _require_own(args)
    needs("--own", "--try", given=args.own, there=bool(args.variants))
    if any(each is not None and not 0 < each < float("inf") for each in (args.within, args.radius)):
        raise Error("--within and --radius: metres above zero")
    require_view(args, max(RANKS))
    if args.frame_step is not None and args.frame_step < 1:
        raise Error("--frame-step: at least 1")
    needs(
        "--frame-step",
        "a folder of a video's frames with its .SRT",
        given=args.frame_step is not None,
        there=args.frame_step is None or has_subtitles(args.queries),
    )
    require_track(args)
    queries = find_queries(args.queries, frame_step=args.frame_step or 1)
    if args.track:
        report(args, list(_results(args, queries, partial(flown, settings_of(args)))))
        return 0
    results = list(_results(args, queries, _result))
    if args.csv:
        to_csv(per_query(results), args.csv)
    if args.plot:
        write_durably(args.plot, to_svg(results))
    print(json.dumps([as_json(result) for result in results], indent=2) if args.json else as_text(results))
    return 0


def _results(
    args: argparse.Namespace,
    queries: Sequence[Query],
    measured: Callable[[str, Locator, Sequence[Query], Trial, int], Measured],
) -> Iterator[Measured]:
    within_m, firsts = args.within, []
    with ExitStack() as stack:
        for cache in args.cache:
            with verified(cache, ground(args, cache)) as (verdict, _):
                locator, manifest = Locator.from_verdict(verdict, custom_ops=args.custom_ops), verdict.require()
                stage = stack.enter_context(second_stage(args, verdict))
            firsts.append((manifest, stage))
            within_m = within_m or usual_distance_m(locator, queries)
            trial = Trial(question_of(args, manifest, max(RANKS), stage), within_m, args.radius)
            yield measured(_named(cache, manifest), locator, queries, trial, manifest.descriptor_index.bytes)
        if args.variants:
            manifest, stage = firsts[0]
            variants = [parse_variant(text) for text in args.variants]
            with locators(args.cache[0], variants, manifest=manifest, custom_ops=args.custom_ops) as built:
                for variant, locator, request in built:
                    question = _varied(question_of(args, manifest, max(RANKS), stage), variant)
                    trial = Trial(question, within_m, args.radius)
                    yield measured(variant.name, locator, queries, trial, request.index.path.stat().st_size)


def _require_own(args: argparse.Namespace) -> None:
    """Refuse `--try` for a directory that the user does not call theirs: nobody signed its flight.toml and .build."""
    if args.variants and not args.own:
        raise Error(
            "--try builds from flight.toml, sources and .build of the first directory, which nobody signed",
            file=args.cache[0],
            next_step="add --own if that directory is yours",
        )


def _varied(question: Question, variant: Variant) -> Question:
    """Return the question as a variant asks it: with a number of headings or of patches of its own."""
    return replace(
        question,
        rotate=variant.rotate or question.rotate,
        patches=question.patches if variant.patches is None else variant.patches,
    )


def _named(cache: Path, manifest: Manifest) -> str:
    """Return how the table calls a cache: its directory and what sets it apart."""
    index = manifest.descriptor_index
    words = [Path(os.path.realpath(cache)).name, index.kind]
    words += [index.transform] if index.transform != "none" else []
    words += [f"{index.rotations} headings"] if index.rotations > 1 else []
    words += ["cuts"] if index.overlap else []
    return " ".join(words)


def _result(name: str, locator: Locator, queries: Sequence[Query], trial: Trial, index_bytes: int) -> Result:
    asked = ask(locator, queries, trial)
    tiles = len(np.unique(locator.ids >> HEADING_BITS))
    return Result(name, tiles, index_bytes, locator.index.d, asked, trial.within_m, trial.radius_m)
