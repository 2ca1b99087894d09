"""`flightcache fallback`: a vehicle returns to the generation that it accepted before, without the signing key."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import DeliveryError, Error, VerificationError
from provisioning.base.hashing import sha256_bytes
from provisioning.base.printable import printable
from provisioning.cli.check.verify import expectations, recipient_arguments, trust_arguments
from provisioning.cli.deliver.common import trusted_keys
from provisioning.cli.deliver.receipt import tested, write_receipt
from provisioning.flight import publish
from provisioning.flight.receipt import log
from provisioning.flight.vehicle import Vehicle, find_vehicle, refusal_error
from provisioning.flight.verify import ANY, Expectations, Verdict, verify
from provisioning.flight.verify.floor import Accepted, permit_fallback, read_previous
from provisioning.flight.verify.reasons import Refusal

EXAMPLE = """\
examples:
  flightcache fallback /var/lib/flightcache
  flightcache verify /var/lib/flightcache --any-flight --this-host || flightcache fallback /var/lib/flightcache

Only if the current generation does not verify, or its engine does not run here; only to the one generation that was
accepted before it, if that one does. The counter floor then lets exactly that one pass, until a newer one is installed.
What was wrong is written to CACHE.vehicle/log.jsonl. No signing key is needed.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory of this vehicle")
    trust_arguments(parser)
    recipient_arguments(parser, floor=False)


def run(args: argparse.Namespace) -> int:
    """Return to the generation before and say why; an Error if there is no reason, or none to return to."""
    vehicle = find_vehicle(args.cache)
    if vehicle is None:
        raise DeliveryError(
            "no counter floor is kept here, so no generation was accepted before",
            file=args.cache,
            next_step="install with `flightcache install`, which keeps one beside the cache",
        )
    expect = expectations(args, args.cache, lambda: trusted_keys(None))
    expect = expect._replace(counter_floor=vehicle.floor._replace(raise_on_pass=False))
    with build_lock(args.cache.absolute()):
        source = publish.current_number(args.cache)
        why = _what_is_wrong(args.cache, expect)
        accepted = _accepted_before(vehicle)
        generation = args.cache / publish.GENERATIONS / publish.dir_name(accepted.counter)
        _require_good(generation, accepted, expect)
        _return(vehicle, args.cache, accepted)
    log(vehicle, "fallback", source=source, to=accepted.counter, sha256=accepted.sha256, reasons=why)
    with verify(args.cache, expect) as verdict:
        write_receipt(vehicle, verdict, fallback_from=source)
        verdict.require()
    print(f"current is {generation}: counter {accepted.counter}, accepted before counter {source}")
    print("\n".join(f"  {printable(reason)}" for reason in why))
    return 0


def _what_is_wrong(cache: Path, expect: Expectations) -> list[str]:
    """Return why the current generation is not to be flown; DeliveryError if nothing is wrong with it."""
    with verify(cache, expect) as verdict:
        if not verdict.passed:
            return [str(reason) for reason in verdict.reasons]
        result = tested(verdict)
        if result.startswith("failed"):
            return [f"self-test {result}"]
    raise DeliveryError(
        "the current generation verifies, and nothing is known against it: there is no reason to fall back",
        file=cache,
        facts={"self-test": result},
        next_step="on the ground `flightcache rollback` signs an earlier set of files anew",
    )


def _accepted_before(vehicle: Vehicle) -> Accepted:
    try:
        accepted = read_previous(vehicle.floor)
    except Refusal as refusal:
        raise refusal_error(refusal) from refusal
    if accepted is None:
        raise DeliveryError(
            "no generation was accepted here before the current one", file=vehicle.path, next_step="install another one"
        )
    return accepted


def _require_good(generation: Path, accepted: Accepted, expect: Expectations) -> None:
    """Raise VerificationError unless this is the very set that was accepted, whole, for this vehicle, and runs."""
    with verify(generation, expect._replace(counter_floor=ANY)) as verdict:
        _require_passed(verdict, generation)
        assert verdict.signed is not None
        if sha256_bytes(verdict.signed.manifest) != accepted.sha256:
            raise VerificationError("another set than the one that was accepted before", file=generation)
        result = tested(verdict)
        if result.startswith("failed"):
            raise VerificationError(
                "the generation before does not run here either", file=generation, facts={"self-test": result}
            )


def _require_passed(verdict: Verdict, generation: Path) -> None:
    try:
        verdict.require()
    except Error as error:
        error.what, error.file = "the generation before is refused too", str(generation)
        error.next_step = "install another one"
        raise


def _return(vehicle: Vehicle, cache: Path, accepted: Accepted) -> None:
    """Permit first, then switch: cut off in between, the current generation is as it was."""
    try:
        permit_fallback(vehicle.floor, accepted)
    except Refusal as refusal:
        raise refusal_error(refusal) from refusal
    publish.return_to(cache, accepted.counter)
