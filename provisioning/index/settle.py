"""What is measured or decided once and must then stay: the speed of this host, and what a codebook is learned from."""

from __future__ import annotations

from provisioning.config import Flight
from provisioning.index.choice import speed_matters
from provisioning.index.host import record_speed
from provisioning.index.training import may_train, record_training
from provisioning.tiles import Corpus


def settle(flight: Flight, corpus: Corpus, dimension: int) -> None:
    """Record what later choices must repeat: this host's speed if it matters, and what a codebook is learned from.

    To be called under the build lock, after the scan and before `index_facts`; costs nothing for a small corpus.
    """
    vectors = corpus.count * flight.index.rotations
    if speed_matters(flight.index, vectors=vectors, dimension=dimension):
        record_speed(flight.build_dir)
    if may_train(flight, vectors):
        record_training(flight, corpus)
