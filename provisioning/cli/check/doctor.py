"""`flightcache doctor`: one screen, offline, on the vehicle: what is wrong with this cache here, and what to do."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from provisioning.base.errors import Error, ManifestError, VerificationError
from provisioning.cli.check.verify import expectation_arguments, expectations, unchecked
from provisioning.flight.manifest import MAX_BYTES, Manifest, parse
from provisioning.flight.verify import ANY, NEXT_STEP, CounterFloor, Expectations, ExpectedHost, Verdict, verify

EXAMPLE = """\
examples:
  flightcache doctor --self
  flightcache doctor /var/lib/flightcache --public-key operator.pub.pem
  flightcache doctor /var/lib/flightcache --public-key operator.pub.pem --flight F-118 --aircraft AC-7 \\
      --counter-floor-file /var/lib/flightcache-floor
"""


class Finding(NamedTuple):
    """One line of the screen: what was looked at, how it stands, what to do if it does not stand well."""

    what: str
    state: Literal["ok", "warn", "bad"]
    said: str
    todo: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: those of `verify`, of which the key may be missing here."""
    parser.epilog = EXAMPLE
    expectation_arguments(parser, key_required=False)
    machine = "look at this computer instead: Python, packages, CPU, GPU, memory, the folder of caches, clock"
    parser.add_argument("--self", dest="self_test", action="store_true", help=machine)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Look and report; exit code 0 if the cache may be flown here as far as was asked, else VerificationError's."""
    if args.self_test:
        from provisioning.cli.check.self_test import report

        return report(args.cache, as_json=args.json)
    findings = examine(args.cache, expectations(args))
    if args.json:
        print(json.dumps({"cache": str(args.cache), "findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        print(as_text(findings))
    return VerificationError.exit_code if any(finding.state == "bad" for finding in findings) else 0


def examine(cache: Path, expect: Expectations) -> tuple[Finding, ...]:
    """Return every finding; nothing on disk changes, the counter floor included."""
    if isinstance(expect.counter_floor, CounterFloor):
        expect = expect._replace(counter_floor=expect.counter_floor._replace(raise_on_pass=False))
    with verify(cache, expect) as verdict:
        manifest = verdict.manifest or unverified(cache)
        return (
            *_verdict(verdict, expect),
            *(_content(manifest, verified=verdict.manifest is not None) if manifest else ()),
            *_counter(manifest, expect),
            *(_host(manifest, expect) if manifest else ()),
            *_disk(cache, manifest),
        )


def unverified(cache: Path) -> Manifest | None:
    """Return what the Manifest says although nobody vouches for it: good for a hint to a person, for nothing else."""
    places = (cache / "current" / "Manifest.json", cache / "Manifest.json")
    try:
        place = next(place for place in places if place.is_file())
        with open(place, "rb") as file:
            return parse(file.read(MAX_BYTES + 1))
    except (StopIteration, OSError, ManifestError):
        return None


def _verdict(verdict: Verdict, expect: Expectations) -> Iterator[Finding]:
    if not expect.keys:
        yield Finding("key", "bad", "no key was given, so nothing is verified", "give --public-key operator.pub.pem")
    elif verdict.fingerprint:
        yield Finding("key", "ok", f"signed by {verdict.fingerprint}")
    if verdict.passed:
        left = unchecked(expect)
        asked = f"; not checked: {', '.join(left)}" if left else ", and as expected"
        yield Finding("verdict", "ok", f"PASS: complete, intact, signed{asked}")
    for reason in verdict.reasons if expect.keys else ():
        where = f"{reason.file}: " if reason.file else ""
        yield Finding(f"verdict: {reason.code}", "bad", f"{where}{reason.detail}", NEXT_STEP[reason.code])


def _content(manifest: Manifest, *, verified: bool) -> Iterator[Finding]:
    flight = manifest.flight
    doubt = "" if verified else " (unverified)"
    who = f"{flight.flight_id or 'any flight'}, {flight.aircraft_id or 'any aircraft'}"
    yield Finding("flight", "ok" if verified else "warn", f"{who}, sector {flight.sector_class}{doubt}")
    tiles = manifest.tiles
    gaps = sum(zoom.expected - zoom.present for zoom in tiles.per_zoom.values())
    dated = f", oldest captured {tiles.oldest_capture}" if tiles.oldest_capture else ""
    yield Finding("tiles", "ok", f"{tiles.count:,} tiles, {max(gaps, 0):,} of the area missing{dated}{doubt}")
    passed_over = [f"{name} {gate.verdict}" for name, gate in manifest.gates.items() if gate.verdict != "pass"]
    yield Finding(
        "gates",
        "warn" if passed_over else "ok",
        ", ".join(passed_over) or f"all {len(manifest.gates)} passed",
        "read report.html before take-off" if passed_over else "",
    )


def _counter(manifest: Manifest | None, expect: Expectations) -> Iterator[Finding]:
    if manifest is None:
        return
    floor = expect.counter_floor
    if floor is ANY:
        todo = "give --counter-floor-file, or an older set can be put in its place"
        yield Finding("counter", "warn", f"{manifest.build.counter}, not compared with a floor", todo)
    else:
        kept = f"the floor in {floor.path}" if isinstance(floor, CounterFloor) else f"the floor {floor}"
        yield Finding("counter", "ok", f"{manifest.build.counter}, compared with {kept}")


def _host(manifest: Manifest, expect: Expectations) -> Iterator[Finding]:
    """Compare the host tuple with this computer, by the backend that the cache needs."""
    needed = manifest.host
    module = needed.backend
    if importlib.util.find_spec(module) is None:
        yield Finding("runtime", "bad", f"{module} {needed.runtime} is needed and not installed", _install(module))
        return
    from provisioning.config import Engine
    from provisioning.engines import select

    try:
        here = select(Engine(backend=needed.backend)).probe()  # type: ignore[arg-type]
    except Error as error:
        yield Finding("host", "bad", error.what, error.next_step or "compile for this computer: doit engine")
        return
    differs = [name for name in here._fields if getattr(here, name) != getattr(needed, name)]
    for name in differs:
        yield Finding(
            f"host: {name}",
            "bad",
            f"here {getattr(here, name)}, the engines are for {getattr(needed, name)}",
            _install(module, needed.runtime) if name == "runtime" else "compile for this computer: doit engine",
        )
    if not differs:
        unasked = "" if isinstance(expect.host, ExpectedHost) else " (compared here, not by the verifier)"
        yield Finding("host", "ok", f"{' '.join(here)}{unasked}")


def _install(module: str, version: str | None = None) -> str:
    if module == "tensorrt":
        return "install the TensorRT of this JetPack: apt install python3-libnvinfer; or compile here: doit engine"
    return f"pip install {module}{'==' + version if version else ''}, or compile here: doit engine"


def _disk(cache: Path, manifest: Manifest | None) -> Iterator[Finding]:
    try:
        room = os.statvfs(cache)
    except OSError as error:
        yield Finding("disk", "bad", f"{cache}: {error.strerror}", "check the path and the medium")
        return
    free_bytes = room.f_bavail * room.f_frsize
    needed_bytes = sum(entry.bytes for entry in manifest.files) if manifest else 0
    said = f"{free_bytes / 1e9:.1f} GB free" + (", mounted read-only" if room.f_flag & os.ST_RDONLY else "")
    if free_bytes < needed_bytes:
        todo = "free some space before the next install"
        yield Finding("disk", "warn", f"{said}; the next set may need {needed_bytes / 1e9:.1f} GB", todo)
    else:
        yield Finding("disk", "ok", said)


def as_text(findings: tuple[Finding, ...], *, advice: str = "do not fly this cache here") -> str:
    """Return the screen: a line for each finding, what to do below each that needs something, one line at the end."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<4} {finding.what:<{width}}  {finding.said}")
        if finding.todo:
            lines.append(f"     {'':<{width}}  -> {finding.todo}")
    bad = sum(finding.state == "bad" for finding in findings)
    lines.append(f"{bad} problem{'s' if bad != 1 else ''}: {advice}" if bad else "nothing stands against it")
    return "\n".join(lines)
