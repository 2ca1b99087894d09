"""Why each task must run; nothing to say means that it is up to date. doit asks these, and so does `flightcache plan`.

Addresses say whether a file is the right one, artifact records whether it is whole; doit's database is not asked. A
build that is going to publish reads every file that it reuses; one with nothing to do goes by each file's stat, and
reads all of them every `publish.recheck_days`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from provisioning import descriptors
from provisioning.base import events
from provisioning.base.disk import lock
from provisioning.base.disk.artifacts import Target, is_intact, is_whole, read_record
from provisioning.base.errors import Error
from provisioning.build import recheck
from provisioning.build.generation import contents
from provisioning.build.generation.contents import Published
from provisioning.build.request import NetworkRequest, Request
from provisioning.flight import manifest, publish
from provisioning.flight.verify import ANY, Code, Expectations, KnownFile, Reason, verify

Reasons = tuple[str, ...]


class Due:
    """The reasons of each task of `request`, for one run. What is published is examined once for each generation."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._examined: dict[Path | None, tuple[Reason, ...]] = {}
        self._read: dict[tuple[str, int, int, int], bool] = {}

    def onnx(self, network: NetworkRequest) -> Reasons:
        """Say why the typed ONNX is needed: an engine is to be compiled from it, gates are to measure against it.

        Or its range was not checked on these tiles, as after a `doit engine` that came before them.
        """
        if (self.engine(network) or self.gates()) and not self._is_whole_now(network.typed):
            return (f"{network.typed.name}: {_wrong(network.typed)}",)
        return () if network.checked is None else self._not_made(network.checked)

    def engine(self, network: NetworkRequest) -> Reasons:
        """Say why the engine must be compiled."""
        return self._not_made(network.engine)

    def unchecked(self) -> Reasons:
        """Say why the scan must be checked: gates or report are still to be made for it."""
        return self._not_made(self.request.gates, *self.request.extras)

    def described(self) -> Reasons:
        """Say why tiles must be described: an index is to be built, or gates measured, over descriptors not all there.

        Or the range of a network in fp16 has not been checked on these tiles.
        """
        request = self.request
        checked = request.descriptor_network.checked
        if checked is not None and (reasons := self._not_made(checked)):
            return reasons
        store, coverage = request.flight.descriptor_store, request.tiles.coverage_sha256
        if descriptors.is_described(store, request.descriptor_keys, coverage, overlap=request.overlap):
            return ()
        return self.indexed() or self.gates()

    def indexed(self) -> Reasons:
        """Say why corpus.index must be built."""
        return self._not_made(self.request.index, self.request.index_info)

    def gates(self) -> Reasons:
        """Say why quality must be measured."""
        return self._not_made(self.request.gates)

    def report(self) -> Reasons:
        """Say why the report must be drawn: it shows what changed against the generation that it replaces."""
        if reasons := self._not_made(*self.request.extras):
            return reasons
        current = contents.published(self.request.cache)
        listed = {entry.sha256 for entry in current.manifest.other} if current else set()
        record = read_record(self.request.report)
        return () if record and record.sha256 in listed else ("the generation that it compares with has changed",)

    def published(self) -> Reasons:
        """Say why a generation must be published: another Manifest or key, or a published file that is not intact."""
        current = contents.published(self.request.cache)
        if current is None:
            return ("nothing is published yet",)
        try:
            wanted = contents.compose(self.request, counter=current.manifest.build.counter)
        except Error as error:
            return (error.what,)
        changes = tuple(changed(current, wanted)) if manifest.to_bytes(wanted) != current.manifest_bytes else ()
        return changes or tuple(str(reason) for reason in self.examined() if reason.code != Code.UNLISTED)

    def examined(self) -> tuple[Reason, ...]:
        """Return what the verifier has against the current generation, found once in a run for each generation."""
        generation = publish.current_generation(self.request.cache)
        if generation not in self._examined:
            self._examined[generation] = examine(self.request, in_full=self.is_recheck)
        return self._examined[generation]

    @cached_property
    def is_recheck(self) -> bool:
        """Whether this run is a build that reads what is published in full, whatever the stat of a file says."""
        flight = self.request.flight
        return self._builds and recheck.is_due(flight.build_dir, flight.publish.recheck_days)

    @cached_property
    def _builds(self) -> bool:
        """Whether this process may write, and so is to publish; who only looks goes by the stat."""
        return lock.is_held_for(self.request.cache / lock.FILE)

    @cached_property
    def _publishes(self) -> bool:
        return self._builds and bool(self.published())

    def _not_made(self, *targets: Target) -> Reasons:
        return tuple(f"{target.name}: {_wrong(target)}" for target in targets if not self._is_there(target))

    def _is_there(self, target: Target) -> bool:
        """Return whether a target can be reused: by its stat, and by its bytes where something is to be signed."""
        return is_intact(target) and (not self._publishes or self._is_whole(target))

    def _is_whole_now(self, target: Target) -> bool:
        """Return whether work may begin from a target: by its bytes where this process is to do the work."""
        return is_intact(target) and (not self._builds or self._is_whole(target))

    def _is_whole(self, target: Target) -> bool:
        """Return whether the bytes of an intact target are those of its record; read once, and damage is said once."""
        status = target.path.stat()
        file = (str(target.path), status.st_ino, status.st_ctime_ns, status.st_size)
        if file not in self._read:
            self._read[file] = is_whole(target)
            if not self._read[file]:
                events.warn("artifact.damaged", file=str(target.path), reason="its bytes changed: it is made again")
        return self._read[file]


def changed(current: Published, wanted: manifest.Manifest) -> Iterable[str]:
    """Yield the parts of the Manifest in which `wanted` differs from what is published."""
    for name, was, now in zip(wanted._fields, current.manifest, wanted, strict=True):
        if was != now:
            yield f"{name} changed"


def examine(request: Request, *, in_full: bool) -> tuple[Reason, ...]:
    """Return what the verifier has against the current generation, for this request.

    Unless `in_full`, files that are still those of their artifact records are not hashed again: a no-op costs their
    stat.
    """
    known = {} if in_full else known_good(request)
    with verify(request.cache, expectations(request), known=known) as verdict:
        return verdict.reasons


def expectations(request: Request) -> Expectations:
    """Return what this request expects of its own generation."""
    identity = request.flight.flight
    return Expectations(
        keys=(request.signer.public_key,),
        flight_id=identity.id,
        aircraft_id=identity.aircraft,
        host=contents.host(request),
        counter_floor=ANY,
    )


def known_good(request: Request) -> dict[str, KnownFile]:
    """Return what the artifact records say of the generation's files, by their names in it."""
    record = {name: read_record(target) for name, target in contents.targets(request).items()}
    return {name: KnownFile(b.bytes, b.mtime_ns, b.inode, b.sha256) for name, b in record.items() if b is not None}


def _wrong(target: Target) -> str:
    return "is not as it was made" if read_record(target) else "has not been made for these inputs"
