"""Words for a person and from one: counts, what a misspelt word was meant to be, command lines to be typed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from provisioning.base.printable import steers

MOST_NAMES = 2000
"""Names of a directory that are looked at: one of tiles may have a million."""


def counted(count: int, noun: str) -> str:
    """Return `1 file`, `2 files`, `1,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def meant(word: str, known: Iterable[object]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or nothing where none is near."""
    import difflib  # here, because the verifier on a vehicle starts without it

    names = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(word.casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def columns(rows: Iterable[Sequence[str]], *, left: int = 0) -> list[str]:
    """Return a line for each row, all of as many cells; the first `left` columns stand at their left, others right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'<' if number < left else '>'}{width}}}" for number, width in enumerate(widths))
    return [form.format(*row).rstrip() for row in rows]


def missing_part(path: str | os.PathLike[str]) -> Path | None:
    """Return `path`, or the first directory on the way to it, that is not there; None where all of it is."""
    missing = None
    with contextlib.suppress(OSError, ValueError):
        for part in (Path(path), *Path(path).parents):
            if os.path.lexists(part):
                break
            missing = part
    return missing


def meant_file(path: str | os.PathLike[str]) -> str:
    """Return what `meant` says of the first part of `path` that is not there, among the names beside it."""
    missing = missing_part(path)
    if missing is None:
        return ""
    with contextlib.suppress(OSError), os.scandir(missing.parent) as entries:
        return meant(missing.name, (entry.name for entry in itertools.islice(entries, MOST_NAMES)))
    return ""


def typed(*words: str | os.PathLike[str]) -> str:
    """Return `words` as one command line: names with spaces and other signs of the shell are quoted.

    What steers a terminal is written as Bash and Zsh read it behind a `$`.
    """
    import shlex  # as above

    texts = [os.fspath(word) for word in words]
    return " ".join(_bash_string(text) if steers(text) else shlex.quote(text) for text in texts)


def _bash_string(text: str) -> str:
    def escaped(sign: str) -> str:
        return "\\" + sign if sign in "\\'" else f"\\u{ord(sign):04x}" if steers(sign) else sign

    return "$'" + "".join(map(escaped, text)) + "'"
