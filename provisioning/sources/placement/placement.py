"""Whether tiles lie where their own evidence says; which other reading of the same numbers would lie there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provisioning.area.area import enclosing
from provisioning.area.place import describe_place
from provisioning.base.errors import TileError
from provisioning.base.geometry.angles import TURN_E7, BBox
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.config import TileSource
from provisioning.sources.placement.evidence import Box, Statement

Address = tuple[int, int, int]

MOST_LOOKED_AT = 20_000
"""Addresses compared with a box."""
TOLERANCE = 0.02
"""Of a tile's side: bounds are rounded."""
MOSTLY = 0.5
"""Above this share of tiles outside the stated box the statement does not speak of these tiles."""
IGNORE = 'correct the file, or set tiles.source.evidence = "ignore" if the file is wrong and the place is right'


class Reading(NamedTuple):
    """One way to read the numbers of a tile."""

    scheme: str
    exchanged: bool = False
    """Column and row exchanged."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The reading that the evidence asks for: `scheme` is "xyz" or "tms"; `notes` are for the user."""

    scheme: str
    exchanged: bool = False
    notes: tuple[str, ...] = ()


def scheme_of(source: TileSource, kind: str) -> str:
    """Return the row order in which a source is read, "xyz" (from the north) or "tms"."""
    return source.scheme if source.scheme != "auto" else "tms" if kind == "mbtiles" else "xyz"


def place(source: TileSource, kind: str, addresses: Iterable[Address], statements: Sequence[Statement]) -> Placement:
    """Return the reading of a source that agrees with all `statements` about it.

    `addresses` are those of the configured reading. TileError if the tiles are not of the Web Mercator grid, if no
    reading agrees, or if only the user can tell which one is right.
    """
    now = Reading(scheme_of(source, kind))
    if source.evidence == "ignore":
        return Placement(scheme=now.scheme)
    for said in statements:
        if said.refusal:
            raise TileError(
                f"{said.file} says of the tiles: {said.refusal}", file=source.path, key="tiles.source.path",
                next_step=said.instead + '; or set tiles.source.evidence = "ignore" if that file is wrong',
            )  # fmt: skip
    tiles = _finest(addresses)
    if not tiles:
        return Placement(scheme=now.scheme)
    return _Case(source, kind, now, tiles, statements).decide()


class _Case:
    def __init__(
        self, source: TileSource, kind: str, now: Reading, tiles: list[Address], statements: Sequence[Statement]
    ) -> None:
        self.source, self.kind, self.now, self.tiles, self.statements = source, kind, now, tiles, statements
        other = Reading("tms" if now.scheme == "xyz" else "xyz")
        self.others = [other] if kind in ("xyz", "mbtiles", "sqlitedb") else []
        if kind == "xyz" and source.pattern == "{z}/{x}/{y}":
            self.others += [Reading(now.scheme, exchanged=True), Reading(other.scheme, exchanged=True)]

    def decide(self) -> Placement:
        self._check_zooms()
        placed = [said for said in self.statements if said.boxes or said.centre]
        outside = {r: self._outside(r, placed) for r in (self.now, *self.others)}
        best = min(self.others, key=lambda reading: outside[reading], default=self.now)
        if outside[best] < outside[self.now]:
            if outside[best] == 0:
                return Placement(scheme=best.scheme, exchanged=best.exchanged)
            raise self._contradiction(placed)
        if outside[self.now] > MOSTLY:
            raise self._contradiction(placed)
        is_nearer = all(outside[self.now] < outside[reading] for reading in self.others[:1])
        scheme = self.now.scheme if (is_nearer and placed) or self.source.scheme != "auto" else self._stated_scheme()
        notes = self._notes(outside[self.now], placed)
        if placed and self.others and not is_nearer and self.source.scheme == "auto":
            notes += (self._either(scheme, placed),)
        return Placement(scheme=scheme, notes=notes)

    def _outside(self, reading: Reading, placed: Sequence[Statement]) -> float:
        """Return the largest share of tiles that lie outside a stated box."""
        if not placed:
            return 0.0
        tiles = [_moved(tile, self.now, reading) for tile in self.tiles]
        return max(_misfit(tiles, said) for said in placed)

    def _stated_scheme(self) -> str:
        """Return the row order that is stated where no box tells; it must be asked for where it is not the default."""
        stated = {said.scheme for said in self.statements if said.scheme} - {self.now.scheme}
        if not stated or not self.others:
            return self.now.scheme
        said = next(said for said in self.statements if said.scheme in stated)
        if said.file == "tilemapresource.xml":  # TMS by its own specification
            return said.scheme
        raise TileError(
            f"{said.file} says the rows are counted as {said.scheme}, and nothing says where the tiles are",
            file=self.source.path,
            key="tiles.source.scheme",
            facts=self._readings(),
            next_step='set tiles.source.scheme = "xyz" (rows from the north) or "tms" (rows from the south)'
            " (`flightcache init --source-scheme`), whichever is the right place",
        )

    def _check_zooms(self) -> None:
        zooms = {z for z, _, _ in self.tiles}
        for said in self.statements:
            if said.zooms and not any(said.zooms[0] <= z <= said.zooms[1] for z in zooms):
                raise TileError(
                    f"the tiles are of zoom {max(zooms)}; {said.file} says zoom {said.zooms[0]} to {said.zooms[1]}",
                    file=self.source.path,
                    key="tiles.source.evidence",
                    next_step=IGNORE,
                )

    def _contradiction(self, placed: Sequence[Statement]) -> TileError:
        stated = {f"{said.file} says": _stated(said) for said in placed}
        return TileError(
            "the tiles do not lie where their own description says",
            file=self.source.path,
            key="tiles.source.scheme",
            facts=self._readings() | stated,
            next_step="set tiles.source.scheme to the reading that is right, and " + IGNORE,
        )

    def _readings(self) -> dict[str, str]:
        return {
            reading_name(reading): describe_place(_around(_moved(tile, self.now, reading) for tile in self.tiles))
            for reading in (self.now, *self.others)
        }

    def _notes(self, outside: float, placed: Sequence[Statement]) -> tuple[str, ...]:
        if not outside:
            return ()
        names = ", ".join(said.file for said in placed)
        return (f"{outside:.0%} of the finest tiles lie outside the box that {names} states",)

    def _either(self, scheme: str, placed: Sequence[Statement]) -> str:
        """Say that the place holds for both row orders: tiles on both sides of the equator mirror each other."""
        names = ", ".join(said.file for said in placed)
        other = "xyz" if scheme == "tms" else "tms"
        return (
            f"where {names} says the tiles are holds for both row orders; {reading_name(Reading(scheme))};"
            f' tiles.source.scheme = "{other}" (`flightcache init --source-scheme {other}`) exchanges the rows'
        )


def reading_name(reading: Reading) -> str:
    """Return how a reading is called in messages."""
    rows = "rows from the north" if reading.scheme == "xyz" else "rows from the south"
    return f"read as {reading.scheme} ({rows})" + (", x and y exchanged" if reading.exchanged else "")


def check_placed(source: TileSource, kind: str, placement: Placement, addresses: Iterable[Address]) -> None:
    """Raise TileError if a source is configured otherwise than its evidence asks for."""
    now = Reading(scheme_of(source, kind))
    asked = Reading(placement.scheme, placement.exchanged)
    if now == asked:
        return
    tiles = _finest(addresses)
    facts = {reading_name(r): describe_place(_around(_moved(tile, now, r) for tile in tiles)) for r in (now, asked)}
    keys = [f'tiles.source.scheme = "{asked.scheme}"'] + ['tiles.source.pattern = "{z}/{y}/{x}"'] * asked.exchanged
    raise TileError(
        "the tiles do not lie where their own description says",
        file=source.path,
        key="tiles.source.scheme",
        facts=facts,
        next_step=f"set {' and '.join(keys)}, which agrees with it; or " + IGNORE,
    )


def _moved(tile: Address, now: Reading, to: Reading) -> Address:
    """Return where a tile lies in another reading of the same numbers."""
    z, x, y = tile
    last = (1 << z) - 1
    row = last - y if now.scheme == "tms" else y
    if to.exchanged:
        x, row = row, x
    return z, x, last - row if to.scheme == "tms" else row


def _finest(addresses: Iterable[Address]) -> list[Address]:
    """Return a sample of the tiles of the finest zoom, evenly taken from the order in which they come."""
    finest: list[Address] = []
    for tile in addresses:
        if not finest or tile[0] > finest[0][0]:
            finest = [tile]
        elif tile[0] == finest[0][0]:
            finest.append(tile)
    return finest[:: 1 + len(finest) // MOST_LOOKED_AT]


def _around(tiles: Iterable[Address]) -> BBox:
    """Return the box around tiles; columns are joined the shorter way round the Earth."""
    boxes = {tile_bounds_e7(z, x, y) for z, x, y in tiles}
    columns = {(box.west, box.east) for box in boxes}
    south, north = min(box.south for box in boxes), max(box.north for box in boxes)
    return enclosing(BBox(west, south, east, north) for west, east in sorted(columns))


def _stated(said: Statement) -> str:
    if said.boxes:
        west, south, east, north = said.boxes[0]
        return describe_place(BBox(*(round(side * 1e7) for side in (west, south, east, north))))
    assert said.centre is not None
    return f"centre {said.centre[1]:.4f}, {said.centre[0]:.4f} (latitude, longitude)"


def _misfit(tiles: Sequence[Address], said: Statement) -> float:
    """Return the share of `tiles`, all of one zoom level, that lie outside what is stated."""
    if said.boxes:
        return min(_share_outside(tiles, box) for box in said.boxes)
    assert said.centre is not None
    lon, lat = said.centre
    rows = [tile_bounds_e7(z, 0, y) for z, y in {(z, y) for z, _, y in tiles}]
    tall = max(row.north - row.south for row in rows)
    some = [tile_bounds_e7(*tile) for tile in tiles[:: 1 + len(tiles) // 500]]
    around = enclosing(some) if len(tiles) > 1 else some[0]
    grown = around._replace(south=around.south - tall, north=around.north + tall)
    point = (lon - 1e-4, lat, lon + 1e-4, lat)
    return float(not (_row_touches(grown, point) and _column_touches(grown, point)))


def _share_outside(tiles: Sequence[Address], box: Box) -> float:
    """Return the share of `tiles` outside a box; each row and each column is compared once, not each tile."""
    z = tiles[0][0]
    rows = {y for y in {y for _, _, y in tiles} if _row_touches(tile_bounds_e7(z, 0, y), box)}
    columns = {x for x in {x for _, x, _ in tiles} if _column_touches(tile_bounds_e7(z, x, 0), box)}
    return sum(x not in columns or y not in rows for _, x, y in tiles) / len(tiles)


def _row_touches(tile: BBox, box: Box) -> bool:
    """Return whether latitudes overlap those of a box by more than a rounding error."""
    south, north = box[1] * 1e7, box[3] * 1e7
    tall = min((tile.north - tile.south) * TOLERANCE, (north - south) / 4)
    return tile.south + tall <= north and tile.north - tall >= south


def _column_touches(tile: BBox, box: Box) -> bool:
    """Return whether longitudes overlap those of a box, either of which may cross the antimeridian."""
    west, east = box[0] * 1e7, box[2] * 1e7
    wide = min((tile.east - tile.west) % TURN_E7 * TOLERANCE, abs(east - west) / 4)
    last = east if west <= east else east + TURN_E7
    right = tile.east if tile.west <= tile.east else tile.east + TURN_E7
    return any(tile.west + turn + wide <= last and right + turn - wide >= west for turn in (-TURN_E7, 0, TURN_E7))
