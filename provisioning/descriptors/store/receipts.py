"""Receipts: under one descriptor key, every tile of one corpus, or every tile and cut, is in the store.

They lie in the store, so that a store that is deleted, or that lost rows to damage, takes them along.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from provisioning.base.disk.files import discard, make_dirs, write_durably
from provisioning.base.hashing import Sha256, digest_of

KEPT = 64
"""Receipts kept for each key: several caches may share a store, and an older corpus may come back."""


def is_described(store: Path, keys: Iterable[Sha256], coverage: Sha256, *, overlap: int = 1) -> bool:
    """True where every tile of the corpus `coverage` has a descriptor under each of `keys`. Never raises.

    overlap: 2 where its cuts must have one, too.
    """
    return all(os.path.isfile(_receipt(store, key, coverage, overlap)) for key in keys)


def write_receipt(store: Path, key: Sha256, coverage: Sha256, *, overlap: int = 1) -> None:
    """Note that the corpus is described; call it once its descriptors are durable."""
    path = _receipt(store, key, coverage, overlap)
    make_dirs(path.parent)
    write_durably(path, b"")
    for old in sorted(path.parent.iterdir(), key=os.path.getmtime)[:-KEPT]:
        discard(old)


def drop_receipts(directory: Path) -> None:
    """Forget every receipt of the key whose directory this is."""
    receipts = directory / "receipts"
    for name in os.listdir(receipts) if receipts.is_dir() else ():
        discard(receipts / name)


def _receipt(store: Path, key: Sha256, coverage: Sha256, overlap: int) -> Path:
    name = coverage if overlap == 1 else digest_of({"coverage": coverage, "overlap": overlap})
    return store / key / "receipts" / name
