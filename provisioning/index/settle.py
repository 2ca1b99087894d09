"""What is measured once and must then stay: the speed of this host, where the choice of a kind hangs on it."""

from __future__ import annotations

from provisioning.catalogue import Corpus
from provisioning.config import Flight
from provisioning.index.choice import speed_matters
from provisioning.index.host import record_speed


def settle(flight: Flight, corpus: Corpus, dimension: int) -> None:
    """Measure and record this host's speed if another speed would mean another kind of index.

    To be called under the build lock, after the scan and before `index_facts`; costs nothing for a small corpus.
    """
    vectors = corpus.count * flight.index.rotations
    if speed_matters(flight.index, vectors=vectors, dimension=dimension):
        record_speed(flight.build_dir)
