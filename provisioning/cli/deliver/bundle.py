"""`flightcache bundle`: the current generation as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.cli.deliver.common import add_keys, ground, verified
from provisioning.delivery.pack import bundle_name, pack

EXAMPLE = """\
examples:
  flightcache bundle                            writes <flight>-<counter>-<hash>.tar.zst here
  flightcache bundle . -o /media/stick          the same, on a USB stick
  flightcache bundle . -o cache.tar             uncompressed: the vehicle then needs nothing that reads zstd
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory, or one generation")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FILE|DIR", help="where to write it")
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Verify the cache, write the bundle, print its name, size and SHA-256."""
    with verified(args.cache, ground(args, args.cache)) as (verdict, documents):
        directory = args.output.is_dir()
        output = args.output / bundle_name(verdict.require()) if directory else args.output
        bundle = pack(verdict, documents, output)
    print(f"{bundle.path}: {bundle.bytes:,} bytes, SHA-256 {bundle.sha256}")
    return 0
