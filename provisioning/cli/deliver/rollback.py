"""`flightcache rollback`: publish an earlier set of files again, under a counter that every vehicle accepts."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.base.disk.artifacts import ArtifactRecord
from provisioning.base.disk.lock import build_lock
from provisioning.base.hashing import Sha256
from provisioning.config import Flight
from provisioning.config.parse import read_flight
from provisioning.flight import publish
from provisioning.flight.signing import PublicKey, asker, load_public_key, public_key_of, sign
from provisioning.flight.verify import ANY, Expectations, Verdict, verify

EXAMPLE = """\
examples:
  flightcache rollback                 the generation before the current one
  flightcache rollback . --to 12       generation 12, if it is still kept (publish.keep_generations)

The files are verified first, and signed anew with a counter above every earlier one, because a vehicle refuses an old
counter. The next `doit` builds what flight.toml asks for: undo there what made the rollback necessary.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory")
    parser.add_argument("--to", type=int, metavar="N", help="number of the generation to return to")
    parser.add_argument(
        "--public-key",
        type=Path,
        action="append",
        default=[],
        metavar="PEM",
        help="earlier key that the old generation may be signed with, if it is not the present one",
    )


def run(args: argparse.Namespace) -> int:
    """Roll back and say what is current; VerificationError if the earlier files are no longer what was signed."""
    flight = read_flight(args.cache.absolute())
    earlier_keys = tuple(map(load_public_key, args.public_key))
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        publish.recover(flight.root, keep=flight.publish.keep_generations)
        source, generation = roll_back(flight, to=args.to, earlier_keys=earlier_keys)
    print(f"current is generations/{generation.name}: the files of {source.name}, signed anew")
    return 0


def roll_back(flight: Flight, *, to: int | None, earlier_keys: tuple[PublicKey, ...] = ()) -> tuple[Path, Path]:
    """Publish the files of an earlier generation again, under the lock; return that generation and the new one.

    `current` stays as it is if the old files do not verify under the present key or `earlier_keys`, or the new
    generation does not. Raises VerificationError, SigningError, FilesystemError.
    """
    key = public_key_of(flight.signing)
    source = publish.earlier_generation(flight.root, to=to)
    with verify(source, _signed_by(key, *earlier_keys)) as verdict:
        old = verdict.require()
        staged = publish.rollback(
            flight.root,
            source,
            manifest=old,
            records={entry.path: _record(verdict, entry.path, entry.sha256) for entry in old.files},
            resign=lambda data: sign(flight.signing, data, password=asker()),
        )
    with verify(staged, _signed_by(key)) as verdict:
        verdict.require()
    return source, publish.commit(flight.root, staged, keep=flight.publish.keep_generations)


def _signed_by(*keys: PublicKey) -> Expectations:
    """Whom and where it is for stays as it was; that it is whole and signed is what counts here."""
    return Expectations(keys, flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)


def _record(verdict: Verdict, path: str, sha256: Sha256) -> ArtifactRecord:
    status = verdict.status(path)
    return ArtifactRecord(sha256, status.st_size, status.st_mtime_ns, status.st_ino, {})
