r"""What flight software does with a cache between power-on and take-off: verify, load what was verified, answer.

    python startup.py /var/lib/flightcache --public-key operator.pub.pem --flight F-118 --aircraft AC-7 \
        --floor /var/lib/flightcache-floor < frames

Every frame is one line on stdin: the path of an image looking straight down, and optionally where its top points. Each
answer is one line of JSON. Nothing is opened by name after the verdict: engine and index are loaded from the bytes that
were hashed. Exit code 22 means: do not fly this cache; the reasons are on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from provisioning.base.errors import Error
from provisioning.config import Engine
from provisioning.engines import select
from provisioning.flight.signing import load_public_key
from provisioning.flight.trust import read_trust
from provisioning.flight.verify import ANY, CounterFloor, Expectations, ExpectedHost, verify
from provisioning.quality.locate import Locator, as_json, evenly_turned, read_photo

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


def start(cache: Path, expect: Expectations) -> Locator:
    """Return the locator of a cache that may be flown; VerificationError otherwise, with every reason."""
    with verify(cache, expect) as verdict:
        return Locator.from_verdict(verdict)


def answer(locator: Locator, frames: Iterable[str]) -> Iterator[dict[str, object]]:
    """Yield an answer for each line `path [heading]`; a frame that cannot be read is answered too."""
    for line in frames:
        name, _, heading = line.strip().partition(" ")
        begun = time.perf_counter()
        try:
            photo = read_photo(Path(name))
            known = float(heading) if heading else photo.heading_deg
            headings = evenly_turned(HEADINGS_WHEN_UNKNOWN) if known is None else (known,)
            matches = [as_json(match) for match in locator.locate(photo.pixels, k=3, headings=headings)]
            yield {"frame": name, "matches": matches, "ms": round(1000 * (time.perf_counter() - begun), 1)}
        except (Error, ValueError) as error:
            yield {"frame": name, "error": str(error).splitlines()[0]}


def main() -> int:
    """Verify, load, and answer until the frames end."""
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
    args = parser.parse_args()
    try:
        locator = start(args.cache, expectations(args))
    except Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for found in answer(locator, sys.stdin):
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
