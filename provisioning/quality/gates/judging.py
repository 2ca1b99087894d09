"""Figures against thresholds and waivers. Pure; every failed gate is named in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from provisioning.base.errors import GateError
from provisioning.config.schema import Waiver
from provisioning.flight.manifest import GateEntry
from provisioning.quality.gates.values import Figure


class Limit(NamedTuple):
    """What a figure is held to, and what to do where it fails. No `threshold`: the figure is only told."""

    threshold: Decimal | None
    at_least: bool
    next_step: str
    action: Literal["fail", "warn"] = "fail"

    def holds(self, measured: Decimal) -> bool:
        """Tell whether `measured` passes."""
        assert self.threshold is not None
        return measured >= self.threshold if self.at_least else measured <= self.threshold


def family(gate: str) -> str:
    """Return the name by which a gate is waived: `coverage` for `coverage.z15`."""
    return gate.partition(".")[0]


def judge(
    figures: Mapping[str, Figure], limits: Mapping[str, Limit], waivers: Sequence[Waiver] = ()
) -> Mapping[str, GateEntry]:
    """Return the Manifest entry of each figure; GateError lists every gate that failed and is not waived.

    A figure that is held to something and could not be measured warns. A figure without a limit, or a limit without a
    figure, is a mistake of the caller and raises ValueError: nothing passes by being forgotten.
    """
    if figures.keys() != limits.keys():
        raise ValueError(f"figures and limits differ: {sorted(figures.keys() ^ limits.keys())}")
    waived = {waiver.gate for waiver in waivers}
    verdicts = {name: _verdict(figures[name], limits[name], waived={name, family(name)} & waived) for name in figures}
    failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
    if failed:
        raise _failure(failed, figures, limits)
    return {name: _entry(figures[name], limits[name], verdicts[name]) for name in sorted(figures)}


def _verdict(figure: Figure, limit: Limit, *, waived: set[str]) -> str:
    if limit.threshold is None:
        return "pass"
    if figure.measured is None:
        return "warn"
    if limit.holds(Decimal(figure.measured)):
        return "pass"
    return "waived" if waived else limit.action


def _entry(figure: Figure, limit: Limit, verdict: str) -> GateEntry:
    threshold = None if limit.threshold is None else f"{limit.threshold.normalize():f}"
    assert verdict in ("pass", "warn", "waived")
    return GateEntry(figure.measured, threshold, verdict, figure.detail)  # type: ignore[arg-type]


def _failure(failed: Sequence[str], figures: Mapping[str, Figure], limits: Mapping[str, Limit]) -> GateError:
    facts = {}
    for name in failed:
        figure, limit = figures[name], limits[name]
        side = "at least" if limit.at_least else "at most"
        facts[name] = f"{figure.measured}, {side} {limit.threshold} is asked ({figure.detail}); {limit.next_step}"
    return GateError(
        f"{len(failed)} of {len(figures)} quality gates failed; nothing is published",
        facts=facts,
        next_step="correct what each line says, or pass a gate over knowingly with [[waiver]] gate, by, reason",
    )
