"""Pictures that stand in many places: a provider's "no imagery" picture, never imagery of the ground."""

from __future__ import annotations

import sqlite3

from provisioning.base.events import warn
from provisioning.catalogue import database
from provisioning.catalogue.scanning.writer import mark_dirty

REPEATS = 4
"""Places from which on a picture, the same to the last byte, is no imagery."""
LARGE_SHARE = 100
"""If fewer than one in so many columns changed, only these are counted: counting all tiles takes a second a million."""

_COUNTED = """SELECT sha256 FROM tile t WHERE sha256 NOT NULL {only}
  GROUP BY sha256 HAVING count(*) >= ? AND count(DISTINCT (z << 50) | (x << 25) | y) >= ?"""
_ONLY_DIRTY = "AND EXISTS (SELECT 1 FROM col c WHERE c.z = t.z AND c.x = t.x AND c.dirty)"


def _has_others(db: sqlite3.Connection, repeated: frozenset[bytes]) -> bool:
    """Tell whether there is any picture but `repeated` ones: without others nothing shows that these are none."""
    digests = db.execute("SELECT DISTINCT sha256 FROM tile WHERE sha256 NOT NULL")
    return any(digest not in repeated for (digest,) in digests)


def find_repeated(db: sqlite3.Connection) -> frozenset[bytes]:
    """Return the SHA-256 of each picture that stands in `REPEATS` places or more; their columns become dirty.

    None if all tiles are such pictures: that is said, not decided.
    """
    before = frozenset(bytes.fromhex(digest) for digest in (database.get(db, "repeated") or "").split())
    dirty, total = db.execute("SELECT count(*) FILTER (WHERE dirty), count(*) FROM col").fetchone()
    if not dirty:
        return before
    few = dirty * LARGE_SHARE < total
    only = _ONLY_DIRTY if few else ""
    found = frozenset(digest for (digest,) in db.execute(_COUNTED.format(only=only), (REPEATS, REPEATS)))
    now = found | before if few else found
    if now and not _has_others(db, now):
        warn("tiles.repeated", pictures=len(now), note="every tile is one of these pictures: kept. Is this imagery?")
        now = frozenset()
    if now != before:
        for digest in now ^ before:
            mark_dirty(db, set(db.execute("SELECT DISTINCT z, x FROM tile WHERE sha256 = ?", (digest,))))
        database.put(db, "repeated", " ".join(sorted(digest.hex() for digest in now)))
    return now
