"""`flightcache doctor`: one screen, offline, on the vehicle: what is wrong with this cache here, and what to do."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from provisioning.base.disk.files import read_regular
from provisioning.base.errors import Error, ManifestError, SigningError, VerificationError
from provisioning.base.hashing import short
from provisioning.base.words import counted
from provisioning.cli.check.verify import details, expectation_arguments, expectations, summary_of, unchecked
from provisioning.cli.parsing import UsageError
from provisioning.console.style import painted, sentence
from provisioning.flight.manifest import MAX_BYTES, Manifest, parse
from provisioning.flight.signing import PublicKey
from provisioning.flight.summary import Summary, summarise
from provisioning.flight.verify import ANY, NEXT_STEP, CounterFloor, Expectations, ExpectedHost, Verdict, verify

EXAMPLE = """\
examples:
  flightcache doctor --self
  flightcache doctor /var/lib/flightcache --public-key operator.pub.pem
  flightcache doctor --public-key operator.pub.pem --deep
  flightcache doctor /var/lib/flightcache --public-key operator.pub.pem --flight F-118 --aircraft AC-7 \\
      --counter-floor-file /var/lib/flightcache-floor
"""


BACKENDS = ("onnxruntime", "tensorrt", "tensorrt_rtx")
"""The only modules that are looked for: looking for `a.b` imports `a`, and a Manifest may name any."""


class Finding(NamedTuple):
    """One line of the screen: what was looked at, how it stands, what to do if it does not stand well."""

    what: str
    state: Literal["ok", "warn", "bad"]
    said: str
    todo: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: those of `verify`, of which the key may be missing here."""
    parser.epilog = EXAMPLE
    expectation_arguments(parser)
    machine = "look at this computer instead: Python, packages, CPU, GPU, memory, the folder of caches, clock"
    parser.add_argument("--self", dest="self_test", action="store_true", help=machine)
    deep = "read the artefacts and descriptors of .build, too: what rotted is made anew by the next build that uses it"
    parser.add_argument("--deep", action="store_true", help=deep)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Look and report; exit code 0 if the cache may be flown here as far as was asked, else VerificationError's."""
    if args.self_test:
        from provisioning.cli.check.self_test import report

        _refuse_beside_self(args)

        return report(args.cache, as_json=args.json)
    summary, findings = examine(args.cache, expectations(args, args.cache, lambda: _keys(args.cache)))
    findings = (*findings, *(_deep(args.cache) if args.deep else ()))
    if args.json:
        found = [finding._asdict() for finding in findings]
        print(json.dumps({"cache": str(args.cache), "summary": summary.as_json(), "findings": found}, indent=2))
    else:
        print(f"{sentence(summary.parts())}\n{as_text(findings)}")
    return VerificationError.exit_code if any(finding.state == "bad" for finding in findings) else 0


def _refuse_beside_self(args: argparse.Namespace) -> None:
    """Raise UsageError for an option about a cache: with --self none is looked at."""
    parser = argparse.ArgumentParser()
    arguments(parser)
    about_self = {"cache", "self_test", "json"}
    given = sorted(n for n, v in vars(parser.parse_args([])).items() if n not in about_self and getattr(args, n) != v)
    if given:
        raise UsageError(
            "with --self no cache is looked at: these have no effect",
            facts={"options": ", ".join(given)},
            next_step="leave them out, or leave out --self",
        )


def _keys(cache: Path) -> tuple[PublicKey, ...]:
    """Return the keys that `verify` finds without being given one; none where there is none, which is a finding."""
    from provisioning.cli.deliver.common import KEY_VARIABLE, user_keys

    try:
        return user_keys(None, cache)
    except SigningError:
        if os.environ.get(KEY_VARIABLE):
            raise
        return ()


def examine(cache: Path, expect: Expectations) -> tuple[Summary, tuple[Finding, ...]]:
    """Return the summary and every finding; nothing on disk changes, the counter floor included."""
    if isinstance(expect.counter_floor, CounterFloor):
        expect = expect._replace(counter_floor=expect.counter_floor._replace(raise_on_pass=False))
    with verify(cache, expect) as verdict:
        signed = verdict.manifest  # None unless a trusted key signed it: nothing else of the cache is believed
        summary = summary_of(verdict, expect) if expect.keys or expect.trust else summarise(None, "NOT VERIFIED")
        if signed is None:
            return summary, (*_verdict(verdict, expect), *_claim(claimed(cache)), *_disk(cache, None))
        return summary, (
            *_verdict(verdict, expect),
            *_content(signed, summary),
            *_counter(signed, expect),
            *_host(signed, expect),
            *_disk(cache, signed),
        )


def _deep(cache: Path) -> Iterator[Finding]:
    """Read everything that builds may reuse: damage there does not keep this cache from flying."""
    from provisioning.cli.check.deep import MADE_AGAIN, damaged_artifacts, damaged_rows

    count, damaged = damaged_artifacts(cache / ".build")
    for name in damaged:
        yield Finding("artefact", "warn", f"{name} is not as it was made", MADE_AGAIN)
    if not damaged:
        yield Finding("artefacts", "ok", f"{count} in .build, all as they were made")
    for home, bad, total in damaged_rows(cache):
        if bad:
            said = f"{bad} of {total} descriptors under {home.name[:8]}… are damaged"
            yield Finding("descriptors", "warn", said, MADE_AGAIN)
        else:
            yield Finding("descriptors", "ok", f"{total} under {home.name[:8]}…, all as they were written")


def claimed(cache: Path) -> Manifest | None:
    """Return the Manifest of a cache that no trusted key signed, or None: for telling a person which cache it may be.

    Nothing is done with it. A pipe, a device or a link in its place is not read.
    """
    for place in (cache / "current" / "Manifest.json", cache / "Manifest.json"):
        try:
            return parse(read_regular(place, limit=MAX_BYTES))
        except (OSError, ManifestError):  # noqa: PERF203  the second place is for a generation by itself
            continue
    return None


def _verdict(verdict: Verdict, expect: Expectations) -> Iterator[Finding]:
    if not expect.keys and expect.trust is None:
        yield Finding("key", "bad", "no key was given, so nothing is verified", "give --public-key operator.pub.pem")
    elif verdict.fingerprint:
        yield Finding("key", "ok", f"signed by {', '.join(map(short, verdict.fingerprints))}")
    if verdict.passed:
        left = unchecked(expect)
        asked = f"; not checked: {', '.join(left)}" if left else ", and as expected"
        yield Finding("verdict", "ok", f"complete, intact, signed{asked}")
    for reason in verdict.reasons if expect.keys or expect.trust else ():
        where = f"{reason.file}: " if reason.file else ""
        yield Finding(f"verdict: {reason.code}", "bad", f"{where}{reason.detail}", NEXT_STEP[reason.code])


def _claim(manifest: Manifest | None) -> Iterator[Finding]:
    if manifest is not None:
        said = f"says of itself: {_who(manifest)}, counter {manifest.build.counter} (unverified)"
        yield Finding("flight", "warn", said, "content, counter and host are looked at once a trusted key verifies it")


def _who(manifest: Manifest) -> str:
    flight = manifest.flight
    who = f"{flight.flight_id or 'any flight'}, {flight.aircraft_id or 'any aircraft'}, sector {flight.sector_class}"
    return who.encode("ascii", "backslashreplace").decode() if not who.isprintable() else who


def _content(manifest: Manifest, summary: Summary) -> Iterator[Finding]:
    yield Finding("flight", "ok", _who(manifest))
    tiles = manifest.tiles
    dated = f", oldest captured {tiles.oldest_capture}" if tiles.oldest_capture else ""
    yield Finding(
        "tiles", "ok", f"{counted(tiles.count, 'tile')}, {summary.tiles_missing:,} of the area missing{dated}"
    )
    states = (("waived", summary.gates_waived), ("lowered", summary.gates_lowered), ("warns", summary.gates_warned))
    marked = [f"{name} {state}" for state, names in states for name in names]
    yield Finding(
        "gates",
        "warn" if marked else "ok",
        ", ".join(marked) or f"all {len(manifest.gates)} passed",
        "read report.html before take-off" if marked else "",
    )
    for said in details(manifest):
        yield Finding("accepted", "warn", said)


def _counter(manifest: Manifest, expect: Expectations) -> Iterator[Finding]:
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
    if module not in BACKENDS:
        yield Finding("host", "bad", "the engines are for a backend this program does not know", "update flightcache")
        return
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
        state = painted({"ok": "good"}.get(finding.state, finding.state), f"{finding.state:<4}")
        lines.append(f"{state} {finding.what:<{width}}  {finding.said}")
        if finding.todo:
            lines.append(f"     {'':<{width}}  -> {finding.todo}")
    bad = sum(finding.state == "bad" for finding in findings)
    lines.append(f"{counted(bad, 'problem')}: {advice}" if bad else "nothing stands against it")
    return "\n".join(lines)
