"""What the last index was made of, so that the next one copies the codes of rows that did not change.

A hard link to the last `corpus.index` and, beside it, the id and content digest of each of its rows. Losing either
costs a full encoding, never a wrong index: file size and time must be those recorded, and the bytes before the codes
must be those that the new index would have.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from provisioning.base.files import make_dirs, wrap_os_errors, write_durably
from provisioning.index.ids import Bytes, Int64s
from provisioning.index.training import Training

CONTENT_BYTES = 16
_INDEX, _ROWS = "last.index", "last.rows"


@dataclass(frozen=True, eq=False)
class History:
    """What makes an incremental build possible: where the last index is remembered, and what rows are made of.

    `made_by` names what made the descriptors (their keys); `content` (uint8 [n, >= 16]) what each row was made from.
    """

    folder: Path
    made_by: str
    content: Bytes
    coverage_sha256: str = ""
    training: Training | None = None
    """What a codebook is learned from, or was."""


@dataclass(frozen=True, eq=False)
class Last:
    """The last index: its file, what made its descriptors, and its rows."""

    path: Path
    made_by: str
    ids: Int64s
    content: Bytes

    def place_of(self, ids: Int64s, content: Bytes) -> Int64s:
        """Return for each new row its row in the last index, or -1 where it is new or its content changed."""
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        same = (self.ids[place] == ids) & (self.content[place] == content[:, :CONTENT_BYTES]).all(axis=1)
        return np.where(same, place, -1)


def remember(history: History, output: Path, ids: Int64s) -> None:
    """Keep the index at `output` and its rows for the next build; a file system without hard links keeps nothing."""
    make_dirs(history.folder)
    with wrap_os_errors("forget the last index", history.folder):
        forget(history.folder)
    with contextlib.suppress(OSError):
        os.link(output, history.folder / _INDEX)
        stat = os.stat(output)
        facts = {"made_by": history.made_by, "rows": len(ids), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        content = np.ascontiguousarray(history.content[:, :CONTENT_BYTES])
        rows = ids.astype("<i8").tobytes() + content.tobytes()
        write_durably(history.folder / _ROWS, json.dumps(facts).encode() + b"\n" + rows)


def forget(folder: Path) -> None:
    """Drop what is remembered, the rows first: they vouch for the index."""
    for name in (_ROWS, _INDEX):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / name)


def recall(folder: Path) -> Last | None:
    """Return the last index if its file is as it was written, else None."""
    try:
        head, rows = (folder / _ROWS).read_bytes().split(b"\n", 1)
        facts, stat = json.loads(head), os.stat(folder / _INDEX)
        count = int(facts["rows"])
        whole = len(rows) == count * (8 + CONTENT_BYTES)
        if (stat.st_size, stat.st_mtime_ns) != (facts["bytes"], facts["mtime_ns"]) or not whole:
            return None
        content = np.frombuffer(rows, np.uint8, offset=8 * count).reshape(count, -1)
        return Last(folder / _INDEX, str(facts["made_by"]), np.frombuffer(rows, "<i8", count), content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
