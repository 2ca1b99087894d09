"""`flightcache keygen`: a new Ed25519 key pair."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from provisioning.base.errors import SigningError
from provisioning.base.printable import printable
from provisioning.flight.signing import ask_password, generate_key, public_key_path, read_password_fd


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = "example: flightcache keygen ~/keys/operator.pem --encrypt"
    parser.add_argument(
        "path", type=Path, help="private key file to write, NAME.pem; NAME.pub.pem is written beside it"
    )
    password = parser.add_mutually_exclusive_group()
    password.add_argument("--encrypt", action="store_true", help="ask for a password")
    password.add_argument(
        "--password-env", metavar="NAME", help="encrypt with the password in this environment variable"
    )
    password.add_argument(
        "--password-fd", type=int, metavar="N", help="encrypt with the password read from this descriptor"
    )


def run(args: argparse.Namespace) -> int:
    """Make the pair and print the fingerprint of its public half."""
    public = generate_key(args.path, password=_password(args))
    print(f"private key {printable(args.path)}")
    print(f"public key  {printable(public_key_path(args.path))}")
    print(f"fingerprint {public.fingerprint}")
    return 0


def _password(args: argparse.Namespace) -> bytes | None:
    password = None
    if args.encrypt:
        password = ask_password(f"Password for {args.path}: ")
        if ask_password("Again: ") != password:
            raise SigningError("the two passwords differ; nothing was written")
    elif args.password_env is not None:
        password = os.environb.get(os.fsencode(args.password_env), b"")
    elif args.password_fd is not None:
        password = read_password_fd(args.password_fd)
    if password == b"":
        raise SigningError("the password is empty; nothing was written")
    return password
