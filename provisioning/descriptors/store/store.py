"""The descriptor store: append-only shards and a key map, durable in that order, shared by several caches.

`append` writes records; `flush` makes them durable, then enters them in the map. What a killed writer had appended
is adopted by the next one that opens the store: records carry their tile's digest and a checksum. A power cut loses
what was not flushed, never more, and the map never names a row that is not on the disk.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from provisioning.base.batches import batches_of
from provisioning.base.disk.files import make_dirs
from provisioning.base.errors import DamagedDescriptorsError, DescriptorError
from provisioning.base.events import error as log_error
from provisioning.base.hashing import Sha256
from provisioning.descriptors.store import generations, shards
from provisioning.descriptors.store.guard import MAP, discard_map, lock_file, locked, wrap_errors
from provisioning.descriptors.store.keymap import KeyMap
from provisioning.descriptors.store.receipts import drop_receipts
from provisioning.descriptors.store.shards import Appender, Layout, Records

FLUSH_ROWS, FLUSH_S = 4096, 5.0
"""What a power cut may cost; a flush takes two to three fsyncs."""
WASTE = 0.25
"""Share of dead rows from which a store is written anew: less is not worth the reading of all the others."""
LOCK = ".lock"
UNIT_TOLERANCE = 0.01
"""float16 rows whose length is this near 1 were unit vectors and are made so again."""


class DescriptorStore:
    """Descriptors under one key, by the SHA-256 (32 bytes) of their tile. For many threads and processes.

    DescriptorError: another dtype or dimension than the rows there, damaged rows. FilesystemError: the disk.
    """

    def __init__(self, path: Path, key: Sha256, dtype: str) -> None:
        self._home = path / key
        self._lock = self._home / LOCK
        self._dtype = dtype
        self._mutex = threading.RLock()
        self._layout: Layout | None = None
        self._appender: Appender | None = None
        self._mapped: dict[int, shards.Mapped] = {}
        self._unflushed: set[bytes] = set()
        self._last_flush = time.monotonic()
        with wrap_errors("open the descriptor store", self._home):
            make_dirs(self._home)
            self._users = lock_file(self._home / ".users", fcntl.LOCK_SH)
        try:
            with wrap_errors("open the descriptor store", self._home), locked(self._lock):
                self._open()
                self._adopt()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> DescriptorStore:  # noqa: PYI034 - Self is newer than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the files. What was appended and not flushed stays for the next who opens the store."""
        self._close_appender()
        self._mapped.clear()
        if hasattr(self, "_map"):
            self._map.close()
        os.close(self._users)

    def __len__(self) -> int:
        """Return the number of tiles that have a descriptor."""
        with self._mutex, wrap_errors("read the descriptor store", self._home):
            return len(self._map)

    @property
    def dimension(self) -> int:
        """Length of a descriptor; 0 while there is none."""
        with wrap_errors("read the descriptor store", self._home):
            self._layout = self._layout or shards.read_layout(self._dir)
        return self._layout.dimension if self._layout else 0

    def missing(self, shas: Iterable[bytes]) -> list[bytes]:
        """Return those of `shas` that have no descriptor yet, each once, in order."""
        asked = list(dict.fromkeys(shas))
        with self._mutex, wrap_errors("read the descriptor store", self._home):
            there = self._map.found(asked).keys() | self._unflushed
            return [sha for sha in asked if sha not in there]

    def append(self, shas: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Add the descriptors `vectors` [n, dimension] of the tiles `shas`; durable after the next flush."""
        layout = self._layout or Layout(self._dtype, vectors.shape[1])
        if vectors.shape != (len(shas), layout.dimension):
            raise DescriptorError(
                "descriptors of another shape than this store has",
                file=self._home,
                facts={"got": list(vectors.shape), "expected": [len(shas), layout.dimension]},
            )
        records = shards.make_records(layout, shas, vectors)
        with self._mutex, wrap_errors("write descriptors", self._home):
            with locked(self._lock):
                self._layout = self._layout or shards.read_layout(self._dir) or layout
                if self._layout != layout:
                    raise DescriptorError("another writer began this store with another shape", file=self._home)
                self._appender = self._appender or Appender(self._dir, layout)
                self._appender.append(records)
            self._unflushed.update(shas)
            if len(self._unflushed) >= FLUSH_ROWS or time.monotonic() - self._last_flush >= FLUSH_S:
                self.flush()

    def flush(self) -> None:
        """Make everything appended durable, then enter it in the map."""
        with self._mutex, wrap_errors("write descriptors", self._home), locked(self._lock):
            self._adopt()
            self._unflushed.clear()
            self._last_flush = time.monotonic()

    def gather(self, shas: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return the descriptors of `shas`, float32 [n, dimension], in that order.

        DescriptorError: some have none. DamagedDescriptorsError: rows are damaged, and now forgotten with all receipts.
        """
        if self._unflushed:
            self.flush()
        with self._mutex, wrap_errors("read the descriptor store", self._home):
            rows = self._map.rows(shas)
            absent = int((rows < 0).sum())
            self._layout = self._layout or shards.read_layout(self._dir)
            if absent or self._layout is None:
                drop_receipts(self._home)
                raise DescriptorError(
                    f"{absent or len(shas)} tiles have no descriptor", file=self._home, next_step="run doit again"
                )
            result = np.empty((len(shas), self._layout.dimension), np.float32)
            step = self._layout.rows_per_block
            for start in range(0, len(shas), step):
                block = slice(start, start + step)
                result[block] = self._vectors(shas[block], rows[block])
            return result

    def _vectors(self, shas: Sequence[bytes], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        assert self._layout is not None
        records = shards.read_rows(self._dir, self._layout, rows, self._mapped)
        good = shards.whole(records) & (records["sha"] == np.frombuffer(b"".join(shas), "V32"))
        if not good.all():
            self._lose([sha for sha, fine in zip(shas, good, strict=True) if not fine])
        if self._dtype == "float16":
            return _unit_again(records["vector"].astype(np.float32))
        vectors: npt.NDArray[np.float32] = records["vector"]
        return vectors

    def _lose(self, shas: Sequence[bytes]) -> None:
        """Forget damaged rows, so that the next run computes them anew."""
        self._map.forget(shas)
        drop_receipts(self._home)
        raise DamagedDescriptorsError(
            f"{len(shas)} descriptors in the store are damaged and were dropped",
            file=self._dir,
            next_step="run doit again: they are computed anew. If it happens twice, check the disk",
        )

    def tidy(self) -> bool:
        """Compact where more than a quarter of the rows are damaged or doubled; True if that was done."""
        if self._layout is None:
            return False
        with wrap_errors("read the descriptor store", self._home):
            rows = shards.row_count(self._dir, self._layout)
        return rows - len(self) > rows * WASTE and self.compact()

    def compact(self) -> bool:
        """Write a new generation without damaged and doubled rows; False where another process has the store open."""
        with self._mutex, wrap_errors("compact the descriptor store", self._home):
            self.flush()
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._rewrite()
            except BlockingIOError:
                return False
            finally:
                fcntl.flock(self._users, fcntl.LOCK_SH)
            return True

    def _rewrite(self) -> None:
        if self._layout is None:
            return
        fresh = generations.begin(self._home)
        with closing(KeyMap(fresh / MAP)) as new_map:
            for block in batches_of(self._map.items(), self._layout.rows_per_block):
                rows = np.array([row for _, row in block], np.int64)
                records = shards.read_rows(self._dir, self._layout, rows)
                whole = shards.whole(records)
                self._copy(records[whole], fresh, new_map)
                if not whole.all():
                    drop_receipts(self._home)
        generations.finish(self._home, fresh)
        self._map.close()
        self._open()
        generations.prune(self._home)

    def _copy(self, records: Records, fresh: Path, new_map: KeyMap) -> None:
        assert self._layout is not None
        first = shards.row_count(fresh, self._layout)
        with closing(Appender(fresh, self._layout)) as appender:
            appender.append(records)
        end = first + len(records)
        shards.sync(fresh, self._layout, first, end)
        new_map.adopt(((r["sha"].tobytes(), first + n) for n, r in enumerate(records)), end)

    def _open(self) -> None:
        """Open the newest generation; a map that is not a database any more is made anew from the shards."""
        self._close_appender()
        self._mapped.clear()
        self._dir = generations.newest(self._home)
        try:
            self._map = KeyMap(self._dir / MAP)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            log_error("descriptor.failure", file=str(self._dir / MAP), reason=f"key map made anew: {error}")
            discard_map(self._dir)
            self._map = KeyMap(self._dir / MAP)
        self._layout = shards.read_layout(self._dir)
        if self._layout and self._layout.dtype != self._dtype:
            raise DescriptorError(f"this store holds {self._layout.dtype}, asked for is {self._dtype}", file=self._dir)

    def _close_appender(self) -> None:
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def _adopt(self) -> None:
        """Enter rows that are in the shards but not in the map: ours, another cache's, or a dead writer's."""
        self._layout = self._layout or shards.read_layout(self._dir)
        done, end = self._map.adopted, shards.row_count(self._dir, self._layout) if self._layout else 0
        self._forget_lost(done, end)
        if self._layout is None or done >= end:
            return
        shards.sync(self._dir, self._layout, done, end)
        step = self._layout.rows_per_block
        for start in range(done, end, step):
            rows = np.arange(start, min(start + step, end))
            records = shards.read_rows(self._dir, self._layout, rows)
            good, digests = np.flatnonzero(shards.whole(records)).tolist(), records["sha"].tolist()
            self._map.adopt(((digests[n], start + n) for n in good), int(rows[-1]) + 1)

    def _forget_lost(self, done: int, end: int) -> None:
        """Forget rows whose shard has gone or is too short for them."""
        lost = sum(self._map.forget_rows(first, past) for first, past in self._gone(done))
        if done > end:
            self._map.adopt((), end)
        if lost:
            drop_receipts(self._home)
            log_error(
                "descriptor.failure", file=str(self._dir), reason=f"{lost} descriptors were lost with their shard"
            )

    def _gone(self, done: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of rows below `done` that no shard holds any more."""
        if self._layout is None:
            yield from [(0, done)] if done else []
            return
        full = self._layout.rows_per_shard
        for first in range(0, done, full):
            have, past = shards.rows_in(self._dir, self._layout, first // full), min(first + full, done)
            if first + have < past:
                yield first + have, past


def _unit_again(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Undo what rounding to float16 did to the length of unit vectors; other vectors stay as they are."""
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    unit = np.abs(length - 1) <= UNIT_TOLERANCE
    return np.where(unit, vectors / np.where(unit, length, 1), vectors).astype(np.float32)
