"""`flightcache evaluate --track`: its options, and what it prints and writes of a flight."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from provisioning.base.disk.files import write_durably
from provisioning.base.errors import Error
from provisioning.cli.parsing import needs
from provisioning.quality.evaluate.queries import Query, to_csv
from provisioning.quality.evaluate.run import Trial
from provisioning.quality.locate import Locator
from provisioning.quality.track.drawing import to_geojson, to_svg
from provisioning.quality.track.figures import as_json, as_text, per_step
from provisioning.quality.track.fly import Flown, Settings, fly

DEFAULT = Settings()
MOST_NOISE = 1.0


def add_track(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a track."""
    parser.add_argument(
        "--track",
        action="store_true",
        help="take the photos, in their order, as a flight: a filter over the answers and simulated odometry",
    )
    parser.add_argument(
        "--odometry",
        type=float,
        metavar="SHARE",
        help=f"standard deviation of odometry, a share of the way ({DEFAULT.noise:g})",
    )
    parser.add_argument("--seed", type=int, help=f"of start and odometry ({DEFAULT.seed})")
    parser.add_argument("--geojson", type=Path, metavar="FILE", help="write the flight as a map layer")


def require_track(args: argparse.Namespace) -> None:
    """Raise Error for options that cannot be."""
    for name in ("geojson", "odometry", "seed"):
        needs(f"--{name}", "--track", given=getattr(args, name) is not None, there=args.track)
    if args.odometry is not None and not 0 < args.odometry <= MOST_NOISE:
        raise Error(f"--odometry: above 0, {MOST_NOISE:g} at most", next_step="0.1 is wrong by a tenth of the way")
    if args.seed is not None and args.seed < 0:
        raise Error("--seed: 0 or more")


def settings_of(args: argparse.Namespace) -> Settings:
    """Return how the flight is simulated; the start is known to --radius."""
    return Settings(
        radius_m=args.radius or DEFAULT.radius_m,
        noise=args.odometry or DEFAULT.noise,
        within_m=args.within or DEFAULT.within_m,
        seed=DEFAULT.seed if args.seed is None else args.seed,
    )


def flown(
    settings: Settings, name: str, locator: Locator, queries: Sequence[Query], trial: Trial, _index_bytes: int
) -> Flown:
    """Return the flight over `queries` under one setting of the cache."""
    return fly(name, locator, queries, trial.question, settings)


def report(args: argparse.Namespace, flights: Sequence[Flown]) -> None:
    """Write the files asked for and print the figures."""
    if args.csv:
        to_csv(per_step(flights), args.csv)
    if args.plot:
        write_durably(args.plot, to_svg(flights))
    if args.geojson:
        write_durably(args.geojson, to_geojson(flights))
    print(json.dumps([as_json(each) for each in flights], indent=2) if args.json else as_text(flights))
