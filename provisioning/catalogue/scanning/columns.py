"""Which rows of the catalogue are the corpus: decided column by column, only where something has changed."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import groupby
from struct import Struct

from provisioning.area.cover import Cover, Range
from provisioning.base.frozen import dataclass
from provisioning.base.named import NamedTuple
from provisioning.catalogue import database
from provisioning.catalogue.database import EMPTY, FAULTY, SHADOWED, TAKEN, UNUSED
from provisioning.flight.manifest.formula import field

PARTLY_PPM = 100_000
"""Share of a tile, in millionths, above which it is partly blank: said where it is kept."""
TAKEN_ROW = Struct("<IIIIi32s")
TAKEN_FIELDS = [
    ("y", "<u4"), ("source", "<u4"), ("bytes", "<u4"), ("texture_centi", "<u4"), ("day", "<i4"), ("sha256", "V32"),
]  # fmt: skip
UNDATED = 0
"""A tile of the corpus in its column, as it is packed, and the same as NumPy reads it; the day is 0 if not known."""


class Row(NamedTuple):
    """One tile of a column, as far as choosing needs it."""

    y: int
    source: int
    sha256: bytes | None
    bytes: int
    day: int | None
    empty_ppm: int
    texture_centi: int
    fault: str | None
    state: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What decides which rows are the corpus.

    `priority` gives a source's rank at a zoom, None if it has no say; `repeated` are the SHA-256 of pictures that are
    no imagery.
    """

    cover: Cover
    names: Mapping[int, str]
    priority: Mapping[int, Mapping[int, int]]
    max_empty: Decimal
    repeated: frozenset[bytes] = frozenset()


class Changes(NamedTuple):
    """Tiles of the corpus against the scan before."""

    added: int
    removed: int
    changed: int

    def plus(self, other: Changes) -> Changes:
        """Return the sum."""
        return Changes(*(a + b for a, b in zip(self, other, strict=True)))


def refresh(db: sqlite3.Connection, choice: Choice) -> Changes:
    """Choose again in every dirty column and return what that changed; the caller's transaction.

    DamagedError names the columns that have rows that are not what was written.
    """
    total, state = Changes(0, 0, 0), last_state(db) + 1
    fields = {number: field(name).decode() for number, name in choice.names.items()}
    damaged = []
    for z, x in db.execute("SELECT z, x FROM col WHERE dirty").fetchall():
        changes = _refresh_column(db, choice, fields, z, x, state)
        if changes is None:
            damaged.append((z, x))
        else:
            total = total.plus(changes)
    if damaged:
        raise database.DamagedError(damaged)
    return total


def last_state(db: sqlite3.Connection) -> int:
    """Return the number of the state that the corpus is in: each `refresh` that changed a column made a new one."""
    return int(db.execute("SELECT max(changed) FROM col").fetchone()[0] or 0)


def _refresh_column(
    db: sqlite3.Connection, choice: Choice, fields: Mapping[int, str], z: int, x: int, state: int
) -> Changes | None:
    """Choose again in one column; None if one of its rows is not what was written."""
    old, changed = db.execute("SELECT lines, changed FROM col WHERE z = ? AND x = ?", (z, x)).fetchone()
    select = f"SELECT state, {database.CHECKED}, chk FROM tile WHERE z = ? AND x = ?"  # noqa: S608 - our own names
    found = db.execute(select, (z, x)).fetchall()
    if any(database.is_damaged(row[1:]) for row in found):
        return None
    rows = [Row._make((*row[3:-1], row[0])) for row in found]
    states = choose(rows, choice, z, x)
    db.executemany(
        "UPDATE tile SET state = ? WHERE z = ? AND x = ? AND y = ? AND source = ?",
        [(new, z, x, row.y, row.source) for row, new in zip(rows, states, strict=True) if new != row.state],
    )
    taken = [row for row, state in zip(rows, states, strict=True) if state == TAKEN]
    lines = b"".join(sorted(f"{z} {x} {t.y} {fields[t.source]} {(t.sha256 or b'').hex()}\n".encode() for t in taken))
    days = [t.day for t in taken if t.day is not None]
    sums = (
        len(taken),
        sum(t.bytes for t in taken),
        min(days, default=None),
        len(taken) - len(days),
        states.count(FAULTY),
        states.count(EMPTY),
        sum(t.empty_ppm > PARTLY_PPM for t in taken),
    )
    runs = packed_runs(t.y for t in taken)
    db.execute(
        "INSERT OR REPLACE INTO col VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (z, x, f"{z} {x} ", *sums, changed if lines == old else state,
         database.column_check(z, x, sums, runs, lines), runs, lines),
    )  # fmt: skip
    packed = b"".join(
        TAKEN_ROW.pack(t.y, t.source, t.bytes, t.texture_centi, t.day or UNDATED, t.sha256 or b"") for t in taken
    )
    check = database.column_check(z, x, (), packed)
    db.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?)", (z, x, check, packed))
    return Changes(0, 0, 0) if lines == old else _difference(old if isinstance(old, bytes) else b"", lines)


def choose(rows: list[Row], choice: Choice, z: int, x: int) -> list[int]:
    """Return the state of each row of column `x`, rows being in the order of y.

    Of a tile's sources those of the highest priority are taken; where none of them has a usable image the next have
    their turn.
    """
    ranks = {source: at[z] for source, at in choice.priority.items() if z in at}
    inside = choice.cover.rows(z, x)
    most_empty = int(choice.max_empty * 1_000_000)
    alone = {
        i: _alone(row, most_empty, choice.repeated)
        for i, row in enumerate(rows)
        if row.source in ranks and any(low <= row.y <= high for low, high in inside)
    }
    states = [alone.get(i, UNUSED) for i in range(len(rows))]
    if len(ranks) > 1:
        for _, group in groupby(alone, key=lambda i: rows[i].y):
            ranked = sorted(((ranks[rows[i].source], i) for i in group), reverse=True)
            for i in _shadowed(ranked, alone):
                states[i] = SHADOWED
    return states


def _alone(row: Row, most_empty: int, repeated: frozenset[bytes]) -> int:
    """Return the state of a row where no other source has the tile."""
    if row.fault is not None:
        return FAULTY
    return EMPTY if row.empty_ppm > most_empty or row.sha256 in repeated else TAKEN


def _shadowed(ranked: list[tuple[int, int]], alone: Mapping[int, int]) -> Iterator[int]:
    """Yield the rows of one tile below a rank of which one is taken."""
    taken = False
    for _, level in groupby(ranked, key=lambda pair: pair[0]):
        of_rank = [i for _, i in level]
        if taken:
            yield from of_rank
        taken |= any(alone[i] == TAKEN for i in of_rank)


def _difference(old: bytes, new: bytes) -> Changes:
    before, after = ({row.rpartition(b" ")[0]: row for row in lines.splitlines()} for lines in (old, new))
    both = before.keys() & after.keys()
    return Changes(len(after) - len(both), len(before) - len(both), sum(before[key] != after[key] for key in both))


def packed_runs(ys: Iterable[int]) -> bytes:
    """Return ascending rows (repeats allowed) as runs: pairs of first and last, 32 bits each."""
    runs = array("I")
    for y in ys:
        if runs and y <= runs[-1] + 1:
            runs[-1] = y
        else:
            runs.extend((y, y))
    return runs.tobytes()


def unpacked_runs(data: bytes) -> list[Range]:
    """Return the runs that `packed_runs` packed."""
    runs = array("I", data)
    return list(zip(runs[::2], runs[1::2], strict=True))
