r"""What flight software does with a cache between power-on and take-off: verify, load what was verified, answer.

    python startup.py /var/lib/flightcache --public-key operator.pub.pem --flight F-118 --aircraft AC-7 \
        --floor /var/lib/flightcache-floor < frames

Every frame is one line on stdin: the path of an image, quoted as for a shell if it has spaces; then, as far as they
are known, where its top points (degree clockwise from north, `-` for unknown) and a circle in which the aircraft is
(latitude, longitude, radius in metres).
Each answer is one line of JSON; `doubt` says why its first match is not to be relied on, null where nothing speaks
against it. Nothing is opened by name after the verdict: engine and index are loaded from the bytes that were hashed.
Exit code 22 means: do not fly this cache; the reasons are on stderr.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from provisioning.base.errors import Error
from provisioning.base.geometry.angles import Origin
from provisioning.config import Engine
from provisioning.engines import select
from provisioning.flight.signing import load_public_key
from provisioning.flight.trust import read_trust
from provisioning.flight.verify import ANY, CounterFloor, Expectations, ExpectedHost, verify
from provisioning.quality.locate import Locator, Photo, Prior, Question, answer, as_json, read_photo
from provisioning.quality.query import Declared, from_manifest

HEADINGS_WHEN_UNKNOWN = 16


def expectations(args: argparse.Namespace) -> Expectations:
    """Say everything that this aircraft knows about the cache that it should have; nothing is left to a default."""
    here = select(Engine()).probe()
    return Expectations(
        keys=tuple(load_public_key(path) for path in args.public_key),
        trust=read_trust(args.trust).newest if args.trust else None,
        flight_id=args.flight,
        aircraft_id=args.aircraft,
        host=ExpectedHost(*here, precision=ANY),  # an engine is flown only on the host tuple it was compiled for
        counter_floor=CounterFloor(args.floor, raise_on_pass=True),
    )


class Ready(NamedTuple):
    """A cache that may be flown, loaded: what places are looked up with, and the camera that the Manifest declares."""

    locator: Locator
    camera: Declared


def start(cache: Path, expect: Expectations) -> Ready:
    """Load a cache that may be flown; VerificationError otherwise, with every reason."""
    with verify(cache, expect) as verdict:
        return Ready(Locator.from_verdict(verdict), from_manifest(verdict.require().camera))


def look_up(ready: Ready, photo: Photo, *, heading_deg: float | None, near: Prior | None) -> dict[str, object]:
    """Return the places that `photo` looks like, as JSON values.

    heading_deg: where its top points, degree clockwise from north; None: as its metadata says, else every heading is
    tried. near: circle to which the search is limited; None: everywhere.
    """
    blind = heading_deg is None and photo.heading_deg is None
    question = Question(ready.camera, k=3, heading_deg=heading_deg, rotate=HEADINGS_WHEN_UNKNOWN if blind else None)
    found = answer(ready.locator, photo, question, near=near)
    return {"matches": [as_json(match) for match in found.matches], "doubt": found.doubt}


def answers(ready: Ready, frames: Iterable[str]) -> Iterator[dict[str, object]]:
    """Yield an answer for each line `path [heading [lat lon radius_m]]`; one that cannot be read is answered too."""
    for line in frames:
        begun = time.perf_counter()
        name = line.strip()
        try:
            words = shlex.split(line)
            name, heading, *circle = words if len(words) > 1 else [*words, "-"]
            heading_deg = None if heading == "-" else float(heading)
            found = look_up(ready, read_photo(Path(name)), heading_deg=heading_deg, near=prior(circle))
            yield {"frame": name, **found, "ms": round(1000 * (time.perf_counter() - begun), 1)}
        except (Error, ValueError) as error:
            yield {"frame": name, "error": str(error).splitlines()[0]}


def prior(words: list[str]) -> Prior | None:
    """Return the circle of `lat lon radius_m`, None for no words; ValueError for anything else."""
    if not words:
        return None
    lat, lon, radius_m = map(float, words)
    return Prior(Origin(round(lat * 1e7), round(lon * 1e7)), radius_m)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of what this aircraft knows about its cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--public-key", type=Path, action="append", default=[])
    who.add_argument("--trust", type=Path, help="the trust file that `flightcache trust install` keeps up to date")
    parser.add_argument("--flight", required=True)
    parser.add_argument("--aircraft", help="leave out only if the cache is for no particular aircraft")
    parser.add_argument(
        "--floor", type=Path, required=True, help="file with the least counter accepted, not in the cache"
    )
    return parser


def main() -> int:
    """Verify, load, and answer until the frames end."""
    args = arguments().parse_args()
    try:
        ready = start(args.cache, expectations(args))
    except Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for found in answers(ready, filter(str.strip, sys.stdin)):
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
