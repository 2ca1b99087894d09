"""Names of tile sources that flight.toml leaves to us: those of their files, as far as a Manifest can hold them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from provisioning.base.printable import is_word
from provisioning.config.schema import NO_PATH, TileSource

MOST_CHARACTERS = 120
_ILLEGAL = r"[^!-~]+"


def with_names(sources: Sequence[TileSource], root: Path = NO_PATH) -> tuple[TileSource, ...]:
    """Return the sources of a flight.toml in `root`, each with a name: its own, or else the legal form of its file's.

    Of sources with the same file name the first keeps it; the others get `-2`, `-3`, … before the suffix. A name that
    was given is never changed.
    """
    taken = {source.name for source in sources if source.name}
    named = []
    for source in sources:
        name = source.name or _free(default_name(source), taken)
        taken.add(name)
        named.append(replace(source, name=name, root=root))
    return tuple(named)


def default_name(source: TileSource) -> str:
    """Return the legal name that a source has by its file, directory or plugin."""
    own = source.plugin if source.path == NO_PATH else source.path.name
    legal = own if is_word(own) else re.sub(_ILLEGAL, "_", own)
    return legal[-MOST_CHARACTERS:] or "tiles"


def _free(name: str, taken: set[str]) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    numbered = (f"{stem}{f'-{n}' if n > 1 else ''}{suffix}" for n in itertools.count(1))
    return next(each for each in numbered if each not in taken)
