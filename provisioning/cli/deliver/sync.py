"""`flightcache sync`: send the current generation to a vehicle or a drive; only what it lacks."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from provisioning.base.disk.files import require_local_filesystem
from provisioning.base.errors import DeliveryError, Error, FilesystemError
from provisioning.base.printable import printable
from provisioning.base.words import counted
from provisioning.cli.check.verify import expected_host, identity_arguments
from provisioning.cli.deliver.common import add_keys, carried_trust, ground, verified
from provisioning.cli.parsing import UsageError
from provisioning.delivery.bundle.contents import Documents
from provisioning.delivery.bundle.earlier import bases_in, cache_of
from provisioning.delivery.bundle.pack import bundle_name
from provisioning.delivery.install import KEEP
from provisioning.delivery.media import require_place
from provisioning.delivery.pipes import PATIENCE_S
from provisioning.delivery.sync import (
    Sent,
    copy_bundle,
    parse_destination,
    remote_command,
    sync_here,
    sync_over,
)
from provisioning.delivery.trust import Recipient, trusting
from provisioning.flight.receipt import read_receipt
from provisioning.flight.vehicle import vehicle_on_drive
from provisioning.flight.verify import ANY, Expectations, ExpectedHost, Verdict

EXAMPLE = """\
examples:
  flightcache sync pilot@heron-1:/var/lib/flightcache --remote-key /etc/flightcache/operator.pub.pem
  flightcache sync /mnt/vehicle/var/lib/flightcache        a drive mounted here: same steps, no second computer
  flightcache sync /media/stick                            FAT or exFAT: one bundle, for `flightcache install` there
  flightcache sync heron-1:/srv/cache --via "docker exec -i heron-1 sh -c"

Of a file that changed, only what changed inside it is sent, if a generation that the vehicle holds is still kept here.
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
    parser.add_argument(
        "--whole", action="store_true", help="send changed files whole, not only what changed inside them"
    )
    parser.add_argument("--keep", type=int, metavar="N", help=f"generations kept there ({KEEP})")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help=f"longest silence of the vehicle ({PATIENCE_S:g})"
    )
    identity_arguments(parser)
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Verify here, send, wait for the verdict there, and say how many bytes went over."""
    said = sync_vehicle(
        args.target,
        args.cache,
        program=args.remote,
        shell=args.via,
        remote_key=args.remote_key,
        expect=ground(args, args.cache)._replace(
            flight_id=args.flight, aircraft_id=args.aircraft, host=expected_host(args, this=False)
        ),
        this_host=args.this_host,
        trust=carried_trust(args, args.cache),
        keep=args.keep,
        patience_s=args.timeout,
        whole=args.whole,
    )
    print(printable(said))
    return 0


def sync_vehicle(  # noqa: PLR0913  (the options of one command, all but two by name)
    target: str,
    cache: Path,
    *,
    program: str = "flightcache",
    shell: str | None = None,
    remote_key: str | None = None,
    expect: Expectations,
    trust: bytes = b"",
    this_host: bool = False,
    keep: int | None = None,
    patience_s: float | None = None,
    whole: bool = False,
) -> str:
    """Send the current generation of `cache` to `target` and return what to tell a person about it.

    What `expect` says of revoked keys, flight, aircraft and host is asked for there too. this_host: the engines must be
    for the computer there. whole: no deltas. An option that has no effect on this kind of target is an Error.
    """
    to = parse_destination(target)
    if keep is not None and keep < 1:
        raise Error("--keep: at least the generation that is sent must stay")
    if patience_s is not None and not 0 < patience_s <= 86400:
        raise Error("--timeout: more than 0 and at most 86400 seconds")
    with verified(cache, expect, trust=trust) as (verdict, documents):
        if to.host or shell:
            asked = _asked_there(expect, this_host=this_host, key=remote_key)
            options = {"--keep": str(keep or KEEP), **dict(asked)}
            words = shlex.split(shell) if shell else None
            command = remote_command(to, shell=words, program=program, options=options)
            bases = None if whole else bases_in(cache_of(cache))
            sent = sync_over(command, verdict, documents, bases=bases, patience_s=patience_s or PATIENCE_S)
            return _summary(target, sent)
        given = {
            "--remote": program != "flightcache",
            "--remote-key": bool(remote_key),
            "--timeout": patience_s is not None,
            "--this-host": this_host,
            "--whole": whole,
        }
        _refuse_unused("a directory here", given)
        require_place(Path(to.path))
        if _carries_caches(Path(to.path)):
            return _summary(target, _to_drive(Path(to.path), verdict, documents, expect, keep or KEEP))
        _refuse_unused("a medium that carries one bundle", {"--keep": keep is not None})
        output = Path(to.path) / bundle_name(verdict.require())
        copied = copy_bundle(verdict, documents, output, trust=trusting(expect, Path(to.path)))
        return f"{output}: {f'{copied.bytes:,} bytes written and read back' if copied else 'is there already'}"


def _asked_there(expect: Expectations, *, this_host: bool, key: str | None) -> Iterator[tuple[str, str]]:
    """Yield the options by which the other end asks for the same; "" for one without a value."""
    if key:
        yield "--public-key", key
    if expect.revoked:
        yield "--revoked", ",".join(sorted(expect.revoked))
    for part, wanted in (("flight", expect.flight_id), ("aircraft", expect.aircraft_id)):
        if wanted is None:
            yield f"--no-{part}", ""
        elif wanted is not ANY:
            yield f"--{part}", str(wanted)
    if expect.host is not ANY:
        parts = zip(ExpectedHost._fields, expect.host, strict=True)
        yield from ((f"--host={name}={value}", "") for name, value in parts if value is not ANY)
    if this_host:
        yield "--this-host", ""


def _to_drive(root: Path, verdict: Verdict, documents: Documents, expect: Expectations, keep: int) -> Sent:
    """Deliver to a drive mounted here; what the vehicle keeps beside its cache there decides as on the vehicle."""
    vehicle = vehicle_on_drive(root)
    trust = vehicle.read_trust() if vehicle else None
    if vehicle is not None:
        expect = expect._replace(counter_floor=vehicle.floor)
        expect = expect._replace(keys=(), trust=trust.newest) if trust else expect
    to = Recipient(expect, root, vehicle=vehicle, installed=trust)
    to.trust(documents)
    return sync_here(root, verdict, documents, verify=to.verify, keep=keep, vehicle=vehicle)


def _refuse_unused(kind: str, given: Mapping[str, bool]) -> None:
    """Raise UsageError if an option was given that does nothing for this kind of target."""
    for name, is_given in given.items():
        if is_given:
            raise UsageError(f"{name} has no effect: the target is {kind}", next_step=f"leave {name} out")


def _carries_caches(path: Path) -> bool:
    """Return whether a cache directory can live at `path`; FAT, exFAT and network shares carry a bundle instead."""
    try:
        require_local_filesystem(path)
    except FilesystemError as error:
        print(f"{error.what}: writing a bundle there", file=sys.stderr)
        return False
    return True


def _summary(target: str, sent: Sent) -> str:
    share = 100 * sent.sent_bytes / sent.generation_bytes if sent.generation_bytes else 0
    return (
        f"{target}: counter {sent.counter} is current; sent {counted(sent.files, 'file')}, "
        f"{counted(sent.sent_bytes, 'byte')} ({share:.1f} % of the generation){_said_there(sent.receipt)}"
    )


def _said_there(receipt: bytes | None) -> str:
    """Return the self-test that the vehicle tells of; `flightcache fleet status` has it proven."""
    if receipt is None:
        return ""
    try:
        return f"; self-test there {read_receipt(receipt, None).self_test}"
    except DeliveryError as error:
        return f"; its receipt cannot be read: {error.what}"
