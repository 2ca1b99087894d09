"""`flightcache receipt`: what this vehicle has installed, said and signed by the vehicle itself."""

from __future__ import annotations

import argparse
import importlib.util
import re
import socket
import sys
from pathlib import Path

from provisioning.base.disk.files import read_regular, wrap_os_errors, write_durably
from provisioning.base.errors import DeliveryError
from provisioning.cli.check.verify import expectations, recipient_arguments, trust_arguments
from provisioning.cli.deliver.common import trusted_keys
from provisioning.flight.receipt import Receipt, log, read_receipt, receipt_of, sign_receipt
from provisioning.flight.signing import load_public_key, public_key_path
from provisioning.flight.vehicle import Vehicle, find_vehicle
from provisioning.flight.verify import Verdict, verify
from provisioning.flight.verify.floor import read_floor
from provisioning.flight.verify.reasons import Refusal

EXAMPLE = """\
examples:
  flightcache receipt /var/lib/flightcache
  flightcache receipt /var/lib/flightcache --nonce 64-HEX-DIGITS     as `flightcache fleet status` asks

The cache is verified now; nothing changes. The key is CACHE.vehicle/key.pem, which `flightcache trust install` made.
"""
LIMIT_BYTES = 1 << 16


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory of this vehicle")
    parser.add_argument("--nonce", type=_nonce, metavar="HEX", help="64 digits that whoever asks has just made up")
    trust_arguments(parser)
    recipient_arguments(parser, floor=False)


def _nonce(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("64 lower-case hex digits expected")
    return text


def run(args: argparse.Namespace) -> int:
    """Print a receipt for what is current now."""
    vehicle = find_vehicle(args.cache)
    if vehicle is None or not vehicle.key_file.is_file():
        raise DeliveryError(
            "this vehicle has no key of its own", file=args.cache, next_step="flightcache trust install FILE CACHE"
        )
    expect = expectations(args, args.cache, lambda: trusted_keys(None))
    if expect.counter_floor == vehicle.floor:
        expect = expect._replace(counter_floor=vehicle.floor._replace(raise_on_pass=False))
    with verify(args.cache, expect) as verdict:
        sys.stdout.buffer.write(sign_receipt(vehicle, _receipt(vehicle, verdict, None, nonce=args.nonce)))
    return 0


def tested(verdict: Verdict) -> str:
    """Return the result of the self-test in words: passed, failed, or not run where no engine can run."""
    if any(importlib.util.find_spec(name) is None for name in ("numpy", "faiss", "onnxruntime")):
        return "not run: numpy, faiss and onnxruntime are not installed here"
    from provisioning.quality.locate.self_test import self_test

    result = self_test(verdict)
    return f"{'passed' if result.passed else 'failed'}: {result.said}"


def write_receipt(
    vehicle: Vehicle | None, verdict: Verdict, *, test: str = "not run: not asked for", fallback_from: int | None = None
) -> bytes | None:
    """Write down what was installed, signed where the vehicle has a key, and return it; None where it has none."""
    if vehicle is None or not vehicle.key_file.is_file():
        return None
    data = sign_receipt(vehicle, _receipt(vehicle, verdict, test, fallback_from=fallback_from))
    with wrap_os_errors("write the receipt", vehicle.path):
        write_durably(vehicle.path / "receipt.json", data)
    log(
        vehicle,
        "receipt",
        **{k: v for k, v in read_receipt(data, None)._asdict().items() if v is not None and k != "at"},
    )
    return data


def _receipt(vehicle: Vehicle, verdict: Verdict, test: str | None, **more: object) -> Receipt:
    """test: the result of a self-test; None: that of the last installation, if it was of the same set."""
    trust = vehicle.read_trust()
    receipt = receipt_of(
        verdict,
        hostname=re.sub(r"[^!-~]", "_", socket.gethostname())[:255] or "unnamed",
        self_test=test or "not run: not asked for",
        trust_version=trust.newest.version if trust else None,
        **more,
    )
    last = None if test else _last(vehicle)
    if last is not None and last.manifest_sha256 == receipt.manifest_sha256:
        receipt = receipt._replace(self_test=last.self_test)
    if receipt.fallback_from is None and (above := _fallen_back(vehicle, receipt)):
        receipt = receipt._replace(fallback_from=above)
    return receipt


def _fallen_back(vehicle: Vehicle, receipt: Receipt) -> int | None:
    """Return the counter that this vehicle fell back from, if it flies below its floor."""
    try:
        floor = read_floor(vehicle.floor, vehicle.path / "nothing-is-inside")
    except Refusal:
        return None
    return floor.counter if receipt.counter is not None and receipt.counter < floor.counter else None


def _last(vehicle: Vehicle) -> Receipt | None:
    try:
        data = read_regular(vehicle.path / "receipt.json", limit=LIMIT_BYTES)
        return read_receipt(data, load_public_key(public_key_path(vehicle.key_file)))
    except (OSError, DeliveryError):
        return None
