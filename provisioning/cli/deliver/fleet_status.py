"""`flightcache fleet status`: each vehicle is asked for a receipt, signed now; without one nothing is believed."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.base.errors import DeliveryError, Error, VerificationError
from provisioning.base.printable import printable
from provisioning.base.process.capture import ask, last_lines
from provisioning.base.words import columns
from provisioning.delivery.fleet import Fleet, Vehicle
from provisioning.delivery.sync import SSH, parse_destination
from provisioning.flight.receipt import Receipt, read_receipt
from provisioning.flight.signing import load_public_key

RECEIPT_BYTES = 1 << 16
TIME_S = 600
"""Longest time for an answer, second: the vehicle hashes its whole cache first."""


class Answer(NamedTuple):
    """What a vehicle says, and whether its key proves it; or why it says nothing."""

    vehicle: str
    receipt: Receipt | None
    proven: bool
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the vehicle has proven that what it flies verifies there."""
        return self.proven and self.receipt is not None and self.receipt.verified == "PASS"


def show(fleet: Fleet, only: Sequence[str] | None, *, as_json: bool) -> int:
    """Ask, print a line for each vehicle, and return 0 if every one has proven that its cache passes there."""
    answers = [asked(vehicle, fleet.revoked) for vehicle in fleet.vehicles if not only or vehicle.name in only]
    if as_json:
        rows = [{**a._asdict(), "receipt": a.receipt and a.receipt._asdict()} for a in answers]
        print(json.dumps({"vehicles": rows}, indent=2))
    else:
        print(as_text(answers))
    return 0 if all(answer.good for answer in answers) else VerificationError.exit_code


def asked(vehicle: Vehicle, revoked: Collection[str] = ()) -> Answer:
    """Ask one vehicle for a receipt about what it has now; what a key of `revoked` signed does not verify."""
    nonce = secrets.token_hex(32)
    try:
        data = _ask(vehicle, nonce, revoked)
        key = load_public_key(Path(vehicle.receipt_key)) if vehicle.receipt_key else None
        receipt = read_receipt(data, key, nonce=nonce)
    except Error as error:
        return Answer(vehicle.name, None, proven=False, reason=" ".join(str(error).split())[:300])
    return Answer(vehicle.name, receipt, proven=key is not None, reason="" if key else "no receipt_key: not proven")


def _ask(vehicle: Vehicle, nonce: str, revoked: Collection[str]) -> bytes:
    to = parse_destination(vehicle.target) if vehicle.target else None
    if to is None or not (vehicle.command or to.host):
        raise DeliveryError("nothing says how to ask it", file=vehicle.name, next_step="give command and target")
    words = [*shlex.split(vehicle.program), "receipt", to.path, "--nonce", nonce]
    words += ["--public-key", vehicle.remote_key] if vehicle.remote_key else []
    words += ["--revoked", ",".join(sorted(revoked))] if revoked else []
    shell = shlex.split(vehicle.command) if vehicle.command else [*SSH, to.host]
    try:
        done = ask([*shell, shlex.join(words)], most_bytes=RECEIPT_BYTES, within_s=TIME_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeliveryError("it does not answer", facts={"reason": str(error)[:200]}) from error
    if done.returncode != 0:
        said = last_lines(done.err.decode("utf-8", "replace"))
        raise DeliveryError("it gives no receipt", facts={"exit code": done.returncode, "it said": said})
    return done.out


def as_text(answers: Sequence[Answer]) -> str:
    """Return a table: vehicle, state, counter, flight, hash, self-test, remarks."""
    rows: list[tuple[str, ...]] = [("vehicle", "state", "counter", "flight", "Manifest", "self-test", "")]
    rows += [tuple(map(printable, _row(answer))) for answer in answers]
    return "\n".join(columns(rows, left=len(rows[0])))


def _row(answer: Answer) -> tuple[str, ...]:
    said = answer.receipt
    if said is None:
        return answer.vehicle, "UNKNOWN", "", "", "", "", answer.reason
    state = "PASS" if answer.good else "REFUSED" if said.verified != "PASS" else "unproven"
    remarks = [answer.reason, "" if said.verified == "PASS" else said.verified]
    remarks += [f"fell back from {said.fallback_from}"] if said.fallback_from else []
    return (
        answer.vehicle,
        state,
        str(said.counter or ""),
        said.flight_id or "any",
        (said.manifest_sha256 or "")[:12],
        said.self_test.partition(":")[0],
        "; ".join(filter(None, remarks)),
    )
