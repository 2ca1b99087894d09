"""Directory layouts of other programs, found by the names of a few files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from provisioning.base.errors import TileError
from provisioning.config import TileSource
from provisioning.sources.source import EVERYTHING
from provisioning.sources.xyz import Folder, Layout, components, names_in

SAMPLE = 64
"""Files that are looked at."""
NAMES = 200
"""Names of one directory that are looked at."""
DEEPEST = 10
IMAGE = re.compile(r"(?:@[23]x)?(?:\.(?:png|jpe?g|webp|avif|tif))?(?:\.tile)?$", re.IGNORECASE)
SHARES = 8
"""Subfolders of each folder that are gone into: the whole tree is sampled, not its first branch."""


class Known(NamedTuple):
    """A layout: who writes it, its pattern, and whether its rows may be counted either way."""

    writer: str
    pattern: str
    either_way: bool = False


KNOWN = (
    Known("slippy map, TMS", "{z}/{x}/{y}"),
    Known("ArcGIS exploded cache", "L{z:02d}/R{y:08x}/C{x:08x}"),
    Known("SAS.Planet", "z{z+1}/{x/1024}/x{x}/{y/1024}/y{y}"),
    Known("MapProxy tc, TileCache", "{z:02d}/{x/1000000:03d}/{x/1000%1000:03d}/{x%1000:03d}/"
          "{y/1000000:03d}/{y/1000%1000:03d}/{y%1000:03d}", either_way=True),
    Known("MapProxy mp", "{z:02d}/{x/10000:04d}/{x%10000:04d}/{y/10000:04d}/{y%10000:04d}", either_way=True),
    Known("Bing, MapProxy quadkey", "{q}"),
    Known("flat files", "{z}_{x}_{y}"),
)  # fmt: skip


class Detected(NamedTuple):
    """The layout of a directory: its writer, pattern, and whether its rows must be asked for."""

    writer: str
    pattern: str
    either_way: bool


def detect(root: Path) -> Detected | None:
    """Return the layout that most files of a directory fit, None if none fits. TileError if it cannot be read."""
    files = list(_sample(root))
    if any(name.endswith((".bundle", ".bundlx")) for name in files):
        raise TileError(
            "the directory is an ArcGIS compact cache (.bundle files)", file=root, key="tiles.source.path",
            next_step="export it as an exploded cache (ExportTileCache, storage format EXPLODED) or a .tpkx as MBTiles",
        )  # fmt: skip
    votes: Counter[Detected] = Counter()
    for name in files:
        for known in KNOWN:
            pattern = _fits(root, known.pattern, name)
            if pattern:
                votes[Detected(known.writer, pattern, known.either_way)] += 1
                break
    return votes.most_common(1)[0][0] if votes else None


def _sample(root: Path) -> Iterator[str]:
    """Yield paths of image files below `root`, from all parts of the tree."""
    left = SAMPLE
    for depth in range(DEEPEST):
        for folder in _folders(root, "", depth):
            names = names_in(root / folder)[:NAMES]
            files = [name for name in names if name.lower().endswith((".bundle", ".bundlx")) or _is_image(name)]
            for name in files[:8]:
                if left and not os.path.isdir(root / folder / name):
                    left -= 1
                    yield os.path.join(folder, name)


def _is_image(name: str) -> bool:
    match = IMAGE.search(name)
    return bool(match and match[0])


def _folders(root: Path, below: str, depth: int) -> Iterator[str]:
    if depth == 0:
        yield below
        return
    names = sorted(names_in(root / below), key=lambda name: (len(name), name), reverse=True)
    entered = 0
    for name in names[:NAMES]:
        path = os.path.join(below, name)
        if entered < SHARES and os.path.isdir(root / path):
            entered += 1
            yield from _folders(root, path, depth - 1)


def _fits(root: Path, pattern: str, name: str) -> str:
    """Return `pattern`, with the folders above it and the ending before the extension, if it gives a tile of `name`."""
    depth = len(components(pattern)) - 1
    parts = name.split("/")
    above, rest = "/".join(parts[: len(parts) - depth - 1]), "/".join(parts[len(parts) - depth - 1 :])
    if len(parts) <= depth or any(part.isdigit() for part in above.split("/")):
        return ""
    ending = IMAGE.search(rest)
    literal = (ending[0] if ending else "").lower()
    kept = "@2x" if "@2x" in literal else "@3x" if "@3x" in literal else ""
    kept += (ending[0][len(kept) : -len(".tile")] if ending else "") if literal.endswith(".tile") else ""
    whole = (f"{above}/" if above else "") + pattern + kept
    if "{" in above or "{" in kept:
        return ""
    layout = Layout(TileSource(path=root, pattern=whole))
    folder, _, leaf = name.rpartition("/")
    fixed = layout.fixed_by(folder)
    found = layout.tile_of(Folder(folder, fixed), EVERYTHING)(leaf) if fixed is not None else None
    return whole if found else ""
