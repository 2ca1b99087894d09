"""Gates that need no network: is the area covered, is the imagery recent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal

from provisioning.catalogue import Corpus
from provisioning.catalogue.values import ZoomCount
from provisioning.config.schema import Area, Sector
from provisioning.quality.gates.values import Figure

UNDATED_DAYS = 99999
"""The age of imagery without a date that can be true, where a policy limits the age: older than any limit."""


def corpus_figures(corpus: Corpus, policy: Sector, *, today: dt.date) -> Mapping[str, Figure]:
    """Return coverage per zoom, as a share rounded down, and freshness, in days, as of `today` (UTC)."""
    figures = {}
    for zoom, count in sorted(corpus.per_zoom.items()):
        figures[f"coverage.z{zoom}"] = Figure(
            f"{_share(count)}",
            ", ".join(filter(None, (f"{count.present} of {count.expected} tiles", corpus.hole_notes.get(zoom)))),
        )
    if corpus.required:
        figures["coverage.required"] = _required(corpus)
    return {**figures, "freshness": _freshness(corpus, policy, today)}


def accepted_coverage(area: Area, corpus: Corpus) -> tuple[str, ...]:
    """Return, for each zoom level that lacks no more tiles than it may, who accepted that: `accepted by init: …`."""
    by = " ".join(area.accepted_by.split()) or "flight.toml"
    asked = area.min_coverage
    counts = {zoom: corpus.per_zoom[zoom] for zoom in sorted(asked) if zoom in corpus.per_zoom}
    return tuple(
        f"accepted by {by}: at zoom {zoom} {count.present} of {count.expected} tiles are there"
        for zoom, count in counts.items()
        if count.present < count.expected and _share(count) >= asked[zoom]  # less than that nobody accepted
    )


def _share(count: ZoomCount) -> Decimal:
    """Return the share of expected tiles that are there, rounded down to four digits, as the gate compares it."""
    share = Decimal(count.present) / count.expected if count.expected else Decimal(1)
    return share.quantize(Decimal("0.0001"), ROUND_DOWN)


def _required(corpus: Corpus) -> Figure:
    gone = corpus.required_missing
    share = (Decimal(corpus.required - len(gone)) / corpus.required).quantize(Decimal("0.0001"), ROUND_DOWN)
    named = ", ".join(f"{tile.z}/{tile.x}/{tile.y} ({tile.why})" for tile in gone[:5])
    more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
    detail = f"{corpus.required} tiles at the take-off point and under the route"
    return Figure(f"{share}", f"{detail}, missing {named}{more}" if gone else f"{detail}, all there")


def _freshness(corpus: Corpus, policy: Sector, today: dt.date) -> Figure:
    oldest = corpus.oldest_capture
    if corpus.undated or oldest is None:
        return _ageless(policy, f"{corpus.undated or corpus.count} tiles without a capture date")
    age = (today - dt.date.fromisoformat(oldest)).days
    if age < -1:  # one day may lie between two time zones
        return _ageless(policy, f"captured {oldest}, after today, {today}: this computer's clock or the date is wrong")
    return Figure(str(age), f"age in days of the oldest tile, captured {oldest}")


def _ageless(policy: Sector, detail: str) -> Figure:
    return Figure(None if policy.max_age_days is None else str(UNDATED_DAYS), detail)


def stale_on(corpus: Corpus, policy: Sector, *, today: dt.date) -> bool:
    """Return whether the imagery is too old for its sector class on `today`: a day may pass without a new build."""
    most, figure = policy.max_age_days, _freshness(corpus, policy, today)
    return most is not None and figure.measured is not None and int(figure.measured) > most
