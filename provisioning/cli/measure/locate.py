"""`flightcache locate`: the tiles that photos look like."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import write_durably
from provisioning.base.errors import Error
from provisioning.base.geometry.angles import Origin
from provisioning.base.printable import printable
from provisioning.cli.deliver.common import add_custom_ops, add_keys, add_own, ground, verified
from provisioning.cli.parsing import UsageError, needs
from provisioning.flight.manifest import Manifest
from provisioning.flight.verify import Verdict
from provisioning.quality.locate import (
    Answered,
    Assumed,
    Locator,
    Match,
    Photo,
    Prior,
    Question,
    Row,
    as_json,
    contact_sheet,
    map_tiles,
    to_geojson,
)
from provisioning.quality.locate.asking import COMPARED, ask_file
from provisioning.quality.locate.imagery import has_imagery, imagery_of
from provisioning.quality.locate.search import PATCHES
from provisioning.quality.matching import TRIED, Fix, Ground, SecondStage, extractor_of, on_board
from provisioning.quality.query import Angles, from_manifest
from provisioning.quality.query.viewing import Known

EXAMPLE = """\
examples:
  flightcache locate DJI_0042.JPG                              camera, height and heading from the photo if it has them
  flightcache locate *.JPG --near 47.3977,8.5456 --radius 1000 only where the aircraft can be
  flightcache locate frame.png --height 120 --fov 69 --pitch -45 --heading 275 --heading-sigma 10
  flightcache locate *.JPG --rotate 8 -k 3                     heading unknown: eight are tried
  flightcache locate *.JPG --second-stage sift                 position in metres from the imagery on board
  flightcache locate *.JPG --geojson found.geojson --contact-sheet sheet.png
"""
DEFAULT_RADIUS_M = 1000.0


class Located(NamedTuple):
    """One photo with what was found."""

    path: Path
    photo: Photo
    answered: Answered

    @property
    def matches(self) -> tuple[Match, ...]:
        """The places found, the best first."""
        return self.answered.matches


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("photo", type=Path, nargs="+", metavar="IMAGE", help="photo of the ground")
    parser.add_argument("--cache", type=Path, default=Path(), metavar="DIR", help="cache directory, or one generation")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="places named for each photo (5)")
    parser.add_argument(
        "--near", type=place, metavar="LAT,LON", help="where it is about, degree; --near=-33.9,151.2 in the south"
    )
    parser.add_argument("--radius", type=float, metavar="M", help="how far from there it may be, metre (1000)")
    add_view(parser)
    parser.add_argument("--height", type=float, metavar="M", help="height above ground, metre, instead of the photo's")
    parser.add_argument("--pitch", type=float, metavar="DEG", help="camera above the horizon; -90 looks straight down")
    parser.add_argument("--fov", type=float, metavar="DEG", help="horizontal field of view")
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    parser.add_argument("--geojson", type=Path, metavar="FILE", help="write matches and positions as GeoJSON")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="write photos beside their candidates")
    add_own(parser)
    add_custom_ops(parser)
    add_keys(parser)


def add_view(parser: argparse.ArgumentParser) -> None:
    """Declare what `locate` and `evaluate` share about headings and rendering."""
    heading = parser.add_mutually_exclusive_group()
    heading.add_argument("--rotate", type=int, metavar="N", help="heading unknown: try N, evenly around")
    heading.add_argument("--heading", type=float, metavar="DEG", help="where the top points, clockwise from true north")
    parser.add_argument(
        "--heading-sigma",
        type=float,
        default=0.0,
        metavar="DEG",
        help="how well the heading is known; 2 sigma are tried",
    )
    parser.add_argument(
        "--height-sigma",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="how well the height is known; 2 sigma are tried",
    )
    parser.add_argument(
        "--pitch-sigma", type=float, default=0.0, metavar="DEG", help="how well the pitch is known; 2 sigma are tried"
    )
    parser.add_argument(
        "--patches", type=int, default=PATCHES, metavar="N", help=f"squares of ground asked for; 0: none ({PATCHES})"
    )
    parser.add_argument(
        "--second-stage",
        metavar="FEATURES",
        help="compare local features with the imagery on board: position in metres; orb, sift, or matcher: "
        "the backbone of that role, or its name",
    )
    parser.add_argument("--rerank", type=int, metavar="K", help=f"places that the second stage tries ({TRIED})")


def place(text: str) -> Origin:
    """Read `LAT,LON` in degrees."""
    try:
        lat, lon = (float(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LAT,LON in degrees, got {text!r}") from None
    if not (abs(lat) <= 90 and abs(lon) <= 180):
        raise argparse.ArgumentTypeError(f"expected LAT,LON in degrees, got {text!r}")
    return Origin(round(lat * 1e7), round(lon * 1e7))


def require_view(args: argparse.Namespace, k: int) -> None:
    """Refuse numbers that make no sense. Raises Error."""
    if k < 1 or (args.rotate is not None and args.rotate < 1):
        raise Error("-k and --rotate: at least 1")
    if args.rotate is not None and args.heading_sigma:
        raise UsageError(
            "--heading-sigma has no effect with --rotate", next_step="--rotate tries all headings: leave one out"
        )
    if args.patches < 0 or not 0 <= args.heading_sigma <= 180:
        raise Error("--patches: 0 or more; --heading-sigma: 0 to 180 degree")
    if not 0 <= args.height_sigma <= 40:
        raise Error("--height-sigma: 0 to 40 per cent")
    if not 0 <= args.pitch_sigma <= 20:
        raise Error("--pitch-sigma: 0 to 20 degree")
    needs("--rerank", "--second-stage", given=args.rerank is not None, there=args.second_stage is not None)
    if args.rerank is not None and not 1 <= args.rerank <= COMPARED:
        raise Error(f"--rerank: 1 to {COMPARED} places")


@contextmanager
def second_stage(args: argparse.Namespace, verdict: Verdict) -> Iterator[SecondStage | None]:
    """Yield the second stage that the options ask for, over the imagery of a verified cache; None without."""
    if args.second_stage is None:
        yield None
        return
    extract = extractor_of(args.second_stage, verdict, custom_ops=args.custom_ops)
    with on_board(verdict) as tiles:
        yield SecondStage(extract, Ground(tiles, extract), args.rerank or TRIED)


def question_of(args: argparse.Namespace, manifest: Manifest, k: int, stage: SecondStage | None = None) -> Question:
    """Return how the options ask a cache, with the camera that its verified Manifest declares."""
    return Question(
        camera=from_manifest(manifest.camera),
        k=k,
        rotate=args.rotate,
        heading_deg=None if args.heading is None else args.heading % 360,
        heading_sigma_deg=args.heading_sigma,
        patches=args.patches,
        height_sigma=args.height_sigma / 100,
        pitch_sigma_deg=args.pitch_sigma,
        second_stage=stage,
    )


def run(args: argparse.Namespace) -> int:
    """Verify the cache, look every photo up, report."""
    require_view(args, args.k)
    needs("--own", "--contact-sheet", given=args.own, there=args.contact_sheet is not None)
    near, known = _prior(args), _known(args)
    with verified(args.cache, ground(args, args.cache)) as (verdict, _):
        locator = Locator.from_verdict(verdict, custom_ops=args.custom_ops)
        with second_stage(args, verdict) as stage:
            question = question_of(args, verdict.require(), args.k, stage)
            found = [Located(p, *ask_file(locator, p, question, near=near, known=known)) for p in args.photo]
        if args.contact_sheet:
            _draw(args.cache, verdict, found, args.contact_sheet, own=args.own)
    if args.geojson:
        rows = ((item.path.name, item.photo.position, item.matches) for item in found)
        write_durably(args.geojson, to_geojson(rows))
    print(_as_json(found) if args.json else _as_text(found))
    return 0


def _prior(args: argparse.Namespace) -> Prior | None:
    needs("--radius", "--near LAT,LON", given=args.radius is not None, there=args.near is not None)
    if args.radius is not None and not 0 < args.radius < float("inf"):
        raise Error("--radius: metres above zero")
    return None if args.near is None else Prior(args.near, args.radius or DEFAULT_RADIUS_M)


def _known(args: argparse.Namespace) -> Known:
    if args.height is not None and not 2 <= args.height <= 100_000:
        raise Error("--height: 2 to 100000 metre above ground")
    if args.fov is not None and not 1 <= args.fov <= 170:
        raise Error("--fov: 1 to 170 degree")
    if args.pitch is not None and not -180 <= args.pitch <= 90:
        raise Error("--pitch: -180 to 90 degree; -90 looks straight down")
    return Known(Angles(None, args.pitch), args.height, args.fov)


def _draw(cache: Path, verdict: Verdict, found: list[Located], output: Path, *, own: bool) -> None:
    if not (own or has_imagery(verdict)):
        print(
            "the contact sheet is without tiles: none are on board, and flight.toml is not signed;"
            " --own reads the sources that it names",
            file=sys.stderr,
        )
    shown = [match for item in found for match in item.matches]
    around = [tile for item in found for match in item.matches[:1] for tile in map_tiles(match)]
    with imagery_of(cache, verdict, [*shown, *around], own=own) as imagery:
        notes = ["not confident" if item.answered.doubt else "" for item in found]
        rows = [
            Row(each.path.name, each.photo.pixels, each.matches, note, each.photo.position)
            for each, note in zip(found, notes, strict=True)
        ]
        write_durably(output, contact_sheet(rows, imagery))


def _as_json(found: list[Located]) -> str:
    return json.dumps(
        [
            {
                "photo": str(item.path),
                "heading_deg": item.photo.heading_deg,
                "position": item.photo.position
                and {"lat": item.photo.position.lat_e7 / 1e7, "lon": item.photo.position.lon_e7 / 1e7},
                "compared": compared(item.answered),
                "confident": item.answered.doubt is None,
                "doubt": item.answered.doubt,
                "assumed": item.answered.assumed.as_json(),
                "fix": item.answered.fix and fix_json(item.answered.fix),
                "matches": [as_json(match) for match in item.matches],
            }
            for item in found
        ],
        indent=2,
    )


def fix_json(fix: Fix) -> dict[str, object]:
    """Return a fix as JSON values; the covariance in square metres, east before north."""
    covariance = [[fix.east_m2, fix.east_north_m2], [fix.east_north_m2, fix.north_m2]]
    rounded = [[round(each, 2) for each in row] for row in covariance]
    return {"features": fix.inliers, "compared": fix.compared, "covariance_m2": rounded}


def compared(answered: Answered) -> str:
    """Return how a photo was brought to the tiles' form, in words."""
    seen = answered.viewing
    if isinstance(seen, str):
        return f"as it is ({seen})"
    return f"rendered from {seen.height_m:.0f} m above ground"


HEADER = "rank  tile                       lat          lon  similarity  stands out  heading"


def _as_text(found: list[Located]) -> str:
    return "\n".join(line for item in found for line in _lines(item))


def _lines(item: Located) -> Iterator[str]:
    """Yield what a person reads of one photo: how it was compared, what to make of the answer, the places."""
    position = ", position in the photo" if item.photo.position else ""
    turned = f", top points to {item.photo.heading_deg:.0f}°" if item.photo.heading_deg is not None else ""
    yield f"{printable(item.path)}{turned}{position}, {compared(item.answered)}"
    if not item.matches:
        yield "      no tile of the cache lies where the photo can have been taken"
        return
    yield from (f"      {line}" for line in _assumptions(item.answered.assumed))
    if item.answered.doubt:
        yield f"      not confident: {item.answered.doubt}"
    if item.answered.fix:
        fix = item.answered.fix
        sigma_m = (fix.east_m2**0.5, fix.north_m2**0.5)
        yield (
            f"      position of the first from {fix.inliers} features of {fix.compared} that agree, "
            f"± {sigma_m[0]:.1f} m east, ± {sigma_m[1]:.1f} m north"
        )
    yield HEADER + ("      away" if item.matches[0].distance_m is not None else "")
    yield from (_line(rank, match) for rank, match in enumerate(item.matches, 1))


def _assumptions(assumed: Assumed) -> Iterator[str]:
    """Yield what was taken for granted of a photo, and what says better."""
    if assumed.heading_deg is not None:
        yield "north assumed: the photo has no heading; try --rotate 16"
    if assumed.pitch_deg is not None:
        yield f"pitch of {assumed.pitch_deg:.0f}° assumed: the photo has none; --pitch DEG says it"
    if assumed.height_m is not None:
        height = f"{assumed.height_m:.0f} m above ground"
        yield f"{height} assumed (camera.height_m): the photo has no height; --height M says it"
    if assumed.height_sought_m is not None:
        yield "the photo has no height: of several tried this one fits best; --height M says it"


def _line(rank: int, match: Match) -> str:
    away = "" if match.distance_m is None else f"  {match.distance_m:6,.0f} m"
    lat, lon = match.position.lat_e7 / 1e7, match.position.lon_e7 / 1e7
    return (
        f"{rank:>4}  {match.name:<18} {lat:11.7f} {lon:12.7f}  {match.similarity:10.3f}  {match.standing:10.1f}"
        f"  {match.heading_deg:6.0f}°{away}"
    )
