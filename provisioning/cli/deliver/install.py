"""`flightcache install`: a bundle becomes the current generation of the vehicle, or nothing changes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from provisioning.base.errors import Error
from provisioning.cli.deliver.common import add_expectations, expectations
from provisioning.delivery.install import KEEP, install_bundle, receive
from provisioning.delivery.media import require_place
from provisioning.delivery.trust import Recipient

EXAMPLE = """\
examples:
  flightcache install F-118-000007-1f0c2a9be0d4.tar.zst /var/lib/flightcache --public-key operator.pub.pem
  flightcache install cache.tar /var/lib/flightcache --aircraft AC-7 --this-host     key from $FLIGHTCACHE_PUBLIC_KEY

The bundle is read from end to end and judged before anything is written. A cut at any moment leaves the old generation
in place; run the same command again. Needs no Python packages beyond cryptography.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("bundle", metavar="BUNDLE", help="file that `flightcache bundle` wrote")
    parser.add_argument("target", metavar="TARGET", type=Path, help="cache directory on this vehicle; made if absent")
    parser.add_argument(
        "--keep", type=int, default=KEEP, metavar="N", help=f"generations kept, the new one included ({KEEP})"
    )
    parser.add_argument(
        "--stream", action="store_true", help="be the receiving end of `flightcache sync` (BUNDLE is -)"
    )
    add_expectations(parser)


def run(args: argparse.Namespace) -> int:
    """Install and say what is now current."""
    if args.keep < 1:
        raise Error("--keep: at least the generation that is installed must stay")
    if args.stream != (args.bundle == "-"):
        raise Error("--stream reads from a pipe: BUNDLE is then - and never else", next_step="see --help")
    require_place(args.target)
    expect, vehicle = expectations(args, args.target)
    to = Recipient(expect, args.target, vehicle=vehicle)
    floor = vehicle.floor if vehicle else None
    if args.stream:
        receive(
            sys.stdin.buffer,
            sys.stdout.buffer,
            args.target,
            trust=to.trust,
            verify=to.verify,
            keep=args.keep,
            floor=floor,
        )
        return 0
    done = install_bundle(Path(args.bundle), args.target, trust=to.trust, verify=to.verify, keep=args.keep, floor=floor)
    print(
        f"{done.generation}: counter {done.counter}, manifest_hash {done.manifest_hash[:16]}, "
        f"{done.received_files} files ({done.received_bytes:,} bytes) were not here yet"
    )
    return 0
