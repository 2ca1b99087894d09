"""`flightcache install`: a bundle becomes the current generation of the vehicle, or nothing changes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from provisioning.base.errors import Error
from provisioning.base.printable import printable
from provisioning.base.words import counted
from provisioning.cli.deliver.common import add_expectations, expectations
from provisioning.cli.deliver.receipt import tested, write_receipt
from provisioning.delivery.install import KEEP, install_bundle, receive
from provisioning.delivery.media import require_place
from provisioning.delivery.target import Outcome
from provisioning.delivery.trust import Recipient
from provisioning.flight.receipt import read_receipt
from provisioning.flight.vehicle import Vehicle, installed_trust
from provisioning.flight.verity import enable_all

EXAMPLE = """\
examples:
  flightcache install F-118-000007-1f0c2a9be0d4.tar.zst /var/lib/flightcache --public-key operator.pub.pem
  flightcache install cache.tar /var/lib/flightcache --aircraft AC-7 --this-host     key from $FLIGHTCACHE_PUBLIC_KEY

The bundle is read from end to end and checked before anything is written. A cut at any moment leaves the old generation
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
    without = "do not run the engine after installing, for the receipt"
    parser.add_argument("--no-self-test", action="store_true", help=without)
    add_expectations(parser)


def run(args: argparse.Namespace) -> int:
    """Install and say what is now current."""
    if args.keep < 1:
        raise Error("--keep: at least the generation that is installed must stay")
    if args.stream != (args.bundle == "-"):
        raise Error("--stream reads from a pipe: BUNDLE is then - and never else", next_step="see --help")
    require_place(args.target)
    expect, vehicle = expectations(args, args.target)
    to = Recipient(expect, args.target, vehicle=vehicle, installed=installed_trust(vehicle))
    if args.stream:
        receive(
            sys.stdin.buffer,
            sys.stdout.buffer,
            args.target,
            trust=to.trust,
            verify=to.verify,
            keep=args.keep,
            vehicle=vehicle,
            finish=lambda done: _sent(_receipt(args, done, to, vehicle)),
        )
        return 0
    done = install_bundle(
        Path(args.bundle), args.target, trust=to.trust, verify=to.verify, keep=args.keep, vehicle=vehicle
    )
    print(
        f"{printable(done.generation)}: counter {done.counter}, manifest_hash {done.manifest_hash[:16]}, "
        f"not here yet: {counted(done.received_files, 'file')} ({counted(done.received_bytes, 'byte')})"
    )
    if receipt := _receipt(args, done, to, vehicle):
        print(f"self-test {read_receipt(receipt, None).self_test}")
    return 0


def _receipt(args: argparse.Namespace, done: Outcome, to: Recipient, vehicle: Vehicle | None) -> bytes | None:
    """Enable fs-verity, run the self-test and write the receipt where the vehicle has a key."""
    with to.verify(done.generation) as verdict:
        verity = enable_all(done.generation / entry.path for entry in verdict.require().files)
        if verity.startswith("enabled"):
            print(f"fs-verity {verity}", file=sys.stderr)
        if vehicle is None or not vehicle.key_file.is_file():
            return None
        test = "not run: --no-self-test" if args.no_self_test else tested(verdict)
        return write_receipt(vehicle, verdict, test=test)


def _sent(receipt: bytes | None) -> dict[str, object]:
    return {"receipt": receipt.decode()} if receipt else {}
