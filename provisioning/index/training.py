"""What the codebook of an ivf-sq8 index was learned from: decided when it is learned, kept until it fits no more.

Learning a codebook anew for each added tile would change every byte and cost minutes. So it stays with the corpus that
it was learned from; that corpus's digest is a fact of the index, and the codebook a file of that name. It is learned
anew when the number of vectors has doubled or halved, or when something else that decides it has changed.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from provisioning.config import Flight
from provisioning.files import write_durably
from provisioning.index.choice import MANY_VECTORS, Choice, lists_for
from provisioning.tiles import Corpus

_RECORD = "training.json"


@dataclass(frozen=True)
class Training:
    """A corpus to learn from: its coverage digest, its number of vectors, and the number of lists."""

    coverage_sha256: str
    vectors: int
    nlist: int

    def keep(self, choice: Choice) -> Choice:
        """Return `choice` with the number of lists of this training."""
        if choice.kind != "ivf-sq8":
            return choice
        return dataclasses.replace(choice, nlist=self.nlist, nprobe=-(-self.nlist // 4))

    def fits(self, flight: Flight, vectors: int) -> bool:
        """Tell whether a codebook learned so may still serve `vectors`."""
        asked = flight.index.nlist or self.nlist
        return self.nlist == asked and self.vectors <= 2 * vectors and vectors <= 2 * self.vectors


def index_dir(build_dir: Path) -> Path:
    """Return the folder in `.build` with what the index needs beside the store."""
    return build_dir / "index"


def may_train(flight: Flight, vectors: int) -> bool:
    """Tell whether an index of this corpus may need a codebook."""
    return flight.index.kind == "ivf-sq8" or (flight.index.kind == "auto" and vectors >= MANY_VECTORS)


def trained_on(flight: Flight, corpus: Corpus) -> Training:
    """Return the recorded training if it fits `corpus`, else the one that learning from `corpus` would give."""
    vectors = corpus.count * flight.index.rotations
    recorded = _recorded(index_dir(flight.build_dir) / _RECORD)
    if recorded is not None and recorded.fits(flight, vectors):
        return recorded
    return Training(corpus.coverage_sha256, vectors, flight.index.nlist or lists_for(vectors))


def record_training(flight: Flight, corpus: Corpus) -> None:
    """Record what `trained_on` says, so that it stays while tiles come and go. Only under the build lock."""
    path = index_dir(flight.build_dir) / _RECORD
    training = trained_on(flight, corpus)
    if training != _recorded(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, (json.dumps(dataclasses.asdict(training), sort_keys=True) + "\n").encode())


def _recorded(path: Path) -> Training | None:
    try:
        raw = json.loads(path.read_bytes())
        return Training(str(raw["coverage_sha256"]), int(raw["vectors"]), int(raw["nlist"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
