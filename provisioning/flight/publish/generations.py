"""Where generations are, what they are called, which one is current, and the counter that never goes back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from provisioning.base.disk import directories
from provisioning.base.errors import FilesystemError

CURRENT = "current"
GENERATIONS = "generations"
BUILD = ".build"
STAGE = f"{BUILD}/stage"
COUNTER = f"{BUILD}/counter"
MANIFEST = "Manifest.json"
SIDECAR = ".sha256"
SIGNATURE = ".sig"
MORE_SIGNATURES = "Manifest.json.sigs"
MANIFEST_FILES = (MANIFEST, MANIFEST + SIDECAR, MANIFEST + SIGNATURE)


def current_generation(cache: Path) -> Path | None:
    """Return the directory that `current` names, or None if it names none."""
    number = current_number(cache)
    if number is None:
        return None
    return cache / GENERATIONS / dir_name(number) if number in numbers_in(cache, GENERATIONS) else None


def earlier_generation(cache: Path, *, to: int | None = None) -> Path:
    """Return generation `to`, or the newest kept one that is older than the current; FilesystemError if it is gone."""
    current = current_number(cache) or 0
    kept = [number for number in numbers_in(cache, GENERATIONS) if number != current]
    wanted = [number for number in kept if (number < current if to is None else number == to)]
    if not wanted:
        raise FilesystemError(
            "there is no earlier generation to return to" if to is None else f"generation {to} is not kept",
            file=cache / GENERATIONS,
            key="publish.keep_generations",
            facts={"current": current, "kept besides": ", ".join(map(str, kept)) or "none"},
            next_step="restore in flight.toml and its inputs what the earlier flight had, then run doit",
        )
    return cache / GENERATIONS / dir_name(wanted[-1])


def next_counter(cache: Path) -> int:
    """Return 1 + the highest counter that was ever published here, as far as anything here remembers it."""
    numbers = numbers_in(cache, GENERATIONS)
    return 1 + max(remembered(cache), current_number(cache) or 0, *numbers)


def dir_name(number: int) -> str:
    """Return the directory name of generation `number`."""
    return f"{number:06d}"


def numbers_in(cache: Path, relative: str) -> list[int]:
    """Return the numbers of the generations in a directory below `cache`, ascending."""
    names = directories.names_in(cache, relative)
    return sorted(int(name) for name in names if _is_number(name))


def _is_number(name: str) -> bool:
    """Return whether `name` is the one name of a number: `0000001` is nobody's generation 1, and is left alone."""
    is_digits = name.isascii() and name.isdigit() and 6 <= len(name) <= 18
    return is_digits and name == dir_name(int(name))


def current_number(cache: Path) -> int | None:
    """Return the number in `current`, whether or not that generation is there; None if it is no such link."""
    try:
        directory, _, name = os.readlink(cache / CURRENT).rstrip("/").partition("/")
    except FileNotFoundError:
        return None
    except OSError as error:
        # Only "not a link" means that nothing is current; taking an I/O error for it would prune what is flown.
        if error.errno != errno.EINVAL:
            raise
        return None
    return int(name) if directory == GENERATIONS and _is_number(name) else None


def remembered(cache: Path) -> int:
    """Return the highest counter written down outside the generations; 0 if none. What cannot be read is an error."""
    try:
        with directories.opened(cache, BUILD) as build:
            # Without O_NONBLOCK a FIFO would wait for a writer that never comes.
            fd = os.open("counter", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=build)
        with open(fd, "rb", buffering=0) as file:
            return int(file.read(20))
    except (FileNotFoundError, ValueError):
        return 0


def remember(cache: Path, number: int) -> None:
    """Write `number` down, durably, if it is the highest so far."""
    if number > remembered(cache):
        directories.make(cache, BUILD)
        directories.write_durably(cache, COUNTER, f"{number}\n".encode())
