"""Results that cost much and follow from facts: kept in a JSON file by name, found again while the facts are the same.

A memo that is lost, damaged or of another form costs the work again, never a wrong answer: each entry carries the
digest of its facts and of its value. An error is never kept: there is no value to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioning.base.disk import lock
from provisioning.base.disk.files import make_dirs, read_regular, write_durably
from provisioning.base.disk.jsonfile import from_json, to_json
from provisioning.base.hashing import Fact, digest_of, sha256_bytes

LIMIT_BYTES = 256 << 20


def get(path: Path, name: str, facts: Mapping[str, Fact]) -> Any:
    """Return the value that was kept in the file `path` under `name` for the same `facts`, or None. Never raises."""
    entry = _entries(path).get(name)
    if not isinstance(entry, dict) or entry.get("check") != _check(facts, entry.get("value")):
        return None
    return entry["value"]


def put(path: Path, name: str, facts: Mapping[str, Fact], value: Any) -> None:
    """Keep `value`, which JSON can hold, in place of what is there under `name`; only for who holds the build lock.

    The file is replaced in one step. Raises FilesystemError.
    """
    if not lock.is_held_for(path):
        return
    make_dirs(path.parent)
    entries = {**_entries(path), name: {"check": _check(facts, value), "value": value}}
    write_durably(path, to_json(entries, indent=True) + b"\n")


def _check(facts: Mapping[str, Fact], value: Any) -> str:
    return sha256_bytes(digest_of(facts).encode() + to_json(value))


def _entries(path: Path) -> dict[str, Any]:
    try:
        found = from_json(read_regular(path, limit=LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
