"""FLEET.toml: one request, several vehicles. Each gets a cache directory of its own, derived from the common one.

The tiles are scanned once and the catalogue is handed on; the descriptor store is shared, so vehicles with one host
tuple share every descriptor; an engine is compiled on its vehicle.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sqlite3
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from provisioning.base.disk.files import make_dirs, read_input, wrap_os_errors, write_durably
from provisioning.base.errors import ConfigError, SigningError
from provisioning.catalogue.database import catalogue_path
from provisioning.config.parse import read_flight, read_toml
from provisioning.config.schema import Flight
from provisioning.config.template import Section, render, sections, toml
from provisioning.flight.publish import next_counter, remember
from provisioning.flight.signing import read_fingerprints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "flight.toml"
LIMIT_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vehicle:
    """[[vehicle]]: one aircraft of the fleet.

    flight, aircraft: its identity. command: reaches its computer, as words before one command line (`ssh heron-1`);
    empty: its engines are compiled here. program: flightcache there. target: where its cache goes after the build,
    as `flightcache sync` takes it. remote_key: the key it trusts, a file there. receipt_key: its own public key, a file
    here, by which `flightcache fleet status` knows its receipts.
    """

    name: str
    flight: str | None = None
    aircraft: str | None = None
    command: str = ""
    program: str = "flightcache"
    target: str = ""
    remote_key: str = ""
    receipt_key: str = ""


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The cache directory whose flight.toml all share, where the vehicles' own are kept, and the vehicles.

    revoked: fingerprints of keys that count nowhere any more, sent to each vehicle.
    """

    cache: Path
    directory: Path
    vehicles: tuple[Vehicle, ...]
    revoked: frozenset[str] = frozenset()

    def directory_of(self, vehicle: Vehicle) -> Path:
        """Return the cache directory of `vehicle`."""
        return self.directory / vehicle.name


def read_fleet(file: Path) -> Fleet:
    """Read FLEET.toml: `cache` (its directory), `directory` (vehicles), `revoked` (none), [[vehicle]] tables.

    ConfigError lists every mistake.
    """
    try:
        raw = tomllib.loads(read_input(file, limit=LIMIT_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the fleet cannot be read: {error}", file=file) from error
    tables = raw.get("vehicle", [{}])
    tables = tables if isinstance(tables, list) and tables else [{}]
    issues = [f"{name}: unknown key" for name in raw.keys() - {"cache", "directory", "revoked", "vehicle"}]
    issues += [f"{key}: text expected" for key in ("cache", "directory") if not _is_text(raw.get(key, "."))]
    revoked, wrong = _revoked(raw.get("revoked", []))
    issues += wrong
    for number, table in enumerate(tables, 1):
        issues += [f"vehicle {number}: {issue}" for issue in _issues(table, tables)]
    if issues:
        raise ConfigError(
            "the fleet cannot be used", file=file, facts={f"issue {n}": i for n, i in enumerate(issues, 1)}
        )
    folder = file.absolute().parent
    cache = folder / raw.get("cache", ".")
    vehicles = tuple(_placed(Vehicle(**table), folder) for table in tables)
    return Fleet(cache, folder / raw.get("directory", "vehicles"), vehicles, revoked)


def _placed(vehicle: Vehicle, folder: Path) -> Vehicle:
    """Return `vehicle` with a receipt_key that does not depend on the working directory."""
    key = vehicle.receipt_key
    return dataclasses.replace(vehicle, receipt_key=str(folder / key)) if key else vehicle


def _revoked(texts: object) -> tuple[frozenset[str], list[str]]:
    """Return fingerprints, and what is wrong with those that are none."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return frozenset(), ["revoked: a list of fingerprints expected"]
    try:
        return frozenset().union(*map(read_fingerprints, texts)), []
    except SigningError as error:
        return frozenset(), [f"revoked: {error.what}"]


def _issues(table: object, tables: list[object]) -> Iterator[str]:
    """Yield every mistake in one [[vehicle]] table of `tables`."""
    if not isinstance(table, dict):
        yield "a table expected: [[vehicle]]"
        return
    known = {field.name for field in dataclasses.fields(Vehicle)}
    yield from (f"{key}: unknown key" for key in table.keys() - known)
    yield from (f"{key}: text expected" for key, value in table.items() if not _is_text(value))
    yield from (f"{key}: a quotation mark is missing" for key in ("command", "program") if not _splits(table.get(key)))
    if not _is_name(table.get("name")):
        yield "name: letters, digits, dash, dot or underscore expected"
    elif [other.get("name") for other in tables if isinstance(other, dict)].count(table["name"]) > 1:
        yield f"name: {table['name']} is given twice"


def _splits(words: object) -> bool:
    try:
        shlex.split(words if isinstance(words, str) else "")
    except ValueError:
        return False
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_name(name: object) -> bool:
    return (
        isinstance(name, str) and name[:1].isalnum() and all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
    )


def derive(
    fleet: Fleet,
    vehicle: Vehicle,
    *,
    host: Mapping[str, str] | None,
    command: tuple[str, ...],
    others: Mapping[str, str],
) -> Path:
    """Write the vehicle's cache directory: flight.toml from the common one, its identity and target, the catalogue.

    host: the vehicle's host tuple, None if engines are compiled here. command: compiles there. others: further files
    of a cache directory, by name.
    """
    directory = fleet.directory_of(vehicle)
    read_flight(fleet.cache)
    common = read_toml(fleet.cache)
    values = dict(_sections(common, fleet.cache))
    identity = {"id": vehicle.flight, "aircraft": vehicle.aircraft}
    values["flight"] = {**values.get("flight", {}), **{key: value for key, value in identity.items() if value}}
    if host is not None:
        engine = {**values.get("engine", {}), "backend": host["backend"], "host": dict(host), "command": list(command)}
        values["engine"] = engine
    store = Path(values.get("descriptors", {}).get("store", fleet.cache / ".build/descriptors"))
    values["descriptors"] = {**values.get("descriptors", {}), "store": str(store)}
    text = f"# Derived for {vehicle.name} by `flightcache fleet`; written anew by each run.\n" + render(values)
    text += "".join(_named(common))
    with wrap_os_errors("write a vehicle's cache directory", directory):
        make_dirs(directory / ".build")
        for name, content in {FILE: text, **others}.items():
            if not (directory / name).is_file() or (directory / name).read_text(encoding="utf-8") != content:
                write_durably(directory / name, content.encode())
        _hand_on_catalogue(fleet.cache / ".build", directory / ".build")
        # What the common cache published may have been sent to this vehicle, whose counter floor is then above 1.
        remember(directory, next_counter(fleet.cache) - 1)
    return directory


def _sections(raw: Mapping[str, Any], root: Path) -> Iterator[tuple[str, Any]]:
    """Yield every section of a flight.toml by its full name, relative paths made absolute below `root`."""
    for section in sections():
        table = _find(raw, section.name)
        if table is None or section.named:
            continue
        if section.repeats:
            yield section.name, [_absolute(section, each, root) for each in table]
        else:
            yield section.name, _absolute(section, table, root)


def _find(raw: Any, name: str) -> Any:
    for part in name.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return raw


def _absolute(section: Section, table: Mapping[str, Any], root: Path) -> dict[str, Any]:
    hints = get_type_hints(section.kind)
    return {key: str(root / value) if _is_path(hints.get(key), value) else value for key, value in table.items()}


def _is_path(hint: Any, value: object) -> bool:
    """Return whether a key is a path: by its type, or (backbone.onnx) because it names a file instead of a built-in."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    onnx = isinstance(value, str) and value.endswith(".onnx") and not value.startswith("builtin:")
    return isinstance(value, str) and (Path in kinds or onnx)


def _named(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sections that have a name of the user's own, such as [sector.urban]."""
    for section in sections(Flight):
        for name, table in (_find(raw, section.name) or {}).items() if section.named else ():
            yield f"\n[{section.name}.{toml(name)}]\n"
            yield from (f"{key} = {toml(value)}\n" for key, value in table.items())


def _hand_on_catalogue(source: Path, dest: Path) -> None:
    """Copy the tile catalogue: the vehicle's own scan then looks at stats only, and reads no tile."""
    if os.path.lexists(catalogue_path(dest)) or not catalogue_path(source).is_file():
        return
    with closing(sqlite3.connect(catalogue_path(source))) as old, closing(sqlite3.connect(catalogue_path(dest))) as new:
        old.backup(new)
