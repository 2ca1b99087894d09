"""What the delivering commands share: whom they trust, and what they find in a cache before it leaves."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioning.base.errors import SigningError
from provisioning.cli.check import verify as verify_command
from provisioning.delivery.contents import Documents
from provisioning.delivery.pack import documents_of
from provisioning.flight.signing import PublicKey, load_public_key, public_key_of
from provisioning.flight.verify import ANY, Expectations, Verdict, verify

KEY_VARIABLE = "FLIGHTCACHE_PUBLIC_KEY"


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the option that says whose signature counts."""
    parser.add_argument(
        "--public-key",
        metavar="PEM",
        type=Path,
        action="append",
        help=f"trusted key, several while keys rotate; default: the file named by ${KEY_VARIABLE}, or in a cache "
        "directory with a flight.toml the key that it signs with",
    )


def add_expectations(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flightcache verify` that say for whom the generation must be."""
    add_keys(parser)
    parser.add_argument("--fingerprint", action="append", metavar="HEX", help="only keys of these fingerprints count")
    parser.add_argument(
        "--revoked", action="append", default=[], metavar="HEX", help="fingerprint that no longer counts"
    )
    for part in ("flight", "aircraft"):
        identity = parser.add_mutually_exclusive_group()
        identity.add_argument(f"--{part}", metavar="ID", default=ANY, help=f"{part} id expected")
        identity.add_argument(
            f"--no-{part}", dest=part, action="store_const", const=None, help=f"a generation of no {part} is expected"
        )
    parser.add_argument("--this-host", action="store_true", help="the engines must be for this machine")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME=VALUE", help="part of the host tuple expected"
    )
    parser.add_argument("--counter-floor", type=int, metavar="N", help="least counter accepted")
    parser.add_argument("--counter-floor-file", type=Path, metavar="FILE", help="file that holds it; only read")
    parser.set_defaults(raise_floor=False)


def trusted_keys(paths: list[Path] | None, directory: Path | None = None) -> tuple[PublicKey, ...]:
    """Return the keys given, or that of the environment, or that of `directory`/flight.toml; SigningError if none."""
    if not paths and os.environ.get(KEY_VARIABLE):
        paths = [Path(os.environ[KEY_VARIABLE])]
    if paths:
        return tuple(load_public_key(path) for path in paths)
    if directory is not None and (directory / "flight.toml").is_file():
        # Only where the cache was built: on Python 3.10 reading TOML takes a package that a vehicle need not have.
        from provisioning.config.parse import read_flight

        return (public_key_of(read_flight(directory).signing),)
    raise SigningError("no key to trust", next_step=f"give --public-key PEM, or set {KEY_VARIABLE}")


def signed_by(keys: tuple[PublicKey, ...]) -> Expectations:
    """Return the expectations of the ground: a good signature by one of `keys`, whoever it is for."""
    return Expectations(keys=keys, flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)


def expectations(args: argparse.Namespace) -> Expectations:
    """Return what the command line asks for; what it leaves out is not checked, and stderr says so."""
    keys = trusted_keys(args.public_key)
    args.public_key = []
    expect = verify_command.expectations(args)._replace(keys=keys)
    if left := verify_command.unchecked(expect):
        print(f"not checked: {', '.join(left)}", file=sys.stderr)
    return expect


@contextmanager
def verified(cache: Path, keys: tuple[PublicKey, ...]) -> Iterator[tuple[Verdict, Documents]]:
    """Yield verdict and Manifest files of a cache that passes; VerificationError otherwise."""
    with verify(cache, signed_by(keys)) as verdict:
        verdict.require()
        yield verdict, documents_of(verdict)
