"""How many descriptors are missing, asked without opening the store: nothing is written, no lock is taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from provisioning.descriptors.generations import existing
from provisioning.hashing import Sha256

LOOKUP = 4096
BYTES_PER_COMPONENT = {"float32": 4, "float16": 2}


def count_missing(store: Path, key: Sha256, shas: Iterable[bytes]) -> int:
    """Return how many of `shas`, all different, have no descriptor under `key`; all of them where there is no store."""
    with closing(_key_map(existing(store / key))) as db:
        return sum(len(chunk) - _known(db, chunk) for chunk in _chunks(shas))


def _key_map(directory: Path | None) -> sqlite3.Connection:
    """Return the key map, opened to read, or an empty database where there is none."""
    if directory is not None:
        path = directory / "map.sqlite"
        frozen = "" if Path(f"{path}-wal").exists() else "&immutable=1"
        with suppress(sqlite3.Error):
            return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{frozen}", uri=True)
    return sqlite3.connect(":memory:")


def _known(db: sqlite3.Connection, shas: list[bytes]) -> int:
    """Return how many of `shas` the map holds; none where it cannot be read, for then they are described again."""
    marks = ",".join("?" * len(shas))
    with suppress(sqlite3.Error):
        return int(db.execute(f"SELECT count(*) FROM rows WHERE sha IN ({marks})", shas).fetchone()[0])  # noqa: S608 - question marks only
    return 0


def _chunks(shas: Iterable[bytes]) -> Iterable[list[bytes]]:
    remaining = iter(shas)
    while chunk := list(islice(remaining, LOOKUP)):
        yield chunk
