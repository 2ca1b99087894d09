"""Which version of a Python distribution is installed here, without importing it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata


@functools.cache
def own_version() -> str:
    """Return the version of this distribution, read once in a process."""
    return importlib.metadata.version("flightcache")


def installed_version(*names: str) -> str | None:
    """Return the version of the first of the distributions `names` that is installed, or None."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None
