"""`flightcache fleet`: one request, several vehicles, each with the generation for its own computer."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from provisioning.base import events
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import DeliveryError, EngineError, Error, SigningError
from provisioning.base.printable import printable
from provisioning.base.process.capture import ask, last_lines
from provisioning.base.words import typed
from provisioning.build import steps
from provisioning.build.generation import contents
from provisioning.cli.begin.init import DODO, DOIT_CFG
from provisioning.cli.check.verify import signed_by
from provisioning.cli.deliver.common import trusted_keys
from provisioning.cli.deliver.sync import sync_vehicle
from provisioning.cli.parsing import UsageError, needs
from provisioning.config.parse import read_flight
from provisioning.console.style import sentence
from provisioning.delivery.fleet import Fleet, Vehicle, derive, read_fleet
from provisioning.engines.host import HostTuple
from provisioning.engines.names import PREFIXES
from provisioning.engines.vehicle.remote import SERVE, serve
from provisioning.flight.signing import PublicKey, public_key_of
from provisioning.flight.summary import summarise, utc_today
from provisioning.flight.trust import read_trust, to_bytes

EXAMPLE = """\
examples:
  flightcache fleet FLEET.toml               build and send
  flightcache fleet status FLEET.toml        who flies what, signed by each vehicle now

with, in FLEET.toml beside the common flight.toml:

  [[vehicle]]
  name = "heron-1"
  flight = "F-118"
  aircraft = "AC-1"
  command = "ssh heron-1"                      its engines are compiled there; left out: here
  target = "heron-1:/var/lib/flightcache"      where the cache goes; left out: it stays here
  remote_key = "/etc/flightcache/operator.pub.pem"     not needed where a trust file is installed
  receipt_key = "keys/heron-1.pub.pem"         the vehicle's own key: CACHE.vehicle/key.pub.pem there
"""
PROBE_TIMEOUT_S = 60
PROBE_BYTES = 1 << 16
"""Most that `flightcache host --json` may answer."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("fleet", nargs="*", metavar="[status] FILE", help="the fleet (FLEET.toml); status: ask only")
    parser.add_argument("--json", action="store_true", help="with status: one JSON object on stdout")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this vehicle; again for more")
    parser.add_argument("--compile", action="store_true", help="be the end on a vehicle that compiles an engine")


def run(args: argparse.Namespace) -> int:
    """Build, and where asked for send, every vehicle's generation; one that fails does not stop the others."""
    if args.compile:
        if args.fleet or args.json or args.only:
            raise UsageError("--compile answers one caller: nothing else has an effect", next_step="leave the rest out")
        serve(sys.stdin.buffer, sys.stdout.buffer)
        return 0
    asking = args.fleet[:1] == ["status"]
    files = args.fleet[asking:]
    if len(files) > 1:
        raise Error("one fleet at a time", facts={"given": " ".join(files)})
    fleet = read_fleet(Path(files[0] if files else "FLEET.toml"))
    _refuse_unknown(fleet, args.only or [])
    if asking:
        from provisioning.cli.deliver.fleet_status import show

        return show(fleet, args.only, as_json=args.json)
    needs("--json", "status", given=args.json, there=False)
    flight = read_flight(fleet.cache)
    _refuse_revoked(fleet, public_key_of(flight.signing), flight.root)
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        steps.survey(flight)
    worst = 0
    for vehicle in fleet.vehicles:
        if args.only and vehicle.name not in args.only:
            continue
        try:
            print(f"{vehicle.name}: {printable(_provision(fleet, vehicle))}", flush=True)
        except Error as error:
            print(f"{vehicle.name}: {error}", file=sys.stderr, flush=True)
            worst = worst or error.exit_code
    return worst


def _refuse_revoked(fleet: Fleet, key: PublicKey, root: Path) -> None:
    """Raise SigningError where the key that would sign is one that FLEET.toml revokes: no vehicle would take it."""
    if fleet.revoked & key.digests:
        raise SigningError(
            "the key that signs is revoked in FLEET.toml",
            file=root / "flight.toml",
            key="signing.key",
            facts={"fingerprint": key.fingerprint},
            next_step="make a new key with flightcache keygen, name it there, and give it to the vehicles",
        )


def _refuse_unknown(fleet: Fleet, names: list[str]) -> None:
    known = [vehicle.name for vehicle in fleet.vehicles]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise Error(
                f"--only: there is no vehicle {name!r}",
                facts={"vehicles": ", ".join(known)},
                next_step=f"did you mean {near[0]!r}?" if near else None,
            )


def _provision(fleet: Fleet, vehicle: Vehicle) -> str:
    """Build one vehicle's generation, send it where it goes, and say what that took."""
    host = probe(vehicle) if vehicle.command else None
    command = reach(vehicle, *SERVE) if vehicle.command else ()
    directory = derive(fleet, vehicle, host=host, command=command, others={"dodo.py": DODO, "doit.cfg": DOIT_CFG})
    report = _build(directory)
    said = (
        f"{report['outcome']}, {report['engines_built']} engines compiled, "
        f"{report['descriptors_generated']} descriptors computed, manifest_hash {report['manifest_hash'][:16]}"
    )
    said += f"; {built_summary(directory)}"
    if vehicle.target:
        trust = fleet.cache / "trust.json"
        expect = signed_by(trusted_keys(None, directory))
        sent = sync_vehicle(
            vehicle.target,
            directory,
            program=vehicle.program,
            shell=vehicle.command,
            remote_key=vehicle.remote_key,
            expect=expect._replace(revoked=fleet.revoked),
            trust=to_bytes(read_trust(trust)) if trust.is_file() else b"",
        )
        said += f"; {sent}"
    return said


def built_summary(directory: Path) -> str:
    """Return what the generation that a build has just verified is worth, in one sentence."""
    built = contents.published(directory)
    summary = summarise(built.manifest if built else None, "PASS" if built else "NOT VERIFIED", today=utc_today())
    return sentence(summary.parts())


def reach(vehicle: Vehicle, *words: str) -> tuple[str, ...]:
    """Return the command that runs flightcache with `words` on the vehicle: its words, then one command line."""
    line = " ".join(shlex.quote(word) for word in (*shlex.split(vehicle.program), *words))
    return (*shlex.split(vehicle.command), line)


def probe(vehicle: Vehicle) -> dict[str, str]:
    """Return the vehicle's host tuple, as it tells it; EngineError if it cannot be asked."""
    command = reach(vehicle, "host", "--json")
    try:
        done = ask(command, most_bytes=PROBE_BYTES, within_s=PROBE_TIMEOUT_S)
        answer = json.loads(done.out)
        is_new = isinstance(answer, dict) and "engine_host" in answer
        return _host_tuple(answer["engine_host" if is_new else "engines are built for"])  # the second: release 0.1
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(
            f"{vehicle.name} does not say what computer it is",
            facts={"command": shlex.join(command), "reason": str(error)[:200]},
            next_step="run that command by hand: flightcache must be installed there",
        ) from error


def _host_tuple(given: dict[str, str]) -> dict[str, str]:
    """Return the parts of a host tuple, each one word; ValueError for anything else."""
    sound = isinstance(given, dict) and given.keys() == set(HostTuple._fields)
    if not sound or not all(isinstance(part, str) and re.fullmatch(r"[!-~]{1,100}", part) for part in given.values()):
        raise ValueError("no host tuple was answered")
    if given["backend"] not in PREFIXES:
        raise ValueError("its backend is not known here")
    return given


def _doit(directory: Path) -> tuple[int, str]:
    """Run doit in `directory`, showing every second for how long; return its exit code and standard error."""
    began = time.monotonic()
    words = [sys.executable, "-m", "doit"]
    with subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while True:
            try:
                _, err = child.communicate(timeout=1)
            except subprocess.TimeoutExpired:  # noqa: PERF203  (once a second)
                events.progress(f"build {directory.name}", round(time.monotonic() - began), 0, unit="s")
            else:
                return child.returncode, err


def _build(directory: Path) -> dict[str, Any]:
    """Run doit in a vehicle's cache directory and return its report; DeliveryError if it failed."""
    code, err = _doit(directory)
    try:
        report: dict[str, Any] = json.loads((directory / ".build/build-report.json").read_bytes())
    except (OSError, ValueError):
        report = {}
    if code != 0 or "outcome" not in report:
        raise DeliveryError(
            "the build failed",
            file=directory,
            facts={"reason": report.get("failure_reason") or last_lines(err)},
            next_step=f"{typed('cd', directory)} && doit",
        )
    return report
