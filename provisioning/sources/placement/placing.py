"""How a source is to be read, from its layout and the evidence beside it; whether it is configured so."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, cast

from provisioning.base.errors import TileError
from provisioning.config import TileSource
from provisioning.config.schema import NO_PATH
from provisioning.sources.placement.evidence import evidence_stamp
from provisioning.sources.source import listed
from provisioning.sources.stores import kind_of, open_store

if TYPE_CHECKING:
    from provisioning.sources.placement.layouts import Detected

MOST_COMPARED = 100_000
"""Tiles of which `check_place` compares the place; a container may claim to hold any number."""
PLAIN = "{z}/{x}/{y}"
Scheme = Literal["auto", "xyz", "tms"]


def placed(source: TileSource) -> tuple[TileSource, tuple[str, ...]]:
    """Return a source with `scheme` and `pattern` as its layout and evidence ask for, and notes for the user.

    TileError if they contradict each other, or if only the user can tell (the message shows each place in words).
    """
    from provisioning.sources.placement.placement import place, scheme_of

    kind = kind_of(source)
    found = _layout_of(source) if kind == "xyz" and source.pattern == PLAIN else None
    read = replace(source, pattern=found.pattern) if found else source
    store = open_store(read)
    try:
        statements = store.statements() if source.evidence == "check" else []
        addresses = list(listed(store, read)) if statements or (found and found.either_way) else []
        asked = place(read, kind, addresses, statements)
    finally:
        store.close()
    if found and found.either_way and source.scheme == "auto" and not any(s.boxes or s.centre for s in statements):
        raise TileError(
            f"the layout is that of {found.writer}, whose rows may be counted from the north or the south",
            file=source.path, key="tiles.source.scheme",
            next_step='say which: tiles.source.scheme = "xyz" (grids with origin nw) or "tms" (origin sw)'
            f' (`flightcache init --source-scheme`), with tiles.source.pattern = "{found.pattern}"',
        )  # fmt: skip
    scheme = asked.scheme if asked.scheme != scheme_of(read, kind) else read.scheme
    pattern = "{z}/{y}/{x}" if asked.exchanged else read.pattern
    notes = (f"layout of {found.writer}: {found.pattern}",) if found else ()
    return replace(read, scheme=cast("Scheme", scheme), pattern=pattern), (*notes, *asked.notes)


def _layout_of(source: TileSource) -> Detected | None:
    from provisioning.sources.placement.layouts import detect

    found = detect(source.path)
    return None if found is None or found.pattern == PLAIN else found


def check_place(source: TileSource) -> None:
    """Raise TileError if a source does not lie where its own evidence says, or its pattern finds no tile."""
    from provisioning.sources.placement.layouts import detect
    from provisioning.sources.placement.placement import check_placed, place

    kind = kind_of(source)
    if kind in ("geotiff", "plugin"):
        return
    store = open_store(source)
    try:
        statements = store.statements() if source.evidence == "check" else []
        count = MOST_COMPARED if statements or kind != "xyz" else 1
        addresses = list(islice(store.addresses(), count))
    finally:
        store.close()
    if kind == "xyz" and not addresses and (found := detect(source.path)) and found.pattern != source.pattern:
        raise TileError(
            f"no file fits tiles.source.pattern = {source.pattern!r}; the layout is that of {found.writer}",
            file=source.path, key="tiles.source.pattern", next_step=f'set tiles.source.pattern = "{found.pattern}"',
        )  # fmt: skip
    check_placed(source, kind, place(source, kind, addresses, statements), addresses)


def place_stamp(source: TileSource, content: str = "") -> str:
    """Return what tells whether `check_place` must be asked again: settings, evidence files, and the store's own state.

    That is its `content` where that is known, else its stat. Of a directory its own times: a zoom level that comes or
    goes changes them.
    """
    if source.path == NO_PATH:
        return ""
    try:
        found = os.stat(source.path)
    except OSError:
        return ""
    own = content or f"{found.st_mtime_ns} {found.st_size} {found.st_ino} {found.st_ctime_ns}"
    return "\n".join([_settings(source), own, *evidence_stamp(source.path)])


def place_said(source: TileSource) -> str:
    """Return what decides `check_place` of a container beside the addresses of its tiles; empty for other sources."""
    if source.path == NO_PATH or kind_of(source) in ("xyz", "geotiff", "plugin"):
        return ""
    store = open_store(source)
    try:
        return "\n".join([_settings(source), *map(repr, store.statements())])
    finally:
        store.close()


def _settings(source: TileSource) -> str:
    return f"{source.path} {source.kind} {source.scheme} {source.pattern} {source.table} {source.evidence}"
