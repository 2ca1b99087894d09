"""What the delivering commands share: whom they trust, and what they find in a cache before it leaves."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.errors import SigningError
from provisioning.cli.check import verify as verify_command
from provisioning.delivery.bundle.contents import Documents
from provisioning.delivery.bundle.pack import documents_of
from provisioning.flight.signing import PublicKey, asker, keys_directory, load_public_key, public_key_of
from provisioning.flight.signing.private import load_private_key
from provisioning.flight.trust import read_trust, to_bytes
from provisioning.flight.vehicle import Vehicle, vehicle_of
from provisioning.flight.verify import ANY, Expectations, Verdict, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "FLIGHTCACHE_PUBLIC_KEY"


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whose signature counts on the ground."""
    verify_command.trust_arguments(
        parser,
        default=f"; default: the file named by ${KEY_VARIABLE}, or the key of your own flight.toml in the working "
        "directory, or the keys that `flightcache init` made for you",
    )


def add_custom_ops(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a library to load beside an engine; a cache cannot name one."""
    parser.add_argument("--custom-ops", type=Path, metavar="LIB", help="custom operators the engine needs, yours")


def add_own(parser: argparse.ArgumentParser) -> None:
    """Add the option by which the user says that what lies unsigned in a cache directory is the user's own."""
    parser.add_argument(
        "--own", action="store_true", help="the directory is yours: its flight.toml, sources and .build may be read"
    )


def add_expectations(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flightcache verify` that say for whom the generation must be; a named floor is only read."""
    verify_command.trust_arguments(parser, default=f"; default: the file named by ${KEY_VARIABLE}")
    verify_command.recipient_arguments(parser, by_name=True)
    parser.set_defaults(raise_floor=False)


def user_keys(paths: list[Path] | None, cache: Path) -> tuple[PublicKey, ...]:
    """Return the keys by which the user verifies `cache`; SigningError if none.

    They are given, or in the environment, or that of the flight.toml in the working directory, where that lies neither
    in the cache nor around it (whoever made a cache also wrote the flight.toml in it), or those that `init` made for
    this user.
    """
    here, root = Path.cwd(), Path(os.path.realpath(cache))
    apart = here != root and here not in root.parents and root not in here.parents
    if paths or os.environ.get(KEY_VARIABLE) or (apart and (here / "flight.toml").is_file()):
        return trusted_keys(paths, here if apart else None)
    return tuple(map(load_public_key, sorted(keys_directory().glob("*.pub.pem")))) or trusted_keys(None)


def trusted_keys(paths: list[Path] | None, directory: Path | None = None) -> tuple[PublicKey, ...]:
    """Return the keys given, or that of the environment, or that of `directory`/flight.toml; SigningError if none.

    directory: a cache directory of the user's own, never one that is to be verified.
    """
    if not paths and os.environ.get(KEY_VARIABLE):
        paths = [Path(os.environ[KEY_VARIABLE])]
    if paths:
        return tuple(load_public_key(path) for path in paths)
    if directory is not None and (directory / "flight.toml").is_file():
        # Only where the cache was built: on Python 3.10 reading TOML takes a package that a vehicle need not have.
        from provisioning.config.parse import read_flight

        return (public_key_of(read_flight(directory).signing),)
    raise SigningError(
        "no key to trust",
        next_step=f"give --public-key PEM, or set {KEY_VARIABLE}; what the flight.toml in a cache names does not count",
    )


def ground(args: argparse.Namespace, cache: Path) -> Expectations:
    """Return the expectations of the ground for `cache`: a good signature by a key that counts, whoever it is for."""
    return verify_command.trusted_by(args, None, lambda: user_keys(None, cache))


def expectations(args: argparse.Namespace, target: Path) -> tuple[Expectations, Vehicle | None]:
    """Return what the command line asks for, and the vehicle whose floor is kept; stderr says what is not checked.

    The floor of the vehicle is kept unless the user says otherwise; its directory is made with the first one accepted.
    """
    vehicle = None
    if not (args.any_counter or args.counter_floor is not None or args.counter_floor_file is not None):
        vehicle = vehicle_of(target)
    expect = verify_command.expectations(args, target, lambda: trusted_keys(None))
    if vehicle is not None and expect.counter_floor is ANY:
        expect = expect._replace(counter_floor=0)  # the first generation here: its counter begins the floor
    if left := [part for part in verify_command.unchecked(expect) if not getattr(args, f"any_{part}", False)]:
        print(f"not checked: {', '.join(left)}", file=sys.stderr)
    return expect, vehicle


def carried_trust(args: argparse.Namespace, cache: Path) -> bytes:
    """Return the trust file that a generation takes along: the one named, or trust.json in the user's own cache."""
    file = args.trust or cache / "trust.json"
    return to_bytes(read_trust(file)) if args.trust or file.is_file() else b""


@contextmanager
def verified(cache: Path, expect: Expectations, *, trust: bytes = b"") -> Iterator[tuple[Verdict, Documents]]:
    """Yield verdict and Manifest files, with a trust file to take along, of a cache that passes."""
    with verify(cache, expect) as verdict:
        verdict.require()
        yield verdict, documents_of(verdict, trust=trust)


def private_key(path: Path) -> Ed25519PrivateKey:
    """Return a private key, whose password a person is asked for; SigningError where nobody is there to ask."""
    return load_private_key(path, asker() or _no_password)


def _no_password() -> bytes:
    raise SigningError("the key is encrypted, and there is no terminal to ask for its password")
