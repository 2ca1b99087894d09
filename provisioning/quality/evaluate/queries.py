"""queries.csv: photos with the place where each was taken."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from provisioning.base.angles import Origin
from provisioning.base.errors import PhotoError

COLUMNS = ("file", "lat", "lon")
HEADINGS = ("yaw", "heading")
MOST_ISSUES = 20


class Query(NamedTuple):
    """A photo, where it was taken, and where its top points if that is known, degree clockwise from true north."""

    name: str
    path: Path
    place: Origin
    heading_deg: float | None


def read_queries(path: Path) -> tuple[Query, ...]:
    """Return the rows of a CSV with the columns file, lat, lon [degree] and optionally yaw [degree].

    Files are relative to the CSV. PhotoError lists every row that cannot be used, by its line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            issues = [f"no column {name!r}" for name in COLUMNS if name not in (rows.fieldnames or ())]
            found = [] if issues else [_query(row, path.parent) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhotoError(f"the list of queries cannot be read: {error}", file=path) from error
    numbered = [f"line {number}: {row}" for number, row in enumerate(found, 2) if isinstance(row, str)]
    _refuse(path, issues + numbered)
    queries = tuple(row for row in found if isinstance(row, Query))
    if not queries:
        raise PhotoError(
            "the list of queries is empty", file=path, next_step="one row for each photo: file,lat,lon,yaw"
        )
    return queries


def _refuse(path: Path, issues: list[str]) -> None:
    if not issues:
        return
    shown = issues[:MOST_ISSUES] + ([f"and {len(issues) - MOST_ISSUES} more"] if len(issues) > MOST_ISSUES else [])
    raise PhotoError(
        "the list of queries cannot be used",
        file=path,
        facts={f"issue {number}": issue for number, issue in enumerate(shown, 1)},
        next_step="columns: file,lat,lon in degrees, and yaw (clockwise from north) where it is known",
    )


def _query(row: Mapping[str, str | None], folder: Path) -> Query | str:
    """Return the query in a row, or what is wrong with it."""
    name = row["file"] or ""
    lat, lon = _number(row["lat"], 90), _number(row["lon"], 180)
    if not name or not (folder / name).is_file():
        return f"no photo at {name!r}"
    if lat is None or lon is None:
        return f"lat {row['lat']!r}, lon {row['lon']!r}: degrees expected"
    text = next((row[column] for column in HEADINGS if row.get(column)), None)
    heading = None if text is None else _number(text, 360)
    if text is not None and heading is None:
        return f"yaw {text!r}: degrees expected"
    return Query(name, folder / name, Origin(round(lat * 1e7), round(lon * 1e7)), heading)


def _number(text: str | None, most: float) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= most else None


def to_csv(rows: Iterator[Mapping[str, object]], file: Path) -> None:
    """Write `rows`, which all have the same keys, as CSV."""
    rows_ = list(rows)
    with open(file, "w", newline="", encoding="utf-8") as output:
        writer = csv.DictWriter(output, rows_[0].keys() if rows_ else ())
        writer.writeheader()
        writer.writerows(rows_)
