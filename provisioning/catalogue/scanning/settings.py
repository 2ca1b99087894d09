"""The settings of a scan as digests: what they were decides what of the catalogue still holds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from provisioning.area.area import area_facts
from provisioning.base.hashing import Sha256, digest_of
from provisioning.config import Selection, Tiles, TileSource
from provisioning.sources.pixels.facts import decoder_facts
from provisioning.sources.source import source_name

INSPECTION = "judge"
"""The name under which catalogues keep `inspection_facts`: another one would have every tile inspected again."""
INSPECTION_RULE = "2"
"""Counted up when the same pixels are found to be something else: every tile is inspected again."""
MOVING = "the source changed while it was read: run doit again when it is at rest"


def inspection_facts(tiles: Tiles) -> Sha256:
    """Return the digest of all that decides what the inspection of a tile's pixels finds."""
    return digest_of(
        {
            "decoder": decoder_facts(),
            "rule": INSPECTION_RULE,
            "max_pixels": tiles.max_pixels,
            "nodata": tiles.nodata,
            "blank": tiles.blank,
        }
    )


def choice_facts(selection: Selection) -> Sha256:
    """Return the digest of all settings that decide which tiles of the stores are the corpus."""
    sources = [
        {"store": store_facts(s, s.kind, root=selection.root), "captured": s.captured,
         "priority": s.priority, "zooms": s.zooms, "zoom_priority": {str(z): p for z, p in s.zoom_priority.items()}}
        for s in selection.tiles.source
    ]  # fmt: skip
    return digest_of({
        "area": area_facts(selection.area, selection.takeoff), "sources": sources,
        "max_empty": selection.tiles.max_empty, INSPECTION: inspection_facts(selection.tiles), **_asked(selection),
    })  # fmt: skip


def _asked(selection: Selection) -> dict[str, str]:
    """Return what is passed to stores in Python beside the area."""
    is_asked = any(source.plugin or source.store is not None for source in selection.tiles.source)
    return {"sector_class": selection.sector_class} if is_asked else {}


def store_facts(source: TileSource, kind: str, *, root: Path, identity: str = "") -> Sha256:
    """Return the digest of what makes a source the store that was scanned before; one that moves with `root` is.

    `identity` is what a plugin declares that its bytes depend on.
    """
    is_plugin = bool(source.plugin) or source.store is not None
    path = os.path.relpath(source.path, root) if source.path.is_relative_to(root) else source.path
    return digest_of({
        "name": source_name(source), "path": path, "kind": kind, "pattern": source.pattern,
        "scheme": source.scheme, "table": source.table, "values": source.values,
        **({"plugin": source.plugin, "options": _text(source.options), "identity": identity} if is_plugin else {}),
    })  # fmt: skip


def _text(options: Mapping[str, object]) -> str:
    """Return options of a plugin, any values of TOML, as one text."""
    return json.dumps(options, sort_keys=True, default=repr)
