"""`flightcache info`: what a bundle holds, in words, without installing it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from provisioning.base.errors import DeliveryError, Error, SigningError, VerificationError
from provisioning.base.printable import printable
from provisioning.base.words import columns, counted
from provisioning.cli.deliver.common import add_keys, ground
from provisioning.console.style import sentence
from provisioning.delivery.bundle.check import Checked, check_bundle
from provisioning.delivery.bundle.contents import Documents
from provisioning.delivery.bundle.since import Since
from provisioning.delivery.trust import trusting
from provisioning.flight import trust as trusts
from provisioning.flight.manifest import Manifest, parse
from provisioning.flight.summary import summarise, utc_today

EXAMPLE = """\
examples:
  flightcache info F-118-000007-1f0c2a9be0d4.tar.zst --public-key operator.pub.pem
  flightcache info cache.tar --json

Without a key it says what the bundle says of itself, and that nobody verified it: exit code 22, as for a bad signature.
Every byte is read and compared with the Manifest; nothing is written.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="file that `flightcache bundle` wrote")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Read the bundle and say what is in it; 0 only if it is whole and signed by a key that counts."""
    state, checked = _state(args)
    documents = checked.documents
    try:
        manifest = parse(documents.manifest)
    except Error as error:
        raise DeliveryError("the bundle holds no Manifest that can be read", file=args.bundle) from error
    is_verified = state.startswith("verified")
    summary = summarise(manifest, "PASS" if is_verified else "NOT VERIFIED", today=utc_today())
    facts = {
        "bundle": str(args.bundle),
        "state": state,
        **_since(checked.since),
        **described(manifest),
        **_trust(documents),
    }
    if args.json:
        print(json.dumps({**facts, "summary": summary.as_json()}, indent=2))
    else:
        rows = {**facts, "summary": sentence(summary.parts())}
        print("\n".join(columns([(name, printable(value)) for name, value in rows.items() if value], left=2)))
    return 0 if is_verified else VerificationError.exit_code


def _state(args: argparse.Namespace) -> tuple[str, Checked]:
    """Return whether the bundle is verified, in words, and what is in it; DeliveryError for a damaged one."""
    try:
        trust = trusting(ground(args, args.bundle), args.bundle.parent)
    except SigningError as error:
        if args.public_key or args.trust:
            raise
        trust, state = None, f"NOT VERIFIED: {error.what}"
    else:
        state = "verified: whole, and signed by a key that you trust"
    try:
        return state, check_bundle(args.bundle, trust or _unsigned)
    except VerificationError as error:
        reasons = "; ".join(str(value) for key, value in error.facts.items() if key.startswith("reason"))
        return f"NOT VERIFIED: {reasons}", check_bundle(args.bundle, _unsigned)


def _unsigned(documents: Documents) -> Manifest:
    return parse(documents.manifest)


def described(manifest: Manifest) -> dict[str, str]:
    """Return what a person wants to know of a Manifest, by name."""
    flight, tiles = manifest.flight, manifest.tiles
    expected = sum(zoom.expected for zoom in manifest.tiles.per_zoom.values())
    present = sum(zoom.present for zoom in manifest.tiles.per_zoom.values())
    box = manifest.area.bbox_e7
    size = sum(file.bytes for file in manifest.files)
    waived = [name for name, gate in manifest.gates.items() if gate.verdict != "pass"]
    return {
        "flight": flight.flight_id or "any",
        "aircraft": flight.aircraft_id or "any",
        "counter": str(manifest.build.counter),
        "not to be flown after": flight.not_after or "",
        "manifest_hash": manifest.build.manifest_hash,
        "computer": " ".join(manifest.host),
        "area": ", ".join(f"{side} {value / 1e7:.5f}" for side, value in box._asdict().items()),
        "zoom levels": ", ".join(map(str, manifest.area.zoom_levels)),
        "tiles": f"{present} of {expected} places, {counted(tiles.count, 'tile')}, {tiles.skipped} left out",
        "oldest imagery": tiles.oldest_capture or "",
        "gates not passed": ", ".join(f"{name} ({manifest.gates[name].verdict})" for name in waived),
        "waived by": "; ".join(f"{waiver.gate}: {waiver.by}, {waiver.reason}" for waiver in manifest.waivers),
        "files": f"{len(manifest.files)}, {size:,} bytes",
    }


def _since(since: Since | None) -> dict[str, str]:
    """Return what a bundle of differences needs; nothing for a whole one."""
    if since is None:
        return {}
    return {
        "holds": f"only what changed since generation {since.counter}",
        "needs manifest_hash": f"{since.manifest_hash}, installed and whole",
    }


def _trust(documents: Documents) -> dict[str, str]:
    if not documents.trust:
        return {}
    try:
        trust = trusts.check_chain(trusts.parse(documents.trust))
    except Error as error:
        return {"trust file": f"NOT VALID: {error.what}"}
    return {"trust file": f"version {trust.newest.version}, signed by its root keys"}
