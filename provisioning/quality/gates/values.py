"""What was measured, and what became of it: plain values and their JSON, the same bytes for the same figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import GateError
from provisioning.base.frozen import dataclass
from provisioning.base.named import NamedTuple
from provisioning.config.schema import Gates, Sector, Waiver
from provisioning.flight.manifest import GateEntry


class Requirements(NamedTuple):
    """What flight.toml asks of a corpus, its network and its index: thresholds, and who may do without which."""

    gates: Gates = Gates()
    min_coverage: Mapping[int, Decimal] = MappingProxyType({})
    sector_class: str = "default"
    sector: Sector | None = None
    """Its freshness policy; None where none is written."""
    waivers: tuple[Waiver, ...] = ()

    @property
    def policy(self) -> Sector:
        """The freshness policy; one that asks nothing where none is written."""
        return self.sector or Sector()


class Figure(NamedTuple):
    """One measured quality as a decimal string, None where it could not be measured; `detail` says what it is."""

    measured: str | None
    detail: str


class Address(NamedTuple):
    """A tile and the source that it is from."""

    z: int
    x: int
    y: int
    source: str


class Mistaken(NamedTuple):
    """A tile of the sample that its view did not find, the tile that was found instead, and under what condition."""

    tile: Address
    taken_for: Address
    why: str


@dataclass(frozen=True)
class GateResult:
    """Every gate with its verdict, and what the report shows beside: tables of figures, lists of tiles, mistakes."""

    entries: Mapping[str, GateEntry]
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mistaken: tuple[Mistaken, ...] = ()

    def to_json(self) -> str:
        """Return the JSON that `read` reads."""
        document = {
            "schema": "flight-cache-gates/1",
            "entries": {name: entry._asdict() for name, entry in self.entries.items()},
            "tables": {name: dict(table) for name, table in self.tables.items()},
            "lists": {name: list(items) for name, items in self.lists.items()},
            "mistaken": self.mistaken,
        }
        return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def decimal(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` digits after the point: what is compared and recorded is what is shown."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def recognition_of(gates: Mapping[str, GateEntry]) -> str:
    """Return what the gate `recognition` says a flight may expect, for a person; empty where it was not measured."""
    entry = gates.get("recognition")
    return "" if entry is None else entry.detail


def read(path: Path) -> GateResult:
    """Return the result at `path`; GateError if it cannot be read."""
    try:
        raw = from_json(path.read_bytes())
        return GateResult(
            {name: GateEntry(**entry) for name, entry in raw["entries"].items()},
            raw["tables"],
            {name: tuple(items) for name, items in raw["lists"].items()},
            tuple(Mistaken(Address(*tile), Address(*other), why) for tile, other, why in raw["mistaken"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise GateError("what the gates measured cannot be read", file=path, next_step="run `doit` again") from error


def entries(result: GateResult) -> Mapping[str, GateEntry]:
    """Return the entries for the Manifest."""
    return dict(result.entries)
