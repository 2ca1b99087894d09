"""`flightcache bundle`: the current generation as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.base.errors import DeliveryError
from provisioning.base.printable import printable
from provisioning.cli.deliver.common import add_keys, carried_trust, ground, verified
from provisioning.delivery.bundle.earlier import Generation, cache_of, generation_since
from provisioning.delivery.bundle.pack import bundle_name, pack
from provisioning.delivery.media import require_mounted
from provisioning.flight.manifest import Manifest

EXAMPLE = """\
examples:
  flightcache bundle                            writes <flight>-<counter>-<hash>.tar.zst here
  flightcache bundle . -o /media/stick          the same, on a USB stick
  flightcache bundle . -o cache.tar             uncompressed: the vehicle then needs nothing that reads zstd
  flightcache bundle . --since 6                only what changed since generation 6, which the vehicle must hold
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory, or one generation")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FILE|DIR", help="where to write it")
    parser.add_argument(
        "--since", type=int, metavar="N", help="only what changed since generation N, kept here and held by the vehicle"
    )
    add_keys(parser)


def checked_output(path: Path) -> Path:
    """Return where a bundle may be written; DeliveryError for a directory that is not there, or a stick not mounted."""
    if path.is_dir():
        require_mounted(path)
        return path
    if not path.name.endswith((".tar", ".tar.zst", ".zst")):
        raise DeliveryError(
            "neither a directory that is there, nor the name of a bundle (.tar.zst or .tar)",
            file=path,
            next_step="mount the medium, or make the directory, then run this again",
        )
    if not path.absolute().parent.is_dir():
        raise DeliveryError("there is no such directory", file=path.parent, next_step="mount the medium, or make it")
    require_mounted(path.absolute().parent)
    return path


def run(args: argparse.Namespace) -> int:
    """Verify the cache, write the bundle, print its name, size and SHA-256."""
    output = checked_output(args.output)
    trust = carried_trust(args, args.cache)
    with verified(args.cache, ground(args, args.cache), trust=trust) as (verdict, documents):
        manifest = verdict.require()
        since = _since(args, manifest)
        output = output / bundle_name(manifest, since=args.since) if output.is_dir() else output
        bundle = pack(verdict, documents, output, since=since)
    print(f"{printable(bundle.path)}: {bundle.bytes:,} bytes, SHA-256 {bundle.sha256}")
    if since is not None:
        print(
            f"only for a vehicle that holds generation {args.since}, manifest_hash {since.manifest.build.manifest_hash}"
        )
    return 0


def _since(args: argparse.Namespace, manifest: Manifest) -> Generation | None:
    """Return the generation that --since names; DeliveryError if it is not an earlier one that is kept here."""
    if args.since is None:
        return None
    if args.since >= manifest.build.counter:
        raise DeliveryError(
            f"--since {args.since}: not earlier than the generation that is bundled",
            facts={"bundled": manifest.build.counter},
            next_step="name an earlier generation, or leave --since out",
        )
    return generation_since(cache_of(args.cache), args.since)
