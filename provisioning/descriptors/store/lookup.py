"""Which descriptors may be missing, and how many are, asked without opening the store: nothing is written or locked."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from provisioning.base.batches import batches_of
from provisioning.base.hashing import Sha256
from provisioning.catalogue import distinct_keys, states
from provisioning.descriptors.store.generations import existing
from provisioning.descriptors.store.receipts import is_described

LOOKUP = 4096
BYTES_PER_COMPONENT = {"float32": 4, "float16": 2}


def described_state(build_dir: Path, store: Path, keys: Sequence[Sha256], *, overlap: int) -> int:
    """Return the last state of the corpus in which all its tiles had a descriptor under each of `keys`; 0 if none had.

    With overlap 2 its cuts, too. Only what changed since then need be looked up: a store that loses rows loses its
    receipts, too.
    """
    known = (state for state, coverage in states(build_dir) if is_described(store, keys, coverage, overlap=overlap))
    return next(known, 0)


def count_lacking(build_dir: Path, store: Path, keys: Sequence[Sha256], *, overlap: int = 1) -> int:
    """Return how many descriptors under `keys` the tiles of the last scan, and their cuts, lack."""
    since = described_state(build_dir, store, keys, overlap=overlap)
    wanted = list(distinct_keys(build_dir, overlap=overlap, since=since))
    return sum(count_missing(store, key, wanted) for key in keys)


def count_missing(store: Path, key: Sha256, shas: Iterable[bytes]) -> int:
    """Return how many of `shas`, all different, have no descriptor under `key`; all of them where there is no store."""
    with closing(_key_map(existing(store / key))) as db:
        return sum(len(chunk) - _known(db, chunk) for chunk in batches_of(shas, LOOKUP))


def _key_map(directory: Path | None) -> sqlite3.Connection:
    """Return the key map, opened to read, or an empty database where there is none."""
    if directory is not None:
        path = directory / "map.sqlite"
        frozen = "" if Path(f"{path}-wal").exists() else "&immutable=1"
        with suppress(sqlite3.Error):
            return sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro{frozen}", uri=True)
    return sqlite3.connect(":memory:")


def _known(db: sqlite3.Connection, shas: list[bytes]) -> int:
    """Return how many of `shas` the map holds; none where it cannot be read, for then they are described again."""
    marks = ",".join("?" * len(shas))
    with suppress(sqlite3.Error):
        return int(db.execute(f"SELECT count(*) FROM rows WHERE sha IN ({marks})", shas).fetchone()[0])  # noqa: S608 - question marks only
    return 0
