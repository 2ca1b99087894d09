"""What the codebook of an ivf-sq8 index was learned from: decided when it is learned, kept until it fits no more.

Learning a codebook anew for each added tile would change every byte and cost minutes. So it stays, with the digest of
the corpus that it was learned from, which is a fact of the index: one file whose first line tells that, and whose rest
is the codebook. It is learned anew when the number of vectors has doubled or halved, or when what made the descriptors,
the transform or the number of lists asked for is another.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from provisioning.base.files import make_dirs, write_durably
from provisioning.base.hashing import sha256_bytes
from provisioning.catalogue import Corpus
from provisioning.config import Flight
from provisioning.index.choice import MANY_VECTORS, Choice, lists_for

_CODEBOOK = "codebook"


@dataclass(frozen=True)
class Training:
    """A corpus to learn from: its coverage digest, its number of vectors, and the number of lists."""

    coverage_sha256: str
    vectors: int
    nlist: int
    made_by: str
    """Digest of what made the vectors: descriptor keys and transform."""

    def keep(self, choice: Choice) -> Choice:
        """Return `choice` with the number of lists of this training."""
        if choice.kind != "ivf-sq8":
            return choice
        return dataclasses.replace(choice, nlist=self.nlist, nprobe=-(-self.nlist // 4))

    def fits(self, wanted: Training, *, asked: int) -> bool:
        """Tell whether a codebook learned so may serve where learning now would be `wanted`; `asked` lists or 0."""
        near = self.vectors <= 2 * wanted.vectors and wanted.vectors <= 2 * self.vectors
        return self.made_by == wanted.made_by and near and asked in (0, self.nlist)


def index_dir(build_dir: Path) -> Path:
    """Return the folder in `.build` with what the index needs beside the store."""
    return build_dir / "index"


def may_train(flight: Flight, vectors: int) -> bool:
    """Tell whether an index of this corpus may need a codebook."""
    return flight.index.kind == "ivf-sq8" or (flight.index.kind == "auto" and vectors >= MANY_VECTORS)


def training_for(flight: Flight, corpus: Corpus, made_by: str) -> Training:
    """Return the training of the codebook in `.build` if it fits `corpus`, else that of learning from `corpus`."""
    vectors, asked = corpus.count * flight.index.rotations, flight.index.nlist
    wanted = Training(corpus.coverage_sha256, vectors, min(vectors, asked or lists_for(vectors)), made_by)
    recorded = _recorded(index_dir(flight.build_dir) / _CODEBOOK)
    return recorded if recorded is not None and recorded.fits(wanted, asked=asked) else wanted


def _recorded(path: Path) -> Training | None:
    try:
        with open(path, "rb") as file:
            return _training(json.loads(file.readline()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _training(raw: dict[str, object]) -> Training:
    return Training(**{field.name: raw[field.name] for field in dataclasses.fields(Training)})  # type: ignore[arg-type]


def keep_codebook(folder: Path, training: Training, data: bytes) -> None:
    """Write the codebook `data` of `training`. Only under the build lock."""
    make_dirs(folder)
    head = {**dataclasses.asdict(training), "sha256": sha256_bytes(data)}
    write_durably(folder / _CODEBOOK, json.dumps(head, sort_keys=True).encode() + b"\n" + data)


def read_codebook(folder: Path, training: Training) -> bytes | None:
    """Return the codebook of `training`; None if another, a damaged one or none is there: then none is left."""
    path = folder / _CODEBOOK
    try:
        head, data = path.read_bytes().split(b"\n", 1)
        raw = json.loads(head)
        if _training(raw) == training and raw["sha256"] == sha256_bytes(data):
            return data
    except (OSError, ValueError, KeyError, TypeError):
        pass
    path.unlink(missing_ok=True)
    return None
