"""What a cache is worth, in one sentence: the same words in `doit`, `status`, `verify`, `doctor`, reports and metrics.

    PASS, counter 12, flight F-118, 1 gate waived, 12 tiles missing, imagery up to 412 days old, heading must be known

Each part has a mark, so that a terminal can colour it; the words say the same without colour.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Literal

from provisioning.base.named import NamedTuple
from provisioning.base.words import counted
from provisioning.flight.manifest import GateEntry, Manifest
from provisioning.flight.verify.verdict import Verdict

State = Literal["PASS", "REFUSED", "NOT VERIFIED"]
Mark = Literal["good", "plain", "warn", "bad"]

STANDARD: Mapping[str, str | Mapping[str, str]] = {
    "batch_invariance": {"fp32": "0.0001", "fp16": "0.005", "int8": "0.02"},
    "coverage.required": "1",
    "degenerate": "0.2",
    "distinct": "0.000001",
    "fidelity.agreement": {"fp32": "0.99", "fp16": "0.97", "int8": "0.85"},
    "fidelity.cosine": {"fp32": "0.9999", "fp16": "0.999", "int8": "0.97"},
    "index_recall": "0.9",
    "recognition": "0.5",
    "recognition.any_heading": "0.5",
}
"""Threshold of each gate where flight.toml says nothing, by precision where it depends on that. The vehicle has no
builder to ask, so they stand here too; a test compares them with the builder's."""

AT_MOST = frozenset({"batch_invariance", "degenerate"})
"""Gates whose figure must not be above the threshold; of all others it must not be below."""


class Part(NamedTuple):
    """A piece of the sentence."""

    text: str
    mark: Mark


class Summary(NamedTuple):
    """What the sentence says, as values; the keys are those of every `--json`.

    gates_lowered: gates held to less than the standard threshold, whether they pass or not. imagery_days: age of the
    oldest tile on the day of asking; None where no date is known or nobody said what day it is. accepted: what a person
    accepted when the cache was set up, in words. reasons: how many stand against the cache.
    """

    state: State
    reasons: int
    counter: int | None
    flight_id: str | None
    aircraft_id: str | None
    gates_waived: tuple[str, ...]
    gates_warned: tuple[str, ...]
    gates_lowered: tuple[str, ...]
    tiles_missing: int
    tiles_skipped: int
    accepted: tuple[str, ...]
    oldest_capture: str | None
    imagery_days: int | None
    not_after: str | None
    heading_must_be_known: bool
    recognition: str | None = None
    """What the gate of that name expects of a flight, in its words; None where it was not measured."""

    def as_json(self) -> dict[str, object]:
        """Return the values and the sentence itself, for JSON."""
        return {"sentence": self.sentence(), **self._asdict()}

    def sentence(self) -> str:
        """Return the sentence."""
        return ", ".join(part.text for part in self.parts())

    def parts(self) -> tuple[Part, ...]:
        """Return the parts of the sentence in their order, each with its mark."""
        marks: Mapping[State, Mark] = {"PASS": "good", "REFUSED": "bad", "NOT VERIFIED": "warn"}
        first = Part(self.state, marks[self.state])
        against = (Part(counted(self.reasons, "reason"), "bad"),) if self.reasons else ()
        return (first, *against, *(self._of_manifest() if self.counter is not None else ()))

    def _of_manifest(self) -> Iterator[Part]:
        yield Part(f"counter {self.counter}", "plain")
        yield Part(f"flight {self.flight_id}" if self.flight_id else "any flight", "plain")
        yield from self._gates()
        if self.tiles_missing:
            yield Part(f"{counted(self.tiles_missing, 'tile')} missing", "warn")
        if self.tiles_skipped:
            yield Part(f"{counted(self.tiles_skipped, 'tile')} skipped", "warn")
        if self.accepted:
            yield Part("accepted by " + _accepted_by(self.accepted), "warn")
        yield self._age()
        if self.not_after:
            yield Part(f"not to be flown after {self.not_after}", "plain")
        if self.recognition:
            yield Part(self.recognition, "good" if self.recognition == "recognises" else "warn")
        if self.heading_must_be_known and self.recognition != "needs a known heading":
            yield Part("heading must be known", "plain")

    def _gates(self) -> Iterator[Part]:
        for names, how in ((self.gates_waived, "waived"), (self.gates_lowered, "lowered"), (self.gates_warned, "")):
            if names:
                words = how or ("warns" if len(names) == 1 else "warn")
                yield Part(f"{counted(len(names), 'gate')} {words}", "warn")

    def _age(self) -> Part:
        if self.oldest_capture is None:
            return Part("imagery of unknown age", "warn")
        if self.imagery_days is None:
            return Part(f"oldest imagery of {self.oldest_capture}", "plain")
        if self.imagery_days < 0:
            return Part(f"oldest imagery of {self.oldest_capture}, after the date of this computer", "warn")
        return Part(f"imagery up to {counted(self.imagery_days, 'day')} old", "plain")


def summarise(manifest: Manifest | None, state: State, *, reasons: int = 0, today: dt.date | None = None) -> Summary:
    """Return the summary of a Manifest; None: it cannot be read, or nobody who counts signed it.

    today: the day in UTC with which dates are compared; None where no clock can be trusted.
    """
    if manifest is None:
        return Summary(state, reasons, None, None, None, (), (), (), 0, 0, (), None, None, None, False)  # noqa: FBT003
    oldest, gates = manifest.tiles.oldest_capture, manifest.gates
    return Summary(
        state=state,
        reasons=reasons,
        counter=manifest.build.counter,
        flight_id=manifest.flight.flight_id,
        aircraft_id=manifest.flight.aircraft_id,
        gates_waived=tuple(sorted(name for name, gate in gates.items() if gate.verdict == "waived")),
        gates_warned=tuple(sorted(name for name, gate in gates.items() if gate.verdict == "warn")),
        gates_lowered=tuple(sorted(name for name, gate in gates.items() if _is_lowered(name, gate, manifest))),
        tiles_missing=sum(max(0, zoom.expected - zoom.present) for zoom in manifest.tiles.per_zoom.values()),
        tiles_skipped=manifest.tiles.skipped,
        accepted=tuple(entry.detail for entry in manifest.accepted),
        oldest_capture=oldest,
        imagery_days=(today - dt.date.fromisoformat(oldest)).days if today and oldest else None,
        not_after=manifest.flight.not_after,
        heading_must_be_known=manifest.descriptor_index.rotations == 1,
        recognition=gates["recognition"].detail.partition(":")[0] if "recognition" in gates else None,
    )


def of_verdict(verdict: Verdict, *, today: dt.date | None) -> Summary:
    """Return the summary of what was verified."""
    state: State = "PASS" if verdict.passed else "REFUSED"
    return summarise(verdict.manifest, state, reasons=len(verdict.reasons), today=today)


def utc_today() -> dt.date:
    """Return the day in UTC by the clock of this computer."""
    return dt.datetime.now(dt.timezone.utc).date()


def _is_lowered(name: str, gate: GateEntry, manifest: Manifest) -> bool:
    standard = _standard(name, manifest)
    if gate.threshold is None or standard is None:
        return False
    try:
        asked = Decimal(gate.threshold)
    except InvalidOperation:  # no figure: a Manifest allows any text here
        return True
    return asked > standard if name in AT_MOST else asked < standard


def _standard(name: str, manifest: Manifest) -> Decimal | None:
    """Return the threshold of a gate where flight.toml says nothing; None where there is none."""
    if name == f"coverage.z{max(manifest.tiles.per_zoom, default=0)}":
        return Decimal(1)
    standard = STANDARD.get(name)
    if isinstance(standard, Mapping):
        engines = (e for e in manifest.engines if e.path == manifest.descriptor_index.engine)
        standard = next((standard.get(engine.precision) for engine in engines), None)
    return None if standard is None else Decimal(standard)


def _accepted_by(details: tuple[str, ...]) -> str:
    """Return who accepted, from `accepted by NAME: what`; each once."""
    names = [detail.partition(":")[0].removeprefix("accepted by ") for detail in details]
    return " and ".join(dict.fromkeys(names))
