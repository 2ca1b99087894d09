"""flight.toml → `Flight`: every mistake is found in one reading and reported with file, key and what was expected."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from provisioning.base.disk import memo
from provisioning.base.disk.files import read_input
from provisioning.base.errors import ConfigError
from provisioning.base.geometry.angles import BBox, Origin
from provisioning.base.hashing import Fact, sha256_bytes
from provisioning.base.named import NamedTuple
from provisioning.base.words import meant, typed
from provisioning.config.check import check, missing_sources
from provisioning.config.naming import with_names
from provisioning.config.schema import REMOVED, Flight, TileSource, is_key

FILE = "flight.toml"
KEPT = Path(".build", "flight.json")
"""The tables of flight.toml as the last build read them: TOML's parser need not be loaded again (measured: 2 % of a
build with nothing to do)."""
LARGEST_FILE_BYTES = 1 << 20
MOST_DIGITS = 18
"""Of a number, before and after the point: whatever it is used for, it fits into 64 bits."""
_INVALID: Any = object()


class Issue(NamedTuple):
    """One mistake: the key as the user would write it, and what was expected there."""

    key: str
    problem: str


class _Reading:
    """Converts TOML values to the types of the schema and keeps every issue that it meets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.issues: list[Issue] = []

    def bad(self, key: str, problem: str) -> Any:
        self.issues.append(Issue(key, problem))
        return _INVALID

    def table(self, kind: type, raw: object, key: str, **given: object) -> Any:
        """Convert one TOML table into the dataclass `kind`."""
        if not isinstance(raw, Mapping):
            return self.bad(key, f"expected a table, got {_shown(raw)}")
        fields = {f.name: f for f in dataclasses.fields(kind) if is_key(f)}
        for name in raw.keys() - fields.keys():
            path = _join(key, name)
            self.bad(path, REMOVED.get(path, f"unknown key{_nearest(name, fields)}"))
        values = dict(given)
        required_fields = {name for name, field in fields.items() if _is_required(field)}
        hints = _hints(kind, raw.keys() | required_fields)
        for name, field in fields.items():
            required = name in required_fields
            if name in raw:
                value = self.value(hints[name], raw[name], _join(key, name), field.metadata)
            elif required:
                value = self.bad(_join(key, name), f"is missing: {field.metadata['doc']}")
            else:
                continue
            if value is not _INVALID:
                values[name] = value
            elif required:  # a stand-in, so that the other checks can go on; the issue is already kept
                values[name] = self.root if hints[name] is Path else ""
        return kind(**values)

    def value(self, hint: Any, raw: object, key: str, meta: Mapping[str, Any]) -> Any:
        """Convert one value to the type `hint`."""
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self.value(next(a for a in args if a is not type(None)), raw, key, meta)
        if origin is Literal:
            if raw in args:
                return raw
            problem = f"expected one of {', '.join(args)}, got {_shown(raw)}{_nearest(str(raw), args)}"
            return self.bad(key, REMOVED.get(f"{key} = {raw}", problem))
        if origin is tuple and hint not in (BBox, Origin):
            return self.items(args[0], raw, key, meta)
        if origin is dict:
            return self.mapping(args, raw, key, meta)
        if dataclasses.is_dataclass(hint):
            return self.table(hint, raw, key)  # type: ignore[arg-type]
        return raw if hint is Any else _SCALARS[hint](self, raw, key, meta)

    def items(self, hint: Any, raw: object, key: str, meta: Mapping[str, Any]) -> Any:
        if not isinstance(raw, list):
            return self.bad(key, f"expected a list, got {_shown(raw)}")
        values = tuple(self.value(hint, item, f"{key}[{n}]", meta) for n, item in enumerate(raw))
        return tuple(value for value in values if value is not _INVALID)

    def mapping(self, hints: tuple[Any, Any], raw: object, key: str, meta: Mapping[str, Any]) -> Any:
        if not isinstance(raw, Mapping):
            return self.bad(key, f"expected a table, got {_shown(raw)}")
        result = {}
        for name, item in raw.items():
            if hints[0] is int and not re.fullmatch(r"\d{1,2}", name):
                self.bad(_join(key, name), "expected a zoom level as the key")
                continue
            result[hints[0](name)] = self.value(hints[1], item, _join(key, name), meta)
        return {name: value for name, value in result.items() if value is not _INVALID}

    def number(self, raw: object, key: str, meta: Mapping[str, Any], *, whole: bool) -> Any:
        expected = "a whole number" if whole else "a number"
        if isinstance(raw, bool) or not isinstance(raw, int if whole else (int, Decimal)):
            return self.bad(key, f"expected {expected}, got {_shown(raw)}")
        if isinstance(raw, Decimal) and not (raw.is_finite() and (not raw or abs(raw.adjusted()) < MOST_DIGITS)):
            return self.bad(key, f"expected {expected}, got {raw}")
        if isinstance(raw, int) and abs(raw) >= 10**MOST_DIGITS:
            return self.bad(key, f"expected {expected} of at most {MOST_DIGITS} digits")
        low, high = meta.get("low"), meta.get("high")
        if (low is not None and raw < low) or (high is not None and raw > high):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            return self.bad(key, f"expected {expected} {limits}, got {raw}")
        return raw if whole else Decimal(raw)

    def text(self, raw: object, key: str) -> Any:
        if not isinstance(raw, str):
            return self.bad(key, f"expected text in quotes, got {_shown(raw)}")
        return self.bad(key, "contains a NUL character") if "\0" in raw else raw

    def path(self, raw: object, key: str) -> Any:
        text = self.text(raw, key)
        if text is _INVALID:
            return text
        return self.root / Path(text).expanduser() if text else self.bad(key, "expected a path, got an empty text")

    def flag(self, raw: object, key: str) -> Any:
        return raw if isinstance(raw, bool) else self.bad(key, f"expected true or false, got {_shown(raw)}")

    def degrees_e7(self, raw: object, key: str, limit: int) -> Any:
        """Convert decimal degrees to whole 1e-7 degree; more than 7 decimals cannot be kept and are refused."""
        degrees = self.number(raw, key, {"low": -limit, "high": limit}, whole=False)
        if degrees is _INVALID:
            return degrees
        scaled = degrees.scaleb(7)
        if scaled != scaled.to_integral_value():
            return self.bad(key, f"expected at most 7 decimals, got {raw}")
        return int(scaled)

    def bbox(self, raw: object, key: str, meta: Mapping[str, Any]) -> Any:  # noqa: ARG002 - one signature for all
        if not isinstance(raw, list) or len(raw) != 4:
            return self.bad(key, f"expected [west, south, east, north] in degrees, got {_shown(raw)}")
        sides = [
            self.degrees_e7(side, f"{key}[{n}] ({name})", limit)
            for n, (side, name, limit) in enumerate(
                zip(raw, ("west", "south", "east", "north"), (180, 90, 180, 90), strict=True)
            )
        ]
        return _INVALID if any(side is _INVALID for side in sides) else BBox(*sides)

    def origin(self, raw: object, key: str, meta: Mapping[str, Any]) -> Any:  # noqa: ARG002 - one signature for all
        if not isinstance(raw, Mapping) or not {"lat", "lon"} <= raw.keys() or raw.keys() - {"lat", "lon", "alt_m"}:
            return self.bad(
                key, "expected {lat = …, lon = …, alt_m = …} with lat, lon in degrees; alt_m may be left out"
            )
        lat = self.degrees_e7(raw["lat"], f"{key}.lat", 90)
        lon = self.degrees_e7(raw["lon"], f"{key}.lon", 180)
        alt = None
        if "alt_m" in raw:
            metres = self.number(raw["alt_m"], f"{key}.alt_m", {"low": -500, "high": 100_000}, whole=False)
            alt = metres if metres is _INVALID else int(metres.scaleb(3).to_integral_value())
        return _INVALID if _INVALID in (lat, lon, alt) else Origin(lat, lon, alt)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(kind: type, names: Iterable[str]) -> dict[str, Any]:
    """Return the types of the fields `names` of `kind`: most files set few keys, and to evaluate a type takes time."""
    written = {field.name: field.type for field in dataclasses.fields(kind)}
    wanted = types.SimpleNamespace(__annotations__={name: written[name] for name in names if name in written})
    return get_type_hints(wanted, vars(sys.modules[kind.__module__]))


_SCALARS: dict[Any, Any] = {
    str: lambda r, raw, key, meta: r.text(raw, key),  # noqa: ARG005 - one signature for all
    Path: lambda r, raw, key, meta: r.path(raw, key),  # noqa: ARG005
    bool: lambda r, raw, key, meta: r.flag(raw, key),  # noqa: ARG005
    int: lambda r, raw, key, meta: r.number(raw, key, meta, whole=True),
    Decimal: lambda r, raw, key, meta: r.number(raw, key, meta, whole=False),
    BBox: _Reading.bbox,
    Origin: _Reading.origin,
}


def _join(key: str, name: str) -> str:
    is_bare = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    name = name if is_bare else f'"{name}"'
    return f"{key}.{name}" if key else name


def _shown(raw: object) -> str:
    text = repr(raw) if not isinstance(raw, Mapping) else "a table"
    return text if len(text) <= 60 else text[:57] + "…"


def _nearest(name: str, known: Any) -> str:
    return meant(name, known)


def _tables(text: str, file: Path) -> dict[str, Any]:
    """Return the tables of `text`, as they were kept for the same text or as TOML's parser reads them."""
    kept = memo.get(file.parent / KEPT, FILE, _facts(text))
    return _from_json(kept) if isinstance(kept, str) else _toml(text, file)


def keep_tables(root: Path) -> None:
    """Keep the tables of `root`/flight.toml for whoever reads the same text again; only for who holds the build lock.

    Tables that JSON cannot give back exactly, those with a date, are not kept. Raises FilesystemError, ConfigError.
    """
    if sys.modules.keys().isdisjoint(("tomllib", "tomli")):
        return  # this process read what is kept
    text = _read_text(root)
    if memo.get(root / KEPT, FILE, _facts(text)) is not None:
        return  # somebody else, doit for one, loaded the parser
    raw = _toml(text, root / FILE)
    with contextlib.suppress(TypeError, ValueError, ArithmeticError):
        kept = json.dumps(raw, default=_by_empty_key)
        if _from_json(kept) == raw:
            memo.put(root / KEPT, FILE, _facts(text), kept)


def _facts(text: str) -> dict[str, Fact]:
    return {"text": sha256_bytes(text.encode()), "python": sys.version}


def _by_empty_key(value: object) -> dict[str, str]:
    if isinstance(value, Decimal):
        return {"": str(value)}
    raise TypeError


def _from_json(text: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(text, object_hook=lambda of: Decimal(of[""]) if of.keys() == {""} else of)
    return raw


def _toml(text: str, file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # the same parser, for Python 3.10
    try:
        raw: dict[str, Any] = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(
            "flight.toml is not valid TOML", file=file, facts={"found": error}, next_step="correct the line named"
        ) from error
    return raw


def parse(text: str, *, root: Path) -> Flight:
    """Return the values of `text`, the flight.toml of the cache directory `root`.

    Raises ConfigError with every mistake: unknown keys, wrong types and ranges, contradictions, missing files.
    """
    file = root / FILE
    raw = _tables(text, file)
    reading = _Reading(root)
    flight = reading.table(Flight, raw, "", root=root)
    issues = reading.issues
    issues += [found for found in map(Issue._make, check(flight)) if not _follows(found, reading.issues)]
    if issues:
        raise _config_error(file, issues)
    tiles = dataclasses.replace(flight.tiles, source=with_names(flight.tiles.source, root))
    named: Flight = dataclasses.replace(flight, tiles=tiles)
    return named


def _follows(found: Issue, known: list[Issue]) -> bool:
    """Return whether `found` may be but the consequence of a value already reported in or below its key."""
    return any(re.match(re.escape(found.key) + r"(?![\w-])", issue.key) for issue in known)


def require_sources(root: Path, sources: Sequence[TileSource]) -> None:
    """Raise ConfigError naming every tile source that is not there."""
    issues = [Issue(*found) for found in missing_sources(sources)]
    if issues:
        raise _config_error(root / FILE, issues)


def _config_error(file: Path, issues: list[Issue]) -> ConfigError:
    count = f"{len(issues)} mistakes" if len(issues) > 1 else "1 mistake"
    facts: dict[str, object] = {}
    for issue in issues:
        facts[issue.key] = f"{facts[issue.key]}; {issue.problem}" if issue.key in facts else issue.problem
    return ConfigError(
        f"flight.toml has {count}", file=file, facts=facts, next_step="correct each key named, then run again"
    )


def read_toml(root: Path) -> dict[str, Any]:
    """Return the tables of `root`/flight.toml, not looked at yet; ConfigError as `read_flight`."""
    return _tables(_read_text(root), root / FILE)


def read_flight(root: Path) -> Flight:
    """Read and parse `root`/flight.toml.

    Raises ConfigError when it is absent, unreadable, no file, larger than 1 MiB, not UTF-8, or wrong in any key.
    """
    return parse(_read_text(root), root=root.absolute())


def _read_text(root: Path) -> str:
    file = root / FILE
    try:
        data = read_input(file, limit=LARGEST_FILE_BYTES)  # it may be a link of the user's own
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"flight.toml cannot be read: {getattr(error, 'strerror', error)}",
            file=file,
            next_step=f"run in a cache directory, or make one with `{typed('flightcache', 'init', root)}`",
        ) from error
    if len(data) > LARGEST_FILE_BYTES:
        raise ConfigError("flight.toml is larger than 1 MiB", file=file, next_step="check that it is the right file")
    try:
        return data.decode("utf-8-sig")  # editors of Windows put a mark before it
    except UnicodeDecodeError as error:
        raise ConfigError("flight.toml is not UTF-8", file=file, next_step="save it as UTF-8") from error
