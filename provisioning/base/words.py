"""Words that a person types: what a misspelt one was meant to be, and command lines that a shell takes as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable


def meant(word: str, known: Iterable[object]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or nothing where none is near."""
    import difflib  # here, because the verifier on a vehicle starts without it

    names = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(word.casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def typed(*words: str | os.PathLike[str]) -> str:
    """Return `words` as one command line: names with spaces and other signs of the shell are quoted."""
    import shlex  # as above

    return shlex.join(os.fspath(word) for word in words)
