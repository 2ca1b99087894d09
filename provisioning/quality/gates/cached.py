"""What was measured stays until what it was measured on changes: an added tile must not cost a thousand inferences."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from provisioning.base.files import make_dirs, write_durably
from provisioning.base.hashing import digest_of
from provisioning.base.jsonfile import from_json
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure

FORMAT = 2


@contextlib.contextmanager
def cached_store(subject: Subject) -> Iterator[DescriptorStore | None]:
    """Yield the store of what the network said of perturbed tiles; None where the subject has no key to keep it by."""
    if subject.key is None:
        yield None
        return
    with DescriptorStore(subject.flight.build_dir / "gates", subject.key, "float32") as store:
        yield store


def cached(subject: Subject, name: str, measure: Callable[[], Mapping[str, Figure]]) -> Mapping[str, Figure]:
    """Return what `measure` said last time of the same network and sample, or ask it."""
    if subject.key is None:
        return measure()
    path = subject.flight.build_dir / "gates" / f"{subject.key}.json"
    asked = digest_of({"format": FORMAT, "sample": [subject.rows.shas[row].tobytes().hex() for row in subject.sample]})
    try:
        known = from_json(path.read_bytes())
        return {each: Figure(*figure) for each, figure in known[name][asked].items()}
    except (OSError, ValueError, KeyError, TypeError):
        found = measure()
    make_dirs(path.parent)
    write_durably(path, json.dumps({**_known(path), name: {asked: found}}, sort_keys=True).encode())
    return found


def _known(path: Path) -> dict[str, object]:
    try:
        return dict(from_json(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
