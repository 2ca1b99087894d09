"""Figures of several settings side by side: as text, as JSON values, as rows for a spreadsheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from provisioning.quality.evaluate.run import Asked
from provisioning.quality.evaluate.score import RANKS, Score, is_hit, score

LOST_M = 100_000.0
"""A median error beyond this is no error of navigation: most answers lie in another part of the cache."""


class Result(NamedTuple):
    """One setting: its name, how many tiles and bytes its index has, and every query answered."""

    name: str
    tiles: int
    index_bytes: int
    dimension: int
    asked: tuple[Asked, ...]
    within_m: float
    radius_m: float | None = None

    @property
    def score(self) -> Score:
        """The figures."""
        return score([asked.answer for asked in self.asked], within_m=self.within_m)


def as_text(results: Sequence[Result]) -> str:
    """Return one table: a row a setting, recall with its 95 % interval, chance beside it."""
    head = ["setting", "tiles", "index", *(f"recall@{rank} [95 %]" for rank in RANKS), "chance@1", "median error"]
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            _set(cell, width, left=not column) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    first = results[0].score
    prior = "" if results[0].radius_m is None else f"; position known to {results[0].radius_m:,.0f} m"
    lines.append(f"{first.queries} photos; right: a place within {first.within_m:,.0f} m{prior}")
    lines += [line for result in results for line in _not_rendered(result)]
    lines += [
        f"{result.name}: {1 - result.score.reachable:.0%} of the photos have no such tile in the cache"
        for result in results
        if result.score.reachable < 1
    ]
    return "\n".join(line.rstrip() for line in lines)


def _not_rendered(result: Result) -> Iterator[str]:
    """Yield how many photos were compared as they are, and why: without a camera and a height little is found."""
    reasons = Counter(asked.viewing for asked in result.asked if isinstance(asked.viewing, str))
    for reason, count in reasons.most_common():
        yield f"{result.name}: {count} of {len(result.asked)} photos compared as they are ({reason})"


def _set(cell: str, width: int, *, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _row(result: Result) -> list[str]:
    found = result.score
    recalls = [f"{100 * r.share:.1f} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in found.recalls]
    size = f"{result.index_bytes / 1e6:.1f} MB"
    chance = f"{100 * found.recalls[0].chance:.1f}"
    return [result.name, f"{result.tiles:,}", size, *recalls, chance, _metres(found.median_error_m)]


def _metres(error_m: float) -> str:
    """Return an error in words: most photos without an answer, or an answer on the wrong continent, have no median."""
    if not math.isfinite(error_m):
        return "no answer"
    return f"{error_m:,.0f} m" if error_m < LOST_M else f"lost (>{LOST_M / 1000:,.0f} km)"


def as_json(result: Result) -> dict[str, object]:
    """Return the figures of one setting as JSON values; keys are stable."""
    found = result.score
    return {
        "setting": result.name,
        "tiles": result.tiles,
        "index_bytes": result.index_bytes,
        "dimension": result.dimension,
        "queries": found.queries,
        "within_m": found.within_m,
        "radius_m": result.radius_m,
        "rendered": sum(not isinstance(asked.viewing, str) for asked in result.asked),
        "reachable": round(found.reachable, 4),
        "median_error_m": round(found.median_error_m, 1) if math.isfinite(found.median_error_m) else None,
        "recall": {
            str(r.rank): {
                "share": round(r.share, 4),
                "interval_95": [round(r.low, 4), round(r.high, 4)],
                "chance": round(r.chance, 4),
            }
            for r in found.recalls
        },
    }


def per_query(results: Sequence[Result]) -> Iterator[dict[str, object]]:
    """Yield a row for each query under each setting."""
    for result in results:
        for asked in result.asked:
            best = asked.matches[0] if asked.matches else None
            yield {
                "setting": result.name,
                "file": asked.query.name,
                "lat": asked.query.place.lat_e7 / 1e7,
                "lon": asked.query.place.lon_e7 / 1e7,
                "tile": f"{best.z}/{best.x}/{best.y}" if best else "",
                "source": best.source if best else "",
                "similarity": round(best.similarity, 4) if best else "",
                "found_lat": best.position.lat_e7 / 1e7 if best else "",
                "found_lon": best.position.lon_e7 / 1e7 if best else "",
                "heading_deg": round(best.heading_deg, 1) if best else "",
                "error_m": round(asked.answer.distances_m[0], 1) if best else "",
                **{f"hit@{rank}": int(is_hit(asked.answer, rank, result.within_m)) for rank in RANKS},
                "right_tiles": asked.answer.near,
            }
