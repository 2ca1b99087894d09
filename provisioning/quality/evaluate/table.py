"""Figures of several settings side by side: as text, as JSON values, as rows for a spreadsheet."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from provisioning.base.words import columns
from provisioning.quality.evaluate.conditions import Group, broken_down, condition_lines
from provisioning.quality.evaluate.run import Asked
from provisioning.quality.evaluate.score import RANKS, Recall, Score, is_hit, score

ELSEWHERE = 10
"""A median error beyond this many times the distance asked for is no error of navigation: half the answers miss."""


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

    @property
    def broken_down(self) -> Mapping[str, tuple[Group, ...]]:
        """The recall by heading, height, texture and distance to the tile's centre, where that divides the photos."""
        answers, known = [each.answer for each in self.asked], [each.conditions for each in self.asked]
        return broken_down(answers, known, within_m=self.within_m)


def as_text(results: Sequence[Result]) -> str:
    """Return one table: a row a setting, recall with its 95 % interval, chance beside it."""
    head = ["setting", "tiles", "index", *(f"recall@{rank} [95 %]" for rank in RANKS), "chance@1", "median error"]
    lines = columns([head, *(_row(result) for result in results)], left=1)
    first = results[0].score
    prior = "" if results[0].radius_m is None else f"; position known to {results[0].radius_m:,.0f} m"
    lines.append(f"{first.queries} photos; right: a place within {first.within_m:,.0f} m{prior}")
    lines += [line for result in results for line in _not_rendered(result)]
    lines += [line for result in results for line in _taken_for_granted(result)]
    lines += [line for result in results for line in _elsewhere(result)]
    lines += [line for result in results for line in _fixed(result)]
    lines += [_doubted(result) for result in results if result.asked]
    lines += [
        f"{result.name}: {1 - result.score.reachable:.0%} of the photos have no such tile in the cache"
        for result in results
        if result.score.reachable < 1
    ]
    for result in results:
        table = list(condition_lines(result.broken_down))
        lines += ["", f"{result.name}: where it finds and where not", *table] if table else []
    return "\n".join(line.rstrip() for line in lines)


def _elsewhere(result: Result) -> Iterator[str]:
    """Yield what a median error means that is no error of navigation, and what to do."""
    found = result.score
    if found.median_error_m <= ELSEWHERE * found.within_m or not math.isfinite(found.median_error_m):
        return
    free = result.radius_m is None and found.reachable >= 0.5
    step = "try --radius M, the circle in which the aircraft knows itself to be" if free else ""
    away = _metres(found.median_error_m)
    said = f"{result.name}: half of the photos are answered with another place, {away} away or more"
    right = f"; where the first place is right the median error is {_metres(found.median_found_m)}"
    yield said + (right if math.isfinite(found.median_found_m) else "") + (step and f"; {step}")


def _fixed(result: Result) -> Iterator[str]:
    """Yield how many photos the second stage gave a position, and how far off that is."""
    away = [asked.answer.distances_m[0] for asked in result.asked if asked.fix]
    if away:
        right = sum(each <= result.within_m for each in away) / len(away)
        yield (
            f"{result.name}: {len(away)} of {len(result.asked)} photos placed by features, {right:.1%} of them right, "
            f"median error {statistics.median(away):.1f} m"
        )


def _doubted(result: Result) -> str:
    """Return how often `locate` would call an answer not confident, of right and of wrong ones."""
    right, wrong = confidence(result)
    parts = [f"{doubted} of {count} {name} answers" for name, (doubted, count) in (("right", right), ("wrong", wrong))]
    return f"{result.name}: called not confident: {' and '.join(parts)}"


def confidence(result: Result) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return of the right and of the wrong first answers how many are doubted, and how many there are."""
    hits = [is_hit(asked.answer, 1, result.within_m) for asked in result.asked]
    doubts = [asked.doubt is not None for asked in result.asked]
    right, wrong = (
        (sum(doubt for hit, doubt in zip(hits, doubts, strict=True) if hit is wanted), hits.count(wanted))
        for wanted in (True, False)
    )
    return right, wrong


def _not_rendered(result: Result) -> Iterator[str]:
    """Yield how many photos were compared as they are, and why: without a camera and a height little is found."""
    reasons = Counter(asked.viewing for asked in result.asked if isinstance(asked.viewing, str))
    for reason, count in reasons.most_common():
        yield f"{result.name}: {count} of {len(result.asked)} photos compared as they are ({reason})"


ASSUMED = {
    "heading_deg": "give no heading (north assumed)",
    "pitch_deg": "give no pitch ({:.0f}° assumed)",
    "height_m": "give no height ({:.0f} m above ground assumed, camera.height_m)",
    "lens_mm": "give no lens (the subtitle's {:.0f} mm assumed over the width of a 4:3 sensor; [camera] says better)",
    "height_sought_m": "give no height (the best of several tried, each at the cost of a photo)",
}


def _taken_for_granted(result: Result) -> Iterator[str]:
    """Yield how many photos did not say their heading, pitch or height, and what was assumed."""
    found = assumed(result)
    said = [f"{count} {ASSUMED[name].format(value)}" for name, (count, value) in found.items()]
    if said:
        yield f"{result.name}: of {len(result.asked)} photos {', '.join(said)}"


def assumed(result: Result) -> Mapping[str, tuple[int, float]]:
    """Return by what was not said of how many photos, and the value that stood for it; of heights sought the median."""
    values: dict[str, list[float]] = {}
    for asked in result.asked:
        for name, value in asked.assumed.as_json().items():
            values.setdefault(name, []).append(value)
    return {name: (len(values[name]), statistics.median(values[name])) for name in ASSUMED if name in values}


def _row(result: Result) -> list[str]:
    found = result.score
    recalls = [f"{100 * r.share:.1f} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in found.recalls]
    size = f"{result.index_bytes / 1e6:.1f} MB"
    chance = f"{100 * found.recalls[0].chance:.1f}"
    return [result.name, f"{result.tiles:,}", size, *recalls, chance, _metres(found.median_error_m)]


def _metres(error_m: float) -> str:
    """Return an error with its unit; infinite where half of the photos have no answer."""
    return f"{error_m:,.0f} m" if math.isfinite(error_m) else "no answer"


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
        "assumed": {name: {"photos": count, "value": value} for name, (count, value) in assumed(result).items()},
        "reachable": round(found.reachable, 4),
        "median_error_m": _finite(found.median_error_m),
        "median_error_found_m": _finite(found.median_found_m),
        "fixed": sum(asked.fix is not None for asked in result.asked),
        "not_confident": {
            name: {"doubted": doubted, "answers": count}
            for name, (doubted, count) in zip(("right", "wrong"), confidence(result), strict=True)
        },
        "recall": _recall_json(found.recalls),
        "by": {
            condition: [
                {"range": group.name, "queries": group.photos, "recall": _recall_json(group.recalls)}
                for group in groups
            ]
            for condition, groups in result.broken_down.items()
        },
    }


def _finite(metres: float) -> float | None:
    return round(metres, 1) if math.isfinite(metres) else None


def _recall_json(recalls: Sequence[Recall]) -> dict[str, object]:
    return {
        str(r.rank): {
            "share": round(r.share, 4),
            "interval_95": [round(r.low, 4), round(r.high, 4)],
            "chance": round(r.chance, 4),
        }
        for r in recalls
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
                "tile": best.name if best else "",
                "source": best.source if best else "",
                "similarity": round(best.similarity, 4) if best else "",
                "found_lat": best.position.lat_e7 / 1e7 if best else "",
                "found_lon": best.position.lon_e7 / 1e7 if best else "",
                "heading_deg": round(best.heading_deg, 1) if best else "",
                "error_m": round(asked.answer.distances_m[0], 1) if best else "",
                "confident": int(asked.doubt is None),
                "sigma_m": round((asked.fix.east_m2 + asked.fix.north_m2) ** 0.5, 1) if asked.fix else "",
                **{f"hit@{rank}": int(is_hit(asked.answer, rank, result.within_m)) for rank in RANKS},
                "right_tiles": asked.answer.near,
                **{
                    f"photo_{name}": "" if value is None else round(value, 3)
                    for name, value in asked.conditions._asdict().items()
                },
            }
