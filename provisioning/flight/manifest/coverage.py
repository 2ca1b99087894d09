"""`tiles.coverage_sha256`: one digest of a corpus of any size, whatever the order its tiles come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from provisioning.base.errors import ManifestError
from provisioning.base.hashing import Sha256
from provisioning.flight.manifest.formula import field

COVERAGE_TAG = b"flight-cache-tile-coverage/1\n"
RUN_LINES = 100_000
"""Lines sorted in memory at a time, about 15 MB."""

TileRow = tuple[int, int, int, str, str]
"""z, x, y, source, SHA-256 of the tile's bytes."""


def coverage_sha256(tiles: Iterable[TileRow], *, scratch: Path | None = None) -> Sha256:
    """Return the digest of a corpus: SHA-256 over the tag line and its byte-sorted `z x y source sha256` lines.

    `tiles` may come in any order; beyond `RUN_LINES` they are sorted through a temporary file in `scratch`.
    ManifestError if a tile of one source is there twice.
    """
    digest, last = hashlib.sha256(COVERAGE_TAG), b""
    for row in coverage_lines(tiles, scratch=scratch):
        tile = row[: row.rindex(b" ")]
        if tile == last:
            raise ManifestError("a tile is in the corpus twice", key=tile.decode())
        digest.update(row)
        last = tile
    return Sha256(digest.hexdigest())


def coverage_lines(tiles: Iterable[TileRow], *, scratch: Path | None = None) -> Iterator[bytes]:
    """Yield the lines of a corpus in byte order, in bounded memory."""
    # Imported here: they would take a third of the verifier's start-up, which never needs them.
    from heapq import merge
    from tempfile import TemporaryFile

    with TemporaryFile(dir=scratch) as spill:
        runs, rest = _sorted_runs(tiles, spill)
        yield from merge(*(_read_run(spill, start, end) for start, end in runs), rest)


def _sorted_runs(tiles: Iterable[TileRow], spill: BinaryIO) -> tuple[list[tuple[int, int]], list[bytes]]:
    """Sort `tiles` in runs: all but the last go to `spill` (their extents are returned), the last stays in memory."""
    names: dict[str, str] = {}
    runs: list[tuple[int, int]] = []
    run: list[bytes] = []
    for z, x, y, source, sha256 in tiles:
        if source not in names:
            names[source] = field(source).decode()
        run.append(f"{z} {x} {y} {names[source]} {sha256}\n".encode())
        if len(run) == RUN_LINES:
            start = spill.tell()
            spill.writelines(sorted(run))
            runs.append((start, spill.tell()))
            run = []
    return runs, sorted(run)


def _read_run(spill: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        spill.seek(start)
        block = spill.read(min(1 << 16, end - start))
        whole = block[: block.rindex(b"\n") + 1]
        start += len(whole)
        yield from whole.splitlines(keepends=True)
