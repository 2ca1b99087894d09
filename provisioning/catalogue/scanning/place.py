"""When a source's place must be compared with its evidence again: not while neither has changed."""

from __future__ import annotations

import sqlite3

from provisioning.catalogue import database
from provisioning.config import TileSource
from provisioning.sources.placement.placing import check_place, place_said, place_stamp
from provisioning.sources.source import source_name


def check_place_once(db: sqlite3.Connection, source: TileSource, content: str, *, is_known: bool = False) -> None:
    """Raise TileError if a source does not lie where its own evidence says; asked again when either has changed.

    With `is_known` its tiles have the addresses of the last time, and what it says of them is the same.
    """
    name, stamp = source_name(source), place_stamp(source, content)
    if stamp and database.get(db, f"place {name}") == stamp:
        return
    if not is_known:
        database.put(db, f"said {name}", None)
        check_place(source)
        database.put(db, f"said {name}", place_said(source) or None)
    database.put(db, f"place {name}", stamp or None)


def said_is_known(db: sqlite3.Connection, source: TileSource) -> bool:
    """Return whether a container says of the place of its tiles what it said when that was checked last."""
    said = database.get(db, f"said {source_name(source)}")
    return said is not None and said == place_said(source)
