"""Pictures that stand in many places: a provider's "no imagery" picture, never imagery of the ground."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from provisioning.base.events import warn
from provisioning.base.geometry.geo import ADDRESS_BITS, unpack_address
from provisioning.base.named import NamedTuple
from provisioning.catalogue import database
from provisioning.catalogue.scanning.writer import mark_dirty
from provisioning.sources.pixels.likeness import PERCEPTUAL_HASH_BYTES, alike

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REPEATS = 4
"""Places from which on a picture, to the last byte or nearly so, is no imagery."""
LARGE_TILES, LARGE_SHARE = 200_000, 100
"""In so large a corpus a change of fewer than one in so many columns is compared with known pictures and itself only:
all tiles take seconds a million."""

_PLACE = f"(z << {2 * ADDRESS_BITS}) | (x << {ADDRESS_BITS}) | y"
"""An address as `pack_address` packs it."""
_COUNTED = "SELECT sha256 FROM tile t WHERE sha256 NOT NULL {only} GROUP BY sha256 HAVING count(*) >= ?"
_IN_PLACES = """SELECT sha256 FROM tile t WHERE sha256 IN (SELECT sha256 FROM asked) {only}
  GROUP BY sha256 HAVING count(DISTINCT {place}) >= ?"""
_PICTURES = """SELECT {place}, sha256, look FROM tile t
  WHERE (sha256 NOT NULL OR look NOT NULL) {only}"""
_ONLY_DIRTY = "AND EXISTS (SELECT 1 FROM col c WHERE c.z = t.z AND c.x = t.x AND c.dirty)"
_AT = "SELECT sha256 FROM tile WHERE z = ? AND x = ? AND y = ? AND look = ?"
_CHUNK = 50_000


def find_repeated(db: sqlite3.Connection) -> frozenset[bytes]:
    """Return the SHA-256 of each picture that stands in `REPEATS` places or more; their columns become dirty.

    Pictures that look alike (compressed again, with another date in them) are one picture. None if all tiles are
    such pictures: that is said, not decided.
    """
    before = frozenset(bytes.fromhex(digest) for digest in (database.get(db, "repeated") or "").split())
    dirty, columns, tiles = db.execute("SELECT count(*) FILTER (WHERE dirty), count(*), sum(count) FROM col").fetchone()
    if not dirty:
        return before
    few = (tiles or 0) > LARGE_TILES and dirty * LARGE_SHARE < columns
    only = _ONLY_DIRTY if few else ""
    pictures = _pictures(db, only)
    now = _same(db, only) if pictures.may_repeat else frozenset()
    now |= _alike(db, pictures, known=before if few else ()) | (before if few else frozenset())
    if now and not _has_others(db, now):
        warn("tiles.repeated", pictures=len(now), note="every tile is one of these pictures: kept. Is this imagery?")
        now = frozenset()
    if now != before:
        changed = [(digest,) for digest in now ^ before]
        mark_dirty(db, _columns_of(db, changed))
        database.put(db, "repeated", " ".join(sorted(digest.hex() for digest in now)))
    return now


def _has_others(db: sqlite3.Connection, repeated: frozenset[bytes]) -> bool:
    """Return whether there is any picture but `repeated` ones: without others nothing shows that these are none."""
    digests = db.execute("SELECT DISTINCT sha256 FROM tile WHERE sha256 NOT NULL")
    return any(digest not in repeated for (digest,) in digests)


def _ask(db: sqlite3.Connection, digests: list[tuple[bytes]]) -> None:
    """Write digests to a table that only this connection sees."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS asked(sha256 BLOB PRIMARY KEY) WITHOUT ROWID")
    db.execute("DELETE FROM asked")
    db.executemany("INSERT INTO asked VALUES (?)", digests)


def _same(db: sqlite3.Connection, only: str) -> frozenset[bytes]:
    """Return the SHA-256 of pictures that stand in `REPEATS` places to the last byte; sources may share a place."""
    several = db.execute(_COUNTED.format(only=only), (REPEATS,)).fetchall()
    if not several:
        return frozenset()
    _ask(db, several)
    return frozenset(digest for (digest,) in db.execute(_IN_PLACES.format(place=_PLACE, only=only), (REPEATS,)))


def _columns_of(db: sqlite3.Connection, digests: list[tuple[bytes]]) -> set[tuple[int, int]]:
    _ask(db, digests)
    return set(db.execute("SELECT DISTINCT z, x FROM tile WHERE sha256 IN (SELECT sha256 FROM asked)"))


def _alike(db: sqlite3.Connection, pictures: _Pictures, *, known: Iterable[bytes]) -> frozenset[bytes]:
    """Return the SHA-256 of pictures that look like others in `REPEATS` places, or like one `known` to be repeated."""
    import numpy as np

    places, hashes, _ = pictures
    for n, digest in enumerate(known):
        row = db.execute("SELECT look FROM tile WHERE sha256 = ? AND look NOT NULL LIMIT 1", (digest,)).fetchone()
        if row:  # it counts as standing in so many places, which no tile has
            places = np.concatenate([places, [-1 - REPEATS * n - place for place in range(REPEATS)]])
            hashes = np.vstack([hashes, *[np.frombuffer(row[0], np.uint8)] * REPEATS])
    members = [i for group in alike(hashes, places, least=REPEATS) for i in group if places[i] >= 0]
    rows = ((*unpack_address(int(places[i])), hashes[i].tobytes()) for i in members)
    return frozenset(digest for row in rows for (digest,) in db.execute(_AT, row))


class _Pictures(NamedTuple):
    """Perceptual hashes, uint8 [n, 32], and their places, int64 [n]: packed addresses.

    Unless `may_repeat`, no digest is there `REPEATS` times.
    """

    places: NDArray[np.int64]
    hashes: NDArray[np.uint8]
    may_repeat: bool


def _pictures(db: sqlite3.Connection, only: str) -> _Pictures:
    """Read what is compared of each tile: all in one pass."""
    import numpy as np

    rows = db.execute(_PICTURES.format(place=_PLACE, only=only))
    places, hashes = [np.empty(0, np.int64)], [np.empty((0, PERCEPTUAL_HASH_BYTES), np.uint8)]
    digests = [np.empty(0, np.int64)]
    while chunk := rows.fetchmany(_CHUNK):
        digests.append(np.array([hash(digest) for _, digest, _ in chunk if digest is not None], np.int64))
        looks = [(place, look) for place, _, look in chunk if look is not None]
        places.append(np.array([place for place, _ in looks], np.int64))
        hashes.append(np.frombuffer(b"".join([each for _, each in looks]), np.uint8).reshape(-1, PERCEPTUAL_HASH_BYTES))
    seen = np.sort(np.concatenate(digests))
    may_repeat = bool((seen[REPEATS - 1 :] == seen[: 1 - REPEATS]).any())
    return _Pictures(np.concatenate(places), np.concatenate(hashes), may_repeat)
