"""Photos with the place where each was taken: a CSV, a folder as it comes, photos beside a subtitle or log."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import open_text
from provisioning.base.errors import PhotoError
from provisioning.base.events import warn
from provisioning.base.geometry.angles import Origin
from provisioning.quality.evaluate.flight_log import Capture, for_photos, is_flight_log, read_flight_log
from provisioning.quality.evaluate.subtitles import Frame, frame_number, read_subtitles
from provisioning.quality.locate.photo import read_position
from provisioning.quality.query.attitude import Angles
from provisioning.quality.query.viewing import NOTHING, Known

COLUMNS = ("file", "lat", "lon")
OPTIONAL = {
    "yaw": (("yaw", "heading", "yaw_deg", "heading_deg", "gimbal_yaw"), -360.0, 360.0),
    "pitch": (("pitch", "pitch_deg", "gimbal_pitch"), -180.0, 180.0),
    "roll": (("roll", "roll_deg", "gimbal_roll"), -360.0, 360.0),
    "height": (("height_m", "height", "agl", "agl_m", "rel_alt", "relative_altitude"), 0.0, 100_000.0),
    "fov": (("fov_deg", "fov", "hfov"), 1.0, 170.0),
    "time": (("time_s", "t_s", "timestamp_s"), 0.0, 1e11),
}
"""What else a list may say of a photo: names of its column, least and largest value; degree, metre, second."""
MOST_ISSUES = 20
LOGS = (".bin", ".log", ".ulg")
CERTAIN = (".srt", ".ulg")
"""Endings that are used for nothing else; whether another file is a flight log its first bytes say."""
PHOTOS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class Query(NamedTuple):
    """A photo, where it was taken, and where its top points if that is known, degree clockwise from true north.

    known: what else the list says of it, before the photo's own metadata. time_s: when, for a track.
    """

    name: str
    path: Path
    place: Origin
    heading_deg: float | None
    known: Known = NOTHING
    time_s: float | None = None


def find_queries(path: Path, *, frame_step: int = 1) -> tuple[Query, ...]:
    """Return the queries in a CSV, or in a folder: photos with a position of their own, or beside a .SRT or flight log.

    frame_step: frames of the video from one image to the next. Photos without a position are left out, with an event
    that counts them. PhotoError where nothing is left or the list cannot be used.
    """
    return _in_folder(path, frame_step) if path.is_dir() else read_queries(path)


def has_subtitles(path: Path) -> bool:
    """Return whether `path` is a folder with the subtitle of a video."""
    return path.is_dir() and any(each.suffix.lower() == ".srt" for each in path.iterdir())


def _in_folder(folder: Path, frame_step: int) -> tuple[Query, ...]:
    files = sorted((each for each in folder.iterdir() if each.suffix.lower() in PHOTOS), key=_by_number)
    found = _placed(files, _record_in(folder), frame_step)
    queries = tuple(each for each in found if each is not None)
    if not queries:
        raise PhotoError(
            "no photo in the folder says where it was taken",
            file=folder,
            facts={"photos": len(files)},
            next_step="photos with a GPS position in EXIF, frames with the video's .SRT, photos with the autopilot's "
            "log (.bin, .ulg), or a CSV file,lat,lon",
        )
    if len(queries) < len(files):
        warn("evaluate.left_out", photos=len(files) - len(queries), why="no position in the photo")
    return queries


def _by_number(path: Path) -> tuple[Sequence[tuple[int, str]], str]:
    """Return a key under which 9.jpg comes before 10.jpg."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(each), "") if each.isdecimal() else (-1, each) for each in parts], path.name


def _record_in(folder: Path) -> Path | None:
    """Return the subtitle or flight log in the folder; PhotoError where there are several."""
    files = sorted(each for each in folder.iterdir() if each.suffix.lower() in (".srt", *LOGS))
    records = [each for each in files if each.suffix.lower() in CERTAIN or is_flight_log(each)]
    if len(records) > 1:
        raise PhotoError(
            "the folder holds several subtitles or flight logs",
            file=folder,
            facts={"files": ", ".join(each.name for each in records)},
            next_step="one folder for each video with its frames, and for each flight with its photos",
        )
    return records[0] if records else None


def _placed(files: Sequence[Path], record: Path | None, frame_step: int) -> Iterator[Query | None]:
    """Yield each photo with the place that the record or, without one, the photo says; None where none does."""
    if record is None:
        positions = ((path, read_position(path)) for path in files)
        yield from (place and Query(path.name, path, place, None) for path, place in positions)
    elif record.suffix.lower() == ".srt":
        frames = read_subtitles(record)
        yield from (_query_of(path, _frame_of(path, frames, frame_step)) for path in files)
    elif files:
        captures = for_photos(read_flight_log(record), len(files), record)
        yield from (_query_of(path, capture) for path, capture in zip(files, captures, strict=True))


def _query_of(path: Path, taken: Frame | Capture | None) -> Query | None:
    if taken is None or taken.place is None:
        return None
    return Query(path.name, path, taken.place, taken.known.angles.yaw_deg, taken.known, taken.time_s)


def _frame_of(path: Path, frames: Mapping[int, Frame], frame_step: int) -> Frame | None:
    number = frame_number(path)
    return None if number is None else frames.get((number - 1) * frame_step + 1)


def read_queries(path: Path) -> tuple[Query, ...]:
    """Return the rows of a CSV with the columns file, lat, lon [degree] and any of OPTIONAL.

    Files are relative to the CSV. Angles are the camera's, or the airframe's where camera.angles_of says so.
    PhotoError lists every row that cannot be used, by its line.
    """
    try:
        with open_text(path, encoding="utf-8-sig") as file:
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
        next_step="columns: file,lat,lon in degrees; where they are known yaw, pitch, roll, height_m, fov_deg, time_s",
    )


def _query(row: Mapping[str, str | None], folder: Path) -> Query | str:
    """Return the query in a row, or what is wrong with it."""
    name = row["file"] or ""
    lat, lon = _number(row["lat"], 90), _number(row["lon"], 180)
    if not name or not (folder / name).is_file():
        return f"no photo at {name!r}"
    if lat is None or lon is None:
        return f"lat {row['lat']!r}, lon {row['lon']!r}: degrees expected"
    values = {name: _optional(row, *rule) for name, rule in OPTIONAL.items()}
    wrong = next((value for value in values.values() if isinstance(value, str)), None)
    if wrong is not None:
        return wrong
    yaw, pitch, roll, height, fov, time_s = (value if isinstance(value, float) else None for value in values.values())
    known = Known(Angles(yaw, pitch, roll), height, fov)
    return Query(name, folder / name, Origin(round(lat * 1e7), round(lon * 1e7)), yaw, known, time_s)


def _optional(row: Mapping[str, str | None], names: Sequence[str], low: float, high: float) -> float | str | None:
    """Return the value under the first of `names` that the row fills in, None where there is none, or the mistake."""
    column = next((name for name in names if (row.get(name) or "").strip()), None)
    if column is None:
        return None
    value = _number(row[column], max(abs(low), high))
    unit = "second" if column.endswith("_s") else "metre" if high > 360 else "degree"
    return f"{column} {row[column]!r}: {low:g} to {high:g} {unit} expected" if value is None or value < low else value


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
