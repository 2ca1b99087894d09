"""`flightcache key`: what a key file holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.base.printable import printable
from provisioning.flight.signing import load_public_key


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = "example: flightcache key fingerprint ~/keys/operator.pub.pem"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    fingerprint = verbs.add_parser("fingerprint", help="print the fingerprint (SHA-256 of the raw key) of public keys")
    fingerprint.add_argument("keys", type=Path, nargs="+", metavar="PEM")


def run(args: argparse.Namespace) -> int:
    """Print one line for each key."""
    for path in args.keys:
        print(f"{load_public_key(path).fingerprint}  {printable(path)}")
    return 0
