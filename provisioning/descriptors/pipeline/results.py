"""Where descriptors go when they are computed, and what is remembered of the tiles that gave none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from provisioning.base.errors import DescriptorError
from provisioning.base.events import error as log_error
from provisioning.descriptors.pipeline.loader import Fault, Unit
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.sources.tile_file import SINCE_THE_SCAN

NAMED_FAULTS = 20
"""Tiles named in the error; each one is an event of its own."""


@dataclass
class Results:
    """Puts descriptors into the store of their heading. Thread-safe."""

    stores: Sequence[DescriptorStore]
    on_progress: Callable[[int], None] = lambda _: None
    computed: int = 0
    failed: int = 0
    changed: int = 0
    """How many of those that failed are no longer what was scanned."""
    faults: list[Fault] = field(default_factory=list)
    _waiting: set[tuple[int, bytes]] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, units: Iterable[Unit]) -> list[Unit]:
        """Note these units as under way; return those that were not already."""
        with self._mutex:
            fresh = []
            for unit in units:
                key = key_of(unit)
                if key not in self._waiting:
                    self._waiting.add(key)
                    fresh.append(unit)
            return fresh

    def put(self, units: Sequence[Unit], vectors: npt.NDArray[np.float32]) -> None:
        """Store `vectors` [n, dimension] of `units`; a non-finite one is a fault of its tile."""
        finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        keys = list(map(key_of, units))
        for number, store in enumerate(self.stores):
            chosen = [n for n, (heading, _) in enumerate(keys) if heading == number and finite[n]]
            if chosen:
                store.append([keys[n][1] for n in chosen], vectors[chosen])
        self.fail(
            Fault(u, "the network gave a non-finite number") for u, fine in zip(units, finite, strict=True) if not fine
        )
        with self._mutex:
            self.computed += int(finite.sum())
            self._waiting.difference_update(keys)
            self.on_progress(self.computed)

    def fail(self, faults: Iterable[Fault]) -> None:
        """Record tiles that have no descriptor, each as an event."""
        for fault in faults:
            tile = fault.unit.tile
            log_error("descriptor.failure", z=tile.z, x=tile.x, y=tile.y, source=tile.source, reason=fault.reason)
            with self._mutex:
                self.failed += 1
                self.changed += fault.reason.endswith(SINCE_THE_SCAN)
                if len(self.faults) < NAMED_FAULTS:
                    self.faults.append(fault)

    def require_all(self, file: str) -> None:
        """Raise DescriptorError naming the tiles that failed, if any did; `file` is the model.

        Where all of them changed since the scan nothing is wrong with them: something writes to their source.
        """
        if not self.failed:
            return
        tiles = ((unit.tile, reason) for unit, reason in sorted(self.faults))
        named = {f"{tile.source} {tile.z}/{tile.x}/{tile.y}": reason for tile, reason in tiles}
        more = {"and more": self.failed - len(named)} if self.failed > len(named) else {}
        count = f"{self.failed} tile{'s have' if self.failed > 1 else ' has'}"
        if self.changed == self.failed:
            raise DescriptorError(
                f"the source changed while it was read: {count} no descriptor; the others are kept",
                facts={**named, **more},
                next_step="let what writes these tiles finish, then run doit again",
            )
        raise DescriptorError(
            f"{count} no descriptor; the others are kept",
            file=file,
            facts={**named, **more},
            next_step='replace these tiles, or set tiles.on_error = "skip" and run doit again',
        )


def key_of(unit: Unit) -> tuple[int, bytes]:
    """Return what makes a unit the same work as another: heading and what is seen."""
    return unit.heading, unit.key
