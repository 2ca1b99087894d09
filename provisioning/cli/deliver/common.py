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
from provisioning.flight.signing import PublicKey, keys_directory, load_public_key, public_key_of
from provisioning.flight.verify import Expectations, Verdict, verify

KEY_VARIABLE = "FLIGHTCACHE_PUBLIC_KEY"


def add_keys(parser: argparse.ArgumentParser, *, otherwise: str = "") -> None:
    """Add the options that say whose signature counts. otherwise: where a key comes from if none is named."""
    otherwise = otherwise or (
        "the key of your own flight.toml in the working directory, or the keys that `flightcache init` made for you"
    )
    verify_command.trust_arguments(
        parser,
        default=f"; default: the file named by ${KEY_VARIABLE}, or {otherwise}",
    )


OF_THE_CACHE = "in a cache directory with a flight.toml the key that it signs with"


def add_custom_ops(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a library to load beside an engine; a cache cannot name one."""
    parser.add_argument("--custom-ops", type=Path, metavar="LIB", help="custom operators the engine needs, yours")


def add_own(parser: argparse.ArgumentParser) -> None:
    """Add the option by which the user says that what lies unsigned in a cache directory is the user's own."""
    parser.add_argument(
        "--own", action="store_true", help="the directory is yours: its flight.toml, sources and .build may be read"
    )


def add_expectations(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flightcache verify` that say for whom the generation must be; a floor's file is only read."""
    add_keys(parser, otherwise=OF_THE_CACHE)
    verify_command.recipient_arguments(parser)
    parser.set_defaults(raise_floor=False)


def user_keys(paths: list[Path] | None, cache: Path) -> tuple[PublicKey, ...]:
    """Return the keys by which the user judges `cache`; SigningError if none.

    They are given, or in the environment, or that of the flight.toml in the working directory, where that lies neither
    in the cache nor around it (whoever made a cache also wrote the flight.toml in it), or those that `init` made for
    this user.
    """
    here, judged = Path.cwd(), cache.resolve()
    apart = here != judged and here not in judged.parents and judged not in here.parents
    if paths or os.environ.get(KEY_VARIABLE) or (apart and (here / "flight.toml").is_file()):
        return trusted_keys(paths, here if apart else None)
    return tuple(map(load_public_key, sorted(keys_directory().glob("*.pub.pem")))) or trusted_keys(None)


def trusted_keys(paths: list[Path] | None, directory: Path | None = None) -> tuple[PublicKey, ...]:
    """Return the keys given, or that of the environment, or that of `directory`/flight.toml; SigningError if none.

    directory: a cache directory of the user's own, never one that is to be judged.
    """
    if not paths and os.environ.get(KEY_VARIABLE):
        paths = [Path(os.environ[KEY_VARIABLE])]
    if paths:
        return tuple(load_public_key(path) for path in paths)
    if directory is not None and (directory / "flight.toml").is_file():
        # Only where the cache was built: on Python 3.10 reading TOML takes a package that a vehicle need not have.
        from provisioning.config.parse import read_flight

        return (public_key_of(read_flight(directory).signing),)
    raise SigningError("no key to trust", next_step=f"give --public-key PEM, or set {KEY_VARIABLE}")


def ground(args: argparse.Namespace, cache: Path) -> Expectations:
    """Return the expectations of the ground for `cache`: a good signature by a key that counts, whoever it is for."""
    return verify_command.signed_by(user_keys(args.public_key, cache), args)


def expectations(args: argparse.Namespace) -> Expectations:
    """Return what the command line asks for; what it leaves out is not checked, and stderr says so."""
    keys = trusted_keys(args.public_key)
    args.public_key = []
    expect = verify_command.expectations(args)._replace(keys=keys)
    if left := verify_command.unchecked(expect):
        print(f"not checked: {', '.join(left)}", file=sys.stderr)
    return expect


@contextmanager
def verified(cache: Path, expect: Expectations) -> Iterator[tuple[Verdict, Documents]]:
    """Yield verdict and Manifest files of a cache that passes; VerificationError otherwise."""
    with verify(cache, expect) as verdict:
        verdict.require()
        yield verdict, documents_of(verdict)
