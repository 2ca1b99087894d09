"""Delivering a generation to a directory here: from a bundle, from a verified cache, or from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from provisioning.base.errors import Error
from provisioning.base.files import wrap_os_errors
from provisioning.base.hashing import Sha256
from provisioning.delivery.check import Trust, check_bundle, read_documents, read_files
from provisioning.delivery.compression import decompressing
from provisioning.delivery.contents import Documents, Listed, listed
from provisioning.delivery.stream import Need, read_needed, receive_documents, write_line
from provisioning.delivery.target import (
    Outcome,
    Target,
    Verify,
    installed,
    opened,
    refuse_older,
    set_aside_damaged,
    switch,
)
from provisioning.flight.manifest import Manifest

Fetch = Callable[[Target, tuple[Listed, ...]], None]
"""Brings files that the target lacks, each by `Target.receive`."""


def install_bundle(bundle: Path, root: Path, *, trust: Trust, verify: Verify, keep: int = 1) -> Outcome:
    """Install the bundle into the cache directory `root`: judged whole first, then written, verified, switched.

    Raises DeliveryError, VerificationError, BuildLockHeldError, FilesystemError; `current` then names what it named.
    """
    checked = check_bundle(bundle, trust)

    def fetch(target: Target, files: tuple[Listed, ...]) -> None:
        wanted = {file.path for file in files}
        with decompressing(bundle) as stream:
            read_documents(stream)
            for file, pieces in read_files(stream, checked.manifest):
                if file.path in wanted:
                    target.receive(file, pieces)
                else:
                    for _ in pieces:
                        pass

    return deliver(root, checked.documents, checked.manifest, fetch=fetch, verify=verify, keep=keep)


def deliver(
    root: Path, documents: Documents, manifest: Manifest, *, fetch: Fetch, verify: Verify, keep: int
) -> Outcome:
    """Make this generation the current one of `root`; `fetch` brings what is not there yet."""
    with wrap_os_errors("install the generation", root), opened(root, keep=keep) as target:
        same = installed(root, documents)
        if same is not None:
            with verify(same) as verdict:
                if verdict.passed:
                    target.forget_arrivals()
                    return _outcome(same, manifest, ())
        else:
            refuse_older(root, manifest)
        held = target.holdings()
        missing = _missing(manifest, held)
        target.require_room(missing)
        if missing:
            fetch(target, missing)
        if same is not None:
            held = {
                file.sha256: target.own(file, held[file.sha256]) for file in listed(manifest) if file.sha256 in held
            }
            set_aside_damaged(root, same)
        generation = switch(target, documents, manifest, held, verify=verify, keep=keep)
        return _outcome(generation, manifest, missing)


def _missing(manifest: Manifest, held: Mapping[Sha256, Path]) -> tuple[Listed, ...]:
    """Return the listed files whose content is not here, each content once."""
    return tuple({file.sha256: file for file in reversed(listed(manifest)) if file.sha256 not in held}.values())[::-1]


def _outcome(generation: Path, manifest: Manifest, received: Iterable[Listed]) -> Outcome:
    sizes = [file.bytes for file in received]
    return Outcome(generation, manifest.build.counter, manifest.build.manifest_hash, len(sizes), sum(sizes))


def receive(
    source: IO[bytes], answers: IO[bytes], root: Path, *, trust: Trust, verify: Verify, keep: int = 1
) -> Outcome:
    """Be the receiving end of `flightcache sync`: files come on `source`, requests go to `answers`.

    An error is told to the sender, then raised.
    """
    try:
        documents = receive_documents(source)
        manifest = trust(documents)
        asked = False

        def fetch(target: Target, files: tuple[Listed, ...]) -> None:
            nonlocal asked
            asked = True
            needs = [Need(file.sha256, target.arrived_bytes(file)) for file in files]
            write_line(answers, {"need": needs})
            for file, need in zip(files, needs, strict=True):
                target.receive(file, read_needed(source, file, offset=need.offset), offset=need.offset)

        outcome = deliver(root, documents, manifest, fetch=fetch, verify=verify, keep=keep)
        if not asked:
            write_line(answers, {"need": []})
    except Error as error:
        with suppress(OSError):  # the sender may be gone
            write_line(answers, {"error": str(error), "exit_code": error.exit_code})
        raise
    write_line(answers, {"done": {**outcome._asdict(), "generation": outcome.generation.name}})
    return outcome
