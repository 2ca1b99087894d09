"""The generations that a cache directory still keeps: what the sender compares a file with, if the vehicle holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import read_regular
from provisioning.base.errors import DeliveryError, Error
from provisioning.base.hashing import Sha256, sha256_fd
from provisioning.delivery.bundle.contents import Listed, listed
from provisioning.delivery.bundle.delta import Base, opened_base
from provisioning.flight import publish
from provisioning.flight.manifest import MAX_BYTES, Manifest, parse
from provisioning.flight.publish.generations import numbers_in

Bases = Callable[[Sha256], AbstractContextManager["Base | None"]]
"""Opens the file with a digest, if it is here and its bytes are those."""


class Generation(NamedTuple):
    """A generation that is kept: its cache directory, its path there, its Manifest, which nobody verified."""

    cache: Path
    relative: str
    manifest: Manifest

    def file(self, path: str) -> Listed | None:
        """Return what the Manifest lists as `path`."""
        return next((file for file in listed(self.manifest) if file.path == path), None)

    @contextmanager
    def opened(self, file: Listed) -> Iterator[Base | None]:
        """Open a listed file; None if it is not there, or has other bytes than the Manifest lists."""
        with ExitStack() as stack:
            yield self._same(stack, file)

    def _same(self, stack: ExitStack, file: Listed) -> Base | None:
        with suppress(Error, OSError):
            base = stack.enter_context(opened_base(self.cache, f"{self.relative}/{file.path}"))
            if base.size == file.bytes and sha256_fd(base.fd) == file.sha256:
                return base
        return None


def no_bases(_: Sha256) -> AbstractContextManager[Base | None]:
    """Open nothing: every file goes whole."""
    return nullcontext()


def cache_of(path: Path) -> Path:
    """Return the cache directory of a path that names it, or one of its generations."""
    real = Path(os.path.realpath(path))
    return real.parent.parent if real.parent.name == publish.GENERATIONS else path


def kept(cache: Path) -> tuple[Generation, ...]:
    """Return the generations in `cache` whose Manifest can be read, newest first."""
    found = []
    for number in reversed(numbers_in(cache, publish.GENERATIONS)):
        with suppress(Error, OSError):
            found.append(_generation(cache, number))
    return tuple(found)


def generation_since(cache: Path, number: int) -> Generation:
    """Return generation `number` of `cache`; DeliveryError if it is not kept or its Manifest cannot be read."""
    numbers = numbers_in(cache, publish.GENERATIONS)
    if number not in numbers:
        raise DeliveryError(
            f"generation {number} is not kept here",
            file=cache / publish.GENERATIONS,
            facts={"kept": ", ".join(str(each) for each in numbers if each != publish.current_number(cache)) or "none"},
            next_step="name one that is kept, or leave --since out; publish.keep_generations says how many are kept",
        )
    return _generation(cache, number)


def _generation(cache: Path, number: int) -> Generation:
    relative = f"{publish.GENERATIONS}/{publish.dir_name(number)}"
    return Generation(cache, relative, parse(read_regular(cache / relative / publish.MANIFEST, limit=MAX_BYTES)))


def bases_in(cache: Path) -> Bases:
    """Return what opens the files of the generations that `cache` keeps."""
    files = {file.sha256: (each, file) for each in kept(cache) for file in listed(each.manifest)}

    def find(sha256: Sha256) -> AbstractContextManager[Base | None]:
        each, file = files.get(sha256, (None, None))
        return each.opened(file) if each and file else nullcontext()

    return find
