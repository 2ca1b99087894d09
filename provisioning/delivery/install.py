"""Delivering a generation to a directory here: from a bundle, from a verified cache, or from a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import DeliveryError, Error, FilesystemError
from provisioning.base.hashing import Sha256, sha256_bytes
from provisioning.delivery.bundle.check import (
    Ahead,
    Carried,
    Trust,
    check_bundle,
    read_documents,
    read_files,
    read_since,
)
from provisioning.delivery.bundle.compression import decompressing, zstd_module
from provisioning.delivery.bundle.contents import Documents, Listed, listed
from provisioning.delivery.bundle.delta import LEAST_BYTES, Pieces, opened_base, rebuilt
from provisioning.delivery.bundle.since import Since
from provisioning.delivery.stream import Need, read_changed, read_needed, receive_documents, write_line
from provisioning.delivery.target import (
    Earlier,
    Outcome,
    Target,
    Verify,
    installed,
    opened,
    refuse_older,
    set_aside_damaged,
    switch,
)
from provisioning.flight import publish
from provisioning.flight.manifest import Manifest
from provisioning.flight.vehicle import Vehicle
from provisioning.flight.verify import CounterFloor
from provisioning.flight.verify.floor import is_new, permit_fallback, raise_floor
from provisioning.flight.verify.reasons import Refusal

KEEP = 2
"""Generations kept on a vehicle: the one before the newest is what it can fall back to."""

Fetch = Callable[[Target, "tuple[Listed, ...]", Mapping[Sha256, Path]], None]
"""Brings files that the target lacks, each by `Target.receive`; given what the target holds, by digest."""

MOST_BASES = 2_000
"""Earlier versions offered in one line of the stream, which has a limit: those of the largest files."""


def install_bundle(
    bundle: Path, root: Path, *, trust: Trust, verify: Verify, keep: int = 1, vehicle: Vehicle | None = None
) -> Outcome:
    """Install the bundle into the cache directory `root`: checked whole first, then written, verified, switched.

    vehicle: its floor says what is older, and is raised after the switch; without one the counters installed here do.
    Raises DeliveryError, VerificationError, BuildLockHeldError, FilesystemError; `current` then names what it named.
    """
    checked = check_bundle(bundle, trust)

    def fetch(target: Target, files: tuple[Listed, ...], held: Mapping[Sha256, Path]) -> None:
        if checked.since:
            _require_bases(checked.since, files, held, bundle)
        wanted = {file.path for file in files}
        with decompressing(bundle) as raw:
            stream = Ahead(raw)
            read_documents(stream)
            since = read_since(stream, checked.manifest)
            for carried in read_files(stream, checked.manifest, since):
                if carried.file.path in wanted:
                    _receive(target, carried, held)
                else:
                    for _ in carried.pieces:
                        pass

    return deliver(root, checked.documents, checked.manifest, fetch=fetch, verify=verify, keep=keep, vehicle=vehicle)


def _require_bases(since: Since, files: Iterable[Listed], held: Mapping[Sha256, Path], bundle: Path) -> None:
    """Raise DeliveryError, before anything arrives, if a file is missing here that a delta begins with."""
    for file in files:
        changed = since.files.get(file.path)
        if changed is not None and zstd_module() is None:
            raise DeliveryError(
                "nothing here applies what changed inside a file",
                file=bundle,
                next_step="install backports.zstd (Python 3.14 needs nothing), or bring a bundle made without --since",
            )
        if changed is not None and changed.base not in held:
            raise DeliveryError(
                f"this bundle holds only what changed since generation {since.counter}, which is not whole here",
                file=bundle,
                facts={"needs manifest_hash": since.manifest_hash, "not here": f"{file.path}, SHA-256 {changed.base}"},
                next_step=f"install generation {since.counter} first, or a bundle made without --since",
            )


def _receive(target: Target, carried: Carried, held: Mapping[Sha256, Path]) -> None:
    """Store one file of a bundle, carried whole or as what changed."""
    if carried.changed is None:
        target.receive(carried.file, carried.pieces)
        return
    stream = Pieces(carried.pieces)
    relative = held[carried.changed.base].relative_to(target.root).as_posix()
    with opened_base(target.root, relative) as base:
        target.receive(carried.file, rebuilt(stream, base, carried.file))
    if stream.read(1):
        raise DeliveryError("the bundle hides bytes behind what changed in a file", file=carried.file.path)


def deliver(
    root: Path,
    documents: Documents,
    manifest: Manifest,
    *,
    fetch: Fetch,
    verify: Verify,
    keep: int,
    vehicle: Vehicle | None = None,
) -> Outcome:
    """Make this generation the current one of `root`; `fetch` brings what is not there yet."""
    floor = _floor_of(vehicle)
    with wrap_os_errors("install the generation", root), opened(root, keep=keep) as target:
        is_first = floor is not None and is_new(floor)
        if floor is not None and is_first:
            _adopt(root, floor, verify)
        same = installed(root, documents, floor)
        if same is not None:
            with verify(same) as verdict:
                if verdict.passed:
                    target.forget_arrivals()
                    _accept(floor, documents, manifest)
                    return _outcome(same, manifest, ())
        elif floor is None or is_first:
            refuse_older(root, manifest)
        current = publish.current_number(root)
        if floor is not None and current is not None:
            publish.forget_above(root, current)  # left by a fallback; pruning keeps the newest, which must be good
        held = target.holdings()
        missing = _missing(manifest, held)
        target.require_room(missing)
        if missing:
            fetch(target, missing, held)
        if same is not None:
            held = {
                file.sha256: target.own(file, held[file.sha256]) for file in listed(manifest) if file.sha256 in held
            }
            set_aside_damaged(root, same)
        generation = switch(target, documents, manifest, held, verify=verify, keep=keep)
        _accept(floor, documents, manifest)
        if floor is not None:
            publish.forget_above(root, manifest.build.counter)
        return _outcome(generation, manifest, missing)


def _floor_of(vehicle: Vehicle | None) -> CounterFloor | None:
    """Return the vehicle's floor, made if it has no directory; FilesystemError if it could not be raised afterwards."""
    if vehicle is None:
        return None
    vehicle.make()
    if not os.access(vehicle.path, os.W_OK | os.X_OK):
        raise FilesystemError(
            "the counter floor cannot be raised here",
            file=vehicle.path,
            next_step="give this user the directory, or name another one: FLIGHTCACHE_VEHICLE=DIR",
        )
    return vehicle.floor


def _adopt(root: Path, floor: CounterFloor, verify: Verify) -> None:
    """Let a floor that was made just now begin with the generation that is here already, if that verifies."""
    current = publish.current_generation(root)
    if current is None:
        return
    with verify(current) as verdict:
        if verdict.passed and verdict.signed is not None:
            counter, sha256 = verdict.require().build.counter, sha256_bytes(verdict.signed.manifest)
            try:
                raise_floor(floor, counter, sha256)
            except Refusal as refusal:
                raise FilesystemError(refusal.reason.detail, file=floor.path) from refusal


def _accept(floor: CounterFloor | None, documents: Documents, manifest: Manifest) -> None:
    """Raise the floor to the generation that is current now, and end a fallback from it."""
    if floor is None:
        return
    try:
        raise_floor(floor, manifest.build.counter, sha256_bytes(documents.manifest))
        permit_fallback(floor, None)
    except Refusal as refusal:
        raise FilesystemError(
            "the generation is installed, but the counter floor was not raised",
            file=floor.path,
            facts={"reason": refusal.reason.detail},
            next_step="correct that, then install the same again: an older generation would still be accepted",
        ) from refusal


def _missing(manifest: Manifest, held: Mapping[Sha256, Path]) -> tuple[Listed, ...]:
    """Return the listed files whose content is not here, each content once."""
    return tuple({file.sha256: file for file in reversed(listed(manifest)) if file.sha256 not in held}.values())[::-1]


def _outcome(generation: Path, manifest: Manifest, received: Iterable[Listed]) -> Outcome:
    sizes = [file.bytes for file in received]
    return Outcome(generation, manifest.build.counter, manifest.build.manifest_hash, len(sizes), sum(sizes))


def receive(  # noqa: PLR0913  (all but three by name)
    source: IO[bytes],
    answers: IO[bytes],
    root: Path,
    *,
    trust: Trust,
    verify: Verify,
    keep: int = 1,
    vehicle: Vehicle | None = None,
    finish: Callable[[Outcome], dict[str, object]] = lambda _: {},
) -> Outcome:
    """Be the receiving end of `flightcache sync`: files come on `source`, requests go to `answers`.

    An error is sent to the sender, then raised. finish: called after the switch; what it returns is sent too.
    """
    try:
        documents, sends_deltas = receive_documents(source)
        manifest = trust(documents)
        asked = False

        def fetch(target: Target, files: tuple[Listed, ...], held: Mapping[Sha256, Path]) -> None:
            nonlocal asked
            asked = True
            needs = [Need(file.sha256, target.arrived_bytes(file)) for file in files]
            bases = _bases(target, files, held) if sends_deltas else {}
            offered = {sha256: base.sha256 for sha256, base in bases.items()}
            write_line(answers, {"need": needs, **({"bases": offered} if offered else {})})
            for file, need in zip(files, needs, strict=True):
                _take(source, target, file, bases.get(file.sha256), offset=need.offset)

        outcome = deliver(root, documents, manifest, fetch=fetch, verify=verify, keep=keep, vehicle=vehicle)
        if not asked:
            write_line(answers, {"need": []})
        more = finish(outcome)
    except Error as error:
        with suppress(OSError):  # the sender may be gone
            write_line(answers, {"error": str(error), "exit_code": error.exit_code})
        raise
    write_line(answers, {"done": {**outcome._asdict(), "generation": outcome.generation.name}, **more})
    return outcome


def _bases(target: Target, files: Iterable[Listed], held: Mapping[Sha256, Path]) -> dict[Sha256, Earlier]:
    """Return the earlier version of each of `files` that is held here; none where nothing here applies a delta."""
    if zstd_module() is None:
        return {}
    earlier = target.earlier_versions(held)
    large = sorted((file for file in files if file.bytes >= LEAST_BYTES), key=lambda file: -file.bytes)[:MOST_BASES]
    return {file.sha256: earlier[file.path] for file in large if file.path in earlier}


def _take(source: IO[bytes], target: Target, file: Listed, base: Earlier | None, *, offset: int) -> None:
    """Receive one file, whole or as what changed in `base`."""
    if base is None:
        target.receive(file, read_needed(source, file, offset=offset), offset=offset)
        return
    with opened_base(target.root, base.relative) as old:
        target.receive(file, read_changed(source, file, old, base.sha256, offset=offset), offset=offset)
