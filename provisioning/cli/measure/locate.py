"""`flightcache locate`: the tiles that photos look like."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from provisioning.base.errors import Error
from provisioning.base.files import write_durably
from provisioning.cli.deliver.common import add_custom_ops, add_keys, ground, verified
from provisioning.flight.verify import Verdict
from provisioning.quality.locate import (
    Locator,
    Match,
    Photo,
    Row,
    as_json,
    contact_sheet,
    evenly_turned,
    read_photo,
    to_geojson,
)
from provisioning.quality.locate.imagery import imagery_of

EXAMPLE = """\
examples:
  flightcache locate DJI_0042.JPG                              heading from the photo's XMP or EXIF if it has one
  flightcache locate *.JPG --rotate 8 -k 3                     heading unknown: eight are tried
  flightcache locate crop.png --heading 275                    the photo's top points to 275 degree
  flightcache locate *.JPG --geojson found.geojson --contact-sheet sheet.png
"""


class Located(NamedTuple):
    """One photo with what was found."""

    path: Path
    photo: Photo
    matches: tuple[Match, ...]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("photo", type=Path, nargs="+", metavar="IMAGE", help="photo looking straight down")
    parser.add_argument("--cache", type=Path, default=Path(), metavar="DIR", help="cache directory, or one generation")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="tiles named for each photo (5)")
    heading = parser.add_mutually_exclusive_group()
    heading.add_argument("--rotate", type=int, metavar="N", help="heading unknown: try N, evenly around")
    heading.add_argument("--heading", type=float, metavar="DEG", help="where the top points, clockwise from true north")
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    parser.add_argument("--geojson", type=Path, metavar="FILE", help="write matches and positions as GeoJSON")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="write photos beside their candidates")
    add_custom_ops(parser)
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Verify the cache, look every photo up, report."""
    if args.k < 1 or (args.rotate is not None and args.rotate < 1):
        raise Error("-k and --rotate: at least 1")
    with verified(args.cache, ground(args, args.cache)) as (verdict, _):
        locator = Locator.from_verdict(verdict, custom_ops=args.custom_ops)
        found = [_locate(locator, path, args) for path in args.photo]
        if args.contact_sheet:
            _draw(args.cache, verdict, found, args.contact_sheet)
    if args.geojson:
        rows = ((item.path.name, item.photo.position, item.matches) for item in found)
        write_durably(args.geojson, to_geojson(rows))
    print(_as_json(found) if args.json else _as_text(found))
    return 0


def _locate(locator: Locator, path: Path, args: argparse.Namespace) -> Located:
    photo = read_photo(path)
    headings = headings_for(photo, rotate=args.rotate, heading=args.heading)
    return Located(path, photo, locator.locate(photo.pixels, k=args.k, headings=headings, position=photo.position))


def headings_for(photo: Photo, *, rotate: int | None, heading: float | None) -> tuple[float, ...]:
    """Return the headings to try: those asked for, or else the photo's own, or else north."""
    if rotate is not None:
        return evenly_turned(rotate)
    if heading is not None:
        return (heading % 360,)
    return (photo.heading_deg or 0.0,)


def _draw(cache: Path, verdict: Verdict, found: list[Located], output: Path) -> None:
    with imagery_of(cache, verdict, [match for item in found for match in item.matches]) as imagery:
        rows = [Row(item.path.name, item.photo.pixels, item.matches) for item in found]
        write_durably(output, contact_sheet(rows, imagery))


def _as_json(found: list[Located]) -> str:
    return json.dumps(
        [
            {
                "photo": str(item.path),
                "heading_deg": item.photo.heading_deg,
                "position": item.photo.position
                and {"lat": item.photo.position.lat_e7 / 1e7, "lon": item.photo.position.lon_e7 / 1e7},
                "matches": [as_json(match) for match in item.matches],
            }
            for item in found
        ],
        indent=2,
    )


def _as_text(found: list[Located]) -> str:
    lines = []
    for item in found:
        known = ", position in the photo" if item.photo.position else ""
        turned = f", top points to {item.photo.heading_deg:.0f}°" if item.photo.heading_deg is not None else ""
        lines.append(f"{item.path}{turned}{known}")
        for rank, match in enumerate(item.matches, 1):
            away = "" if match.distance_m is None else f"  {match.distance_m:8,.0f} m away"
            lat, lon = match.centre.lat_e7 / 1e7, match.centre.lon_e7 / 1e7
            tile = f"{match.z}/{match.x}/{match.y}"
            lines.append(
                f"  {rank:>2}  {tile:<18} {lat:11.7f} {lon:12.7f}  {match.similarity:.3f}"
                f"  heading {match.heading_deg:3.0f}°{away}"
            )
    return "\n".join(lines)
