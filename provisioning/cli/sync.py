"""`flightcache sync`: send the current generation to a vehicle or a drive; only what it lacks."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from provisioning.bundle.pack import bundle_name
from provisioning.bundle.sync import (
    Destination,
    Sent,
    copy_bundle,
    parse_destination,
    remote_command,
    sync_here,
    sync_over,
)
from provisioning.bundle.trust import trusting, verifying
from provisioning.cli._delivery import add_keys, signed_by, trusted_keys, verified
from provisioning.errors import FilesystemError
from provisioning.files import require_local_filesystem

EXAMPLE = """\
examples:
  flightcache sync pilot@heron-1:/var/lib/flightcache --remote-key /etc/flightcache/operator.pub.pem
  flightcache sync /mnt/vehicle/var/lib/flightcache        a drive mounted here: same steps, no second computer
  flightcache sync /media/stick                            FAT or exFAT: one bundle, for `flightcache install` there
  flightcache sync heron-1:/srv/cache --via "docker exec -i heron-1 sh -c"

Over a command the other end runs `flightcache install --stream`: it checks signature and counter before it asks for
files, verifies the whole generation, and only then switches. Its trusted key is a file of its own (--remote-key).
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "target", metavar="TARGET", help="[user@]host:/path over ssh, or a directory on a drive mounted here"
    )
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory here")
    parser.add_argument("--via", metavar="WORDS", help="instead of ssh HOST: runs the command line given last to it")
    parser.add_argument("--remote", default="flightcache", metavar="WORDS", help="flightcache there (flightcache)")
    parser.add_argument("--remote-key", metavar="PATH", help="trusted key, a file there; default: its environment")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="generations kept there (1)")
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Verify here, send, wait for the verdict there, and say how many bytes went over."""
    to = parse_destination(args.target)
    keys = trusted_keys(args.public_key, args.cache)
    with verified(args.cache, keys) as (verdict, documents):
        if to.host or args.via:
            sent = sync_over(_command(args, to), verdict, documents)
        elif _carries_caches(Path(to.path)):
            sent = sync_here(Path(to.path), verdict, documents, verify=verifying(signed_by(keys)), keep=args.keep)
        else:
            output = Path(to.path) / bundle_name(verdict.require())
            copied = copy_bundle(verdict, documents, output, trust=trusting(signed_by(keys), Path(to.path)))
            written = f"{copied.bytes:,} bytes written and read back" if copied else "this generation is there already"
            print(f"{output}: {written}")
            return 0
    print(_told(args.target, sent))
    return 0


def _command(args: argparse.Namespace, to: Destination) -> tuple[str, ...]:
    options = {"--keep": str(args.keep)}
    if args.remote_key:
        options["--public-key"] = args.remote_key
    shell = shlex.split(args.via) if args.via else None
    return remote_command(to, shell=shell, program=args.remote, options=options)


def _carries_caches(path: Path) -> bool:
    """Tell whether a cache directory can live at `path`; FAT, exFAT and network shares carry a bundle instead."""
    try:
        require_local_filesystem(path)
    except FilesystemError as error:
        print(f"{error.what}: writing a bundle there", file=sys.stderr)
        return False
    return True


def _told(target: str, sent: Sent) -> str:
    share = 100 * sent.sent_bytes / sent.generation_bytes if sent.generation_bytes else 0
    return (
        f"{target}: counter {sent.counter} is current; sent {sent.files} files, {sent.sent_bytes:,} bytes "
        f"({share:.1f} % of the generation)"
    )
