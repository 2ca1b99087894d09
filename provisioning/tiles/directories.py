"""Bring the catalogue up to date with an XYZ directory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from provisioning.errors import TileError
from provisioning.tiles.cover import Cover
from provisioning.tiles.judging import Court, Suspect
from provisioning.tiles.source import RACY_NS, file_stamp
from provisioning.tiles.writer import Writer
from provisioning.tiles.xyz import Folder, Layout, Listing, is_settled, list_folder, listing_digest

Address = tuple[int, int, int]


def update_directory(layout: Layout, cover: Cover, court: Court, writer: Writer, *, mode: str, now_ns: int) -> None:
    """Record every tile of `cover` below the source's directory.

    `mode` "stat" looks at every file's stat, "dirs" only at those in directories whose own times moved, "full" reads
    every file. TileError if a directory cannot be read or two files are the same tile.
    """
    select = "SELECT path, stamp, listing FROM folder WHERE source = ?"
    known = {path: (stamp, digest) for path, stamp, digest in writer.db.execute(select, (writer.source,))}
    try:
        for folder in layout.folders(cover):
            stamp, digest = known.pop(folder.path, ("", None))
            now = file_stamp(layout.root / folder.path, now_ns=now_ns)
            if mode == "dirs" and now and stamp == now:
                continue
            listing = list_folder(layout.root / folder.path, layout.tile_of(folder, cover))
            found = listing_digest(listing)
            if found != digest or mode == "full":
                _update_folder(layout, folder, listing, cover, court, writer, trust=mode != "full", now_ns=now_ns)
                writer.folder(folder.path, stamp=now, listing=found if is_settled(listing, now_ns=now_ns) else None)
            elif stamp != now:
                writer.folder(folder.path, stamp=now, listing=found)
        for path in known:
            _forget_folder(layout, path, cover, writer)
    finally:
        writer.flush()


def _update_folder(
    layout: Layout, folder: Folder, listing: Listing, cover: Cover, court: Court, writer: Writer, *, trust: bool, now_ns: int
) -> None:  # fmt: skip
    tiles = _addressed(layout, folder, listing, cover)
    for found in court.judged(_suspects(layout, tiles, writer, trust=trust)):
        writer.tile(found, settled=max(found.suspect.mtime_ns, found.suspect.ctime_ns) <= now_ns - RACY_NS)
    writer.remove(at for at in _catalogued(folder, writer) if at not in tiles and cover.holds(*at))


Entry = tuple[str, tuple[str, int, int, int, int, int]]


def _addressed(layout: Layout, folder: Folder, listing: Listing, cover: Cover) -> dict[Address, Entry]:
    """Return suffix and stat of each tile of a folder."""
    tile_of = layout.tile_of(folder, cover)
    tiles: dict[Address, Entry] = {}
    for row in listing:
        found = tile_of(row[0])
        assert found is not None
        z, x, y, suffix = found
        if (z, x, y) in tiles:
            raise TileError(
                f"two files are tile {z}/{x}/{y}",
                file=layout.root / folder.path / row[0],
                facts={"other": tiles[z, x, y][1][0]},
                next_step="remove one of them",
            )
        tiles[z, x, y] = suffix, row
    return tiles


def _suspects(layout: Layout, tiles: dict[Address, Entry], writer: Writer, *, trust: bool) -> Iterator[Suspect]:
    """Yield the tiles whose stat is not the remembered one."""
    for (z, x, y), (suffix, (_, _, size, mtime_ns, ctime_ns, inode)) in tiles.items():
        known = writer.known(z, x, y)
        now = (mtime_ns, ctime_ns, inode, size, suffix)
        if not (trust and known and known[1:6] == now):
            yield Suspect(z, x, y, suffix, size, mtime_ns, ctime_ns, inode, known, layout.path(z, x, y, suffix))


def _catalogued(folder: Folder, writer: Writer) -> list[Address]:
    """Return the tiles that the catalogue has from a folder, or could have: those with the numbers its name fixes."""
    where = "".join(f" AND {name} = ?" for name in folder.fixed)
    select = f"SELECT z, x, y FROM tile WHERE source = ?{where}"  # noqa: S608 - names are z, x, y
    return writer.db.execute(select, (writer.source, *folder.fixed.values())).fetchall()


def _forget_folder(layout: Layout, path: str, cover: Cover, writer: Writer) -> None:
    """Drop a remembered folder; its tiles inside the area are gone, those outside were not looked at."""
    fixed = layout.fixed_by(path)
    gone = not os.path.isdir(layout.root / path)
    if fixed is not None and gone:
        writer.remove(at for at in _catalogued(Folder(path, fixed), writer) if cover.holds(*at))
    writer.without_folder(path)
