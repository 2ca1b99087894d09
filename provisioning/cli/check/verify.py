"""`flightcache verify`: the verdict on a cache, on the ground or at take-off."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioning.base.distributions import installed_version
from provisioning.base.errors import Error, SigningError, VerificationError
from provisioning.base.hashing import short
from provisioning.base.printable import printable
from provisioning.base.words import counted, typed
from provisioning.cli.parsing import needs
from provisioning.console.style import sentence
from provisioning.flight.manifest import Manifest
from provisioning.flight.signing import PublicKey, load_public_key, read_fingerprint_file, read_fingerprints
from provisioning.flight.summary import Summary, of_verdict, utc_today
from provisioning.flight.trust import read_trust
from provisioning.flight.vehicle import Vehicle, find_vehicle, installed_trust
from provisioning.flight.verify import (
    ANY,
    NEXT_STEP,
    Anything,
    CounterFloor,
    Expectations,
    ExpectedHost,
    Verdict,
    verify,
)

EXAMPLE = """\
examples:
  flightcache verify . --public-key ~/keys/operator.pub.pem --ground
  flightcache verify /var/lib/flightcache --flight F-118 --aircraft AC-7 --this-host
  flightcache verify /media/cache --public-key operator.pub.pem --flight F-118 --aircraft AC-7 \\
      --this-host --counter-floor-file /var/lib/floor --raise-floor

Flight, aircraft, host and counter are each named, or left out by name (--any-flight, --ground). Where `install` made
CACHE.vehicle, the trust file and the counter floor in it count, and a PASS raises the floor.
"""
PARTS = ("flight", "aircraft", "host", "counter")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    expectation_arguments(parser, by_name=True)
    ground = "of flight, aircraft, host and counter what is not named is not checked"
    parser.add_argument("--ground", action="store_true", help=ground)
    parser.add_argument("--raise-floor", action="store_true", help="on PASS raise the number in that file")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("-v", "--verbose", action="store_true", help="a table of files, sizes, digests, reasons")


def expectation_arguments(parser: argparse.ArgumentParser, *, by_name: bool = False) -> None:
    """Declare what a cache is and what is expected of it."""
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory, or one generation")
    trust_arguments(parser)
    recipient_arguments(parser, by_name=by_name)


def trust_arguments(parser: argparse.ArgumentParser, *, default: str = "") -> None:
    """Declare whose signature counts. An option that cannot be read is wrong usage, never one without effect."""
    add = parser.add_argument
    keys = "trusted key; several while keys rotate" + default
    add("--public-key", type=Path, action="append", default=[], metavar="PEM", help=keys)
    add("--trust", type=Path, metavar="FILE", help="trust file, in place of keys; default: the vehicle's, if installed")
    allowed = "only keys of these fingerprints count; commas between several"
    add("--fingerprint", type=fingerprints, action="append", metavar="HEX", help=allowed)
    revoked = "fingerprint that no longer counts; commas between several"
    add("--revoked", type=fingerprints, action="append", default=[], metavar="HEX", help=revoked)
    add(
        "--revoked-file",
        type=fingerprint_file,
        dest="revoked",
        action="append",
        metavar="FILE",
        help="the same from a file: one a line, # begins a comment",
    )


def recipient_arguments(parser: argparse.ArgumentParser, *, floor: bool = True, by_name: bool = False) -> None:
    """Declare for whom the cache must be, how new, and at what time.

    floor: which counter floor counts can be said. by_name: what is not checked is left out by name.
    """
    add = parser.add_argument
    groups = identity_arguments(parser)
    if by_name:
        for part, identity in groups.items():
            identity.add_argument(f"--any-{part}", action="store_true", help=f"the {part} is not checked")
        add("--any-host", action="store_true", help="the host tuple is not checked")
    parser.set_defaults(counter_floor=None, counter_floor_file=None, any_counter=False)
    if floor:
        least = parser.add_mutually_exclusive_group()
        least.add_argument("--counter-floor", type=_counter, metavar="N", help="least counter accepted")
        least.add_argument(
            "--counter-floor-file", type=Path, metavar="FILE", help="file that holds it, outside the cache"
        )
        least.add_argument("--any-counter", action="store_true", help="no counter floor is kept or checked")
    clock = parser.add_mutually_exclusive_group()
    clock.add_argument(
        "--at", type=_moment, metavar="TIME", help="UTC time to compare dates with: 2026-05-01T06:00:00Z"
    )
    clock.add_argument("--no-clock", action="store_true", help="this computer has no clock: nothing expires")


def identity_arguments(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Declare for which flight, aircraft and computer the cache must be; return the groups that exclude each other."""
    groups = {}
    for part in ("flight", "aircraft"):
        identity = groups[part] = parser.add_mutually_exclusive_group()
        identity.add_argument(f"--{part}", metavar="ID", default=ANY, help=f"{part} id expected")
        identity.add_argument(
            f"--no-{part}", dest=part, action="store_const", const=None, help=f"a cache of no {part} is expected"
        )
    parser.add_argument("--this-host", action="store_true", help="the engines must be for this machine")
    host = "part of the host tuple expected"
    parser.add_argument("--host", action="append", default=[], metavar="NAME=VALUE", help=host)
    return groups


def fingerprints(text: str) -> frozenset[str]:
    """Return the fingerprints in an argument, for argparse."""
    try:
        return read_fingerprints(text)
    except SigningError as error:
        raise argparse.ArgumentTypeError(f"{error.what} ({error.facts['expected']})") from error


def fingerprint_file(path: str) -> frozenset[str]:
    """Return the fingerprints in a file that an argument names, for argparse."""
    try:
        return read_fingerprint_file(Path(path))
    except SigningError as error:
        raise argparse.ArgumentTypeError(": ".join(filter(None, (error.file, error.key, error.what)))) from error


def _moment(text: str) -> int:
    import calendar  # here, for few runs name a time

    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"):
        try:
            return calendar.timegm(time.strptime(text, form))
        except ValueError:  # noqa: PERF203  (two forms)
            continue
    raise argparse.ArgumentTypeError(f"not a time in UTC: {text[:40]!r} (2026-05-01T06:00:00Z expected)")


def _counter(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise argparse.ArgumentTypeError(f"not a counter: {text[:40]!r}")
    return int(text)


def expectations(
    args: argparse.Namespace, cache: Path, keys: Callable[[], tuple[PublicKey, ...]] = tuple
) -> Expectations:
    """Return what the command line asks for; what it leaves out is ANY, and the result says so.

    keys: finds the trusted keys where the command line names none and no trust file is installed on this vehicle.
    """
    vehicle = None if args.any_counter and (args.public_key or args.trust) else find_vehicle(cache)
    trusted = trusted_by(args, vehicle, keys)
    now_s = ANY if args.no_clock else args.at
    return trusted._replace(
        flight_id=args.flight,
        aircraft_id=args.aircraft,
        host=expected_host(args, this=args.this_host),
        counter_floor=_floor(args, vehicle),
        now_s=now_s,
    )


def _floor(args: argparse.Namespace, vehicle: Vehicle | None) -> int | CounterFloor | Anything:
    """Return the floor that is named, or that of this vehicle, which a PASS raises."""
    raises = getattr(args, "raise_floor", False)  # doctor and install change nothing by verifying
    if args.counter_floor_file is not None:
        return CounterFloor(args.counter_floor_file, raise_on_pass=raises)
    needs("--raise-floor", "--counter-floor-file FILE", given=raises, there=False)
    if args.counter_floor is not None:
        return int(args.counter_floor)
    return ANY if args.any_counter or vehicle is None else vehicle.floor


def trusted_by(
    args: argparse.Namespace, vehicle: Vehicle | None, keys: Callable[[], tuple[PublicKey, ...]]
) -> Expectations:
    """Return whose signature counts: a trust file or keys that are named, else the vehicle's trust file, else `keys`.

    Keys or a trust file that are named do not bring back what the vehicle's trust file revokes.
    """
    if args.trust is not None and args.public_key:
        raise Error("--trust and --public-key both say who may sign", next_step="leave one of them out")
    installed = installed_trust(vehicle)
    if not (args.public_key or args.trust):
        return signed_by((), args)._replace(trust=installed.newest) if installed else signed_by(keys(), args)
    named = signed_by(tuple(map(load_public_key, args.public_key)), args)
    if args.trust is not None:
        named = named._replace(trust=read_trust(args.trust).newest)
    return named._replace(revoked=named.revoked.union(installed.newest.revoked)) if installed else named


def signed_by(keys: tuple[PublicKey, ...], args: argparse.Namespace | None = None) -> Expectations:
    """Return the expectations of the ground: a good signature by a key that counts, whoever the cache is for."""
    expect = Expectations(keys=keys, flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)
    if args is None:
        return expect
    allowed = ANY if args.fingerprint is None else frozenset().union(*args.fingerprint)
    return expect._replace(fingerprints=allowed, revoked=frozenset().union(*args.revoked))


def expected_host(args: argparse.Namespace, *, this: bool) -> ExpectedHost | Anything:
    """Return the parts of the host tuple that are expected; with `this`, those of this computer among them."""
    known = this_host() if this else {}
    parts: dict[str, str | Anything] = dict.fromkeys(ExpectedHost._fields, ANY)
    if getattr(args, "any_host", False) and (args.this_host or args.host):
        raise Error("--any-host takes back what --this-host and --host ask for", next_step="leave one of them out")
    for pair in args.host:
        name, _, value = pair.partition("=")
        if name not in parts or not value:
            raise Error(f"--host {pair}: NAME=VALUE expected, NAME one of {', '.join(parts)}")
        if parts[name] not in (ANY, value):
            raise Error(f"--host {pair}: {name} must also be {parts[name]}", next_step="expect one of them")
        parts[name] = value
    parts = {name: known.get(name, ANY) if value is ANY else value for name, value in parts.items()}
    return ANY if set(parts.values()) == {ANY} else ExpectedHost(**parts)


def this_host() -> dict[str, str]:
    """Return the host tuple of this machine, without the precision, which a machine does not have.

    Where no runtime is installed for Python, its name and version are not known here either: the flight software brings
    its own. What the hardware says is there in any case.
    """
    from provisioning.config import Engine
    from provisioning.engines import select
    from provisioning.engines.host import hardware

    if installed_version("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx") is None:
        return hardware()
    host = select(Engine()).probe()
    return {name: getattr(host, name) for name in ExpectedHost._fields if name != "precision"}


def unchecked(expect: Expectations) -> list[str]:
    """Return the expectations that the caller left open."""
    parts = {
        "flight": expect.flight_id,
        "aircraft": expect.aircraft_id,
        "host": expect.host,
        "counter": expect.counter_floor,
        "time": expect.now_s,
    }
    left = [name for name, value in parts.items() if value is ANY]
    if isinstance(expect.host, ExpectedHost):  # whose precision no machine can tell
        left += [
            f"host {name}" for name, value in expect.host._asdict().items() if value is ANY and name != "precision"
        ]
    return left


def _keys_of_the_user(cache: Path) -> tuple[PublicKey, ...]:
    from provisioning.cli.deliver.common import user_keys

    return user_keys(None, cache)


def run(args: argparse.Namespace) -> int:
    """Verify and report; exit code 0 for PASS, that of VerificationError for a refusal, 2 for what nobody said."""
    expect = expectations(args, args.cache, lambda: _keys_of_the_user(args.cache))
    if unsaid := [part for part in unchecked(expect) if not (args.ground or getattr(args, f"any_{part}", True))]:
        print(_usage(args, unsaid), file=sys.stderr)
        return 2
    start = time.perf_counter()
    with verify(args.cache, expect) as verdict:
        elapsed_s = time.perf_counter() - start
        if args.json:
            print(json.dumps(as_json(verdict, args.cache, expect, elapsed_s), indent=2))
        else:
            print(as_text(verdict, args.cache, expect, elapsed_s, verbose=args.verbose))
    return 0 if verdict.passed else VerificationError.exit_code


def _usage(args: argparse.Namespace, unsaid: list[str]) -> str:
    """Return what to type for expectations that are neither named nor left out by name."""
    named = {
        "flight": "--flight ID",
        "aircraft": "--aircraft ID",
        "host": "--this-host",
        "counter": "--counter-floor N",
    }
    said = typed("flightcache", *args.words)
    return (
        f"flightcache verify: not said what is expected of {', '.join(unsaid)}; nothing was verified\n"
        f"  on the aircraft: {' '.join([said, *(named[part] for part in unsaid)])}\n"
        f"  on the ground:   {said} --ground\n"
        f"  one by one:      {' '.join(f'--any-{part}' for part in unsaid)}"
    )


def as_json(verdict: Verdict, cache: Path, expect: Expectations, elapsed_s: float) -> dict[str, object]:
    """Return the verdict as JSON values; keys are stable."""
    manifest = verdict.manifest
    return {
        "verdict": "PASS" if verdict.passed else "REFUSED",
        "cache": str(cache),
        "reasons": [{"code": str(code), "file": file, "detail": detail} for code, file, detail in verdict.reasons],
        "unchecked": unchecked(expect),
        "key": verdict.fingerprint,
        "keys": list(verdict.fingerprints),
        "manifest_hash": manifest and manifest.build.manifest_hash,
        "counter": manifest and manifest.build.counter,
        "flight_id": manifest and manifest.flight.flight_id,
        "aircraft_id": manifest and manifest.flight.aircraft_id,
        "host": manifest and manifest.host._asdict(),
        "accepted": [entry._asdict() for entry in manifest.accepted] if manifest else [],
        "summary": summary_of(verdict, expect).as_json(),
        "files": [{"path": path, "bytes": size, "sha256": sha256} for path, size, sha256 in _files(verdict)],
        "elapsed_s": round(elapsed_s, 3),
    }


def summary_of(verdict: Verdict, expect: Expectations) -> Summary:
    """Return what was verified, with the age of its imagery at the time that `expect` names."""
    at = expect.now_s
    if isinstance(at, int):
        return of_verdict(verdict, today=dt.datetime.fromtimestamp(at, dt.timezone.utc).date())
    return of_verdict(verdict, today=utc_today() if at is None else None)


def details(manifest: Manifest) -> list[str]:
    """Return what a signature lets pass and a person must know: what was accepted, by whom gates were waived."""
    waived = [f"{waiver.gate} waived by {waiver.by}: {waiver.reason}" for waiver in manifest.waivers]
    return [entry.detail for entry in manifest.accepted] + waived


def _files(verdict: Verdict) -> list[tuple[str, int, str]]:
    return [(entry.path, entry.bytes, entry.sha256) for entry in verdict.manifest.files] if verdict.manifest else []


def as_text(verdict: Verdict, cache: Path, expect: Expectations, elapsed_s: float, *, verbose: bool) -> str:
    """Return the verdict for a person: one line for PASS, every reason for a refusal, a table with `verbose`."""
    lines = list(_table(verdict)) if verbose else []
    manifest = verdict.manifest
    lines.append(sentence(summary_of(verdict, expect).parts()))
    if verdict.passed and manifest:
        size_mb = sum(entry.bytes for entry in manifest.files) / 1e6
        lines.append(
            f"{printable(cache)}: {counted(len(manifest.files), 'file')}, {size_mb:.1f} MB in {elapsed_s:.2f} s, "
            f"manifest_hash {short(manifest.build.manifest_hash)}"
        )
        lines += details(manifest)
    else:
        lines.append(f"{printable(cache)}:")
        for reason in verdict.reasons:
            lines += [f"  {reason}", f"    -> {NEXT_STEP[reason.code]}"]
    if left := unchecked(expect):
        lines.append(f"not checked: {', '.join(left)}")
    return "\n".join(lines)


def _table(verdict: Verdict) -> list[str]:
    bad: dict[str, list[str]] = {}
    for reason in verdict.reasons:
        bad.setdefault(reason.file, []).append(str(reason.code))
    rows = [(path, f"{size:,}", sha256, ", ".join(bad.get(path, ["ok"]))) for path, size, sha256 in _files(verdict)]
    width = max((len(row[0]) for row in rows), default=4)
    return [f"{'file':<{width}} {'bytes':>15} {'SHA-256':<64} verdict"] * bool(rows) + [
        f"{path:<{width}} {size:>15} {sha256} {state}" for path, size, sha256, state in rows
    ]
