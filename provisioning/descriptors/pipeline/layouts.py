"""Who does what at the same time. Both layouts give the same descriptors; memory is bounded by queue and threads.

Measured on four cores: fused threads reach 90 to 100 % of the bare network, one caller with four threads of its own
52 to 60 %. With a GPU the network must not wait for decoders: staged decodes at 0.87 to 0.95 of what the cores could,
by processor time on two busy cores (`bench/pipeline.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provisioning.base.batches import batches_of
from provisioning.descriptors.pipeline.decoders import Decoders
from provisioning.descriptors.pipeline.loader import Unit
from provisioning.descriptors.pipeline.results import Results
from provisioning.descriptors.pipeline.threads import Channel, Countdown, Item, ThreadGroup
from provisioning.engines import Network
from provisioning.sources.pixels.fitting import Pixels

QUEUE = 4
"""Batches between two stages: one being used, one ready, two for jitter."""


class _Filled(NamedTuple):
    seen: list[Unit]
    images: Pixels
    give_back: Callable[[], object]


class _Answered(NamedTuple):
    units: list[Unit]
    vectors: npt.NDArray[np.float32]


def slots(threads: int) -> int:
    """Return how many batches each of `threads` decoders has room for, so that all together have enough."""
    return max(2, -(-(threads + QUEUE + 1) // threads))


def fused(
    units: Iterable[Unit], network: Network, decoders: Decoders, results: Results, *, threads: int, batch: int
) -> None:
    """CPU: each thread has a decoder, runs the network with one thread of its own, and writes; one after the other.

    A thread takes no more than its share of what waits, so that all end together.
    """
    with ThreadGroup(decoders.stop) as group:
        work: Channel[Unit] = Channel(QUEUE * threads * batch, group.stop)

        def worker() -> None:
            own, decoder = network.clone(), decoders.decoder()
            while some := work.take_share(batch, of=threads):
                seen, faults, images = decoder.load_batch(some)
                results.fail(faults)
                if seen:
                    results.put(seen, own(images))

        for n in range(threads):
            group.start(f"descriptors-{n}", worker)
        _feed(work, batches_of(units, batch))


def staged(
    units: Iterable[Unit], network: Network, decoders: Decoders, results: Results, *, threads: int, batch: int
) -> None:
    """GPU: `threads` decoders fill their slots, one thread feeds the engine, one writes."""
    with ThreadGroup(decoders.stop) as group:
        work: Channel[list[Unit]] = Channel(QUEUE + threads, group.stop)
        filled: Channel[_Filled] = Channel(QUEUE, group.stop)
        answered: Channel[_Answered] = Channel(QUEUE, group.stop)

        def decode() -> None:
            decoder, free = decoders.decoder(), Channel[int](decoders.slots, group.stop)
            for each in range(decoders.slots):
                free.put(each)
            for some in work:
                slot = free.take()
                if slot is None:
                    return
                seen, faults, images = decoder.load_batch(some, slot)
                results.fail(faults)
                filled.put(_Filled(seen, images, partial(free.put, slot)))

        def engine() -> None:
            for seen, images, give_back in filled:
                if seen:
                    answered.put(_Answered(seen, network(images)))
                give_back()

        def writer() -> None:
            for seen, vectors in answered:
                results.put(seen, vectors)

        last_decoder = Countdown(threads, filled.close)
        for n in range(threads):
            group.start(f"decoder-{n}", decode, then=last_decoder)
        group.start("engine", engine, then=answered.close)
        group.start("writer", writer)
        _feed(work, ([some] for some in batches_of(units, batch)))


def _feed(work: Channel[Item], items: Iterable[Sequence[Item]]) -> None:
    """Put `items` into the channel, some at a time."""
    try:
        for some in items:
            if not work.put(*some):
                return
    finally:
        work.close()
