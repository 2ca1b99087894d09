"""What was measured stays until what it was measured on changes: an added tile must not cost a thousand inferences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from provisioning.base.disk import memo
from provisioning.base.hashing import Fact
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure

FORMAT = 3


@contextlib.contextmanager
def cached_store(subject: Subject) -> Iterator[DescriptorStore | None]:
    """Yield the store of what the network said of perturbed tiles; None where the subject has no key to keep it by."""
    if subject.key is None:
        yield None
        return
    with DescriptorStore(subject.kept, subject.key, "float32") as store:
        yield store


def cached(subject: Subject, name: str, measure: Callable[[], Mapping[str, Figure]]) -> Mapping[str, Figure]:
    """Return what `measure` said last time of the same network and sample, or ask it."""
    if subject.key is None:
        return measure()
    path = subject.kept / f"{subject.key}.json"
    sample = [subject.rows.shas[row].tobytes().hex() for row in subject.sample]
    facts: dict[str, Fact] = {"format": FORMAT, "sample": sample}
    known = memo.get(path, name, facts)
    if known is not None:
        return {each: Figure(*figure) for each, figure in known.items()}
    found = measure()
    memo.put(path, name, facts, {each: list(figure) for each, figure in found.items()})
    return found
