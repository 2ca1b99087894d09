"""How many descriptors are missing, asked without opening the store: nothing is written, no lock is taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from provisioning.descriptors.generations import existing
from provisioning.hashing import Sha256

LOOKUP = 4096
BYTES_PER_COMPONENT = {"float32": 4, "float16": 2}


def count_missing(store: Path, key: Sha256, shas: Iterable[bytes]) -> int:
    """Return how many of `shas`, all different, have no descriptor under `key`; all of them where there is no store."""
    directory = existing(store / key)
    if directory is None:
        return sum(1 for _ in shas)
    path = directory / "map.sqlite"
    try:
        readers = f"file:{quote(str(path))}?mode=ro{'' if Path(f'{path}-wal').exists() else '&immutable=1'}"
        with closing(sqlite3.connect(readers, uri=True)) as db:
            return sum(len(chunk) - _known(db, chunk) for chunk in _chunks(shas))
    except sqlite3.Error:
        return sum(1 for _ in shas)


def _known(db: sqlite3.Connection, shas: list[bytes]) -> int:
    marks = ",".join("?" * len(shas))
    return int(db.execute(f"SELECT count(*) FROM rows WHERE sha IN ({marks})", shas).fetchone()[0])  # noqa: S608 - question marks only


def _chunks(shas: Iterable[bytes]) -> Iterable[list[bytes]]:
    remaining = iter(shas)
    while chunk := list(islice(remaining, LOOKUP)):
        yield chunk
