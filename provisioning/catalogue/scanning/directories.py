"""Bring the catalogue up to date with an XYZ directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing

from provisioning.area.cover import Cover, Range
from provisioning.base.errors import TileError
from provisioning.base.events import warn
from provisioning.base.named import NamedTuple
from provisioning.catalogue import database
from provisioning.catalogue.scanning.inspecting import Candidate, Inspector
from provisioning.catalogue.scanning.settings import MOVING
from provisioning.catalogue.scanning.writer import Writer
from provisioning.sources import fingerprint
from provisioning.sources.fingerprint import Listing
from provisioning.sources.source import RACY_NS, file_stamp, reading
from provisioning.sources.xyz import Folder, Layout, is_settled

Address = tuple[int, int, int]
Entry = tuple[str, tuple[str, int, int, int, int, int]]
"""Suffix of a tile's file name, and its row of the folder's listing."""


WHOLE, PART = b"w", b"p"
"""Form of a folder's fingerprint: of all its files, or, where most are not of the area, of its tiles alone."""
MANY_TILES = 50_000
"""From here on looking in several processes saves more than starting them costs."""


class _Visit(NamedTuple):
    """A folder; how it and its files looked, and how it looks now."""

    folder: Folder
    stamp: str
    digest: bytes | None
    now: str


class DirectoryUpdate(NamedTuple):
    """One visit to the XYZ directory of the source `name`.

    `mode` "stat" looks at every file's stat, "dirs" only at those in directories whose own times moved, "full" reads
    every file.
    """

    name: str
    layout: Layout
    cover: Cover
    inspector: Inspector
    writer: Writer
    mode: str
    now_ns: int
    begin_digest: Callable[[], None]
    """Called once, when changes are in the catalogue and what is still to be looked at has probably not changed."""

    def run(self) -> None:
        """Record every tile of `cover`; TileError if a directory cannot be read or two files are the same tile."""
        select = "SELECT path, stamp, listing FROM folder WHERE source = ?"
        known = {path: (stamp, digest) for path, stamp, digest in self.writer.db.execute(select, (self.writer.source,))}
        try:
            visits = self._visits(known)
            above = {os.path.dirname(visit.folder.path) for visit in visits}
            before = self._times({visit.folder.path for visit in visits} | above)
            read = self._make_all(visits)
            self._say_what_moved(read, above, before)
            for path in known:
                self._forget(path)
        finally:
            self.writer.flush()

    def _visits(self, known: dict[str, tuple[str, bytes | None]]) -> list[_Visit]:
        """Return the visits to make, taking what is remembered from `known`.

        First come folders whose own times moved: there tiles came or went, and what follows from that need not wait
        until all others are looked at.
        """
        visits = [
            _Visit(folder, *known.pop(folder.path, ("", None)), file_stamp(self._path(folder), now_ns=self.now_ns))
            for folder in self.layout.folders(self.cover)
        ]
        return sorted(visits, key=lambda visit: visit.stamp == visit.now)

    def _times(self, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return mtime and ctime of folders of the source: they move when a name in the folder comes or goes."""
        return {path: _times(os.path.join(self.layout.root, path)) for path in paths}

    def _say_what_moved(self, read: list[Folder], above: set[str], before: Mapping[str, tuple[int, int]]) -> None:
        """Warn if names came or went, as rsync makes them, in folders that were read, or folders beside them.

        What was read may be of two states. The next scan reads these folders again: their times are not those that are
        remembered.
        """
        after = self._times({folder.path for folder in read} | above)
        moved = {path for path, times in after.items() if times != before[path]}
        if moved:
            tiles = sum(len(self._catalogued(self.layout.unflipped(f.fixed))) for f in read if f.path in moved)
            warn("tiles.moving", source=self.name, tiles=tiles, note=MOVING)

    def _make_all(self, visits: list[_Visit]) -> list[Folder]:
        """Make the visits; return the folders whose tiles were read.

        To the folders of a large directory other processes look ahead.
        """
        is_large = self._is_large()
        whole = [is_large and (visit.digest or b"")[:1] == WHOLE for visit in visits]
        paths = [self._path(visit.folder) for visit, ahead in zip(visits, whole, strict=True) if ahead]
        read: list[Folder] = []
        digest_begun = False
        with closing(fingerprint.ahead(paths)) as looks:
            for visit, ahead in zip(visits, whole, strict=True):
                if read and is_large and not digest_begun and visit.stamp == visit.now:
                    self.writer.flush()
                    self.begin_digest()
                    digest_begun = True
                seen = next(looks, None) if ahead else None
                if self._visit(visit, WHOLE + seen if seen else None):
                    read.append(visit.folder)
        return read

    def _is_large(self) -> bool:
        (tiles,) = self.writer.db.execute("SELECT sum(count) FROM col").fetchone()
        return self.mode == "stat" and (tiles or 0) >= MANY_TILES and hasattr(os, "memfd_create")

    def _path(self, folder: Folder) -> str:
        return os.path.join(self.layout.root, folder.path)

    def _visit(self, visit: _Visit, seen: bytes | None) -> bool:
        """Look at a folder, if nobody has `seen` it yet; tell whether its tiles were looked at, too."""
        folder, stamp, digest, now = visit
        if self.mode == "dirs" and now and stamp == now:
            return False
        part, files = self._part(folder), None
        if seen is None and (digest or b"")[:1] == WHOLE:  # as it was it may be without one name being understood
            files = _files(self._path(folder))
            seen = WHOLE + fingerprint.digest(files)
        if seen is None or seen + part != digest or self.mode == "full":
            tile_of = self.layout.tile_of(folder, self.cover)
            form, listing = _listed(self._path(folder), tile_of, files)
            seen = form + fingerprint.digest(listing)
            if seen + part != digest or self.mode == "full":
                self._update(folder, [row for row in listing if tile_of(row[0])])
                settled = is_settled(listing, now_ns=self.now_ns)
                self.writer.folder(folder.path, stamp=now if settled else "", listing=seen + part if settled else None)
                return True
        if stamp != now:
            self.writer.folder(folder.path, stamp=now, listing=seen + part)
        return False

    def _part(self, folder: Folder) -> bytes:
        """Return what tells whether the same part of a folder was asked for: the area may have grown within it."""
        (z, last_z), (x, last_x) = (folder.fixed.get(name, (0, 1)) for name in "zx")
        return self.cover.check_of(z, x) if z == last_z and x == last_x else self.cover.check

    def _update(self, folder: Folder, listing: Listing) -> None:
        tiles = self._addressed(folder, listing)
        for found in self.inspector.inspected(self._candidates(tiles)):
            self.writer.tile(
                found, settled=max(found.candidate.mtime_ns, found.candidate.ctime_ns) <= self.now_ns - RACY_NS
            )
        self.writer.remove(
            at
            for at in self._catalogued(self.layout.unflipped(folder.fixed))
            if at not in tiles and self.cover.holds(*at)
        )

    def _addressed(self, folder: Folder, listing: Listing) -> dict[Address, Entry]:
        """Return suffix and stat of each tile of a folder."""
        tile_of = self.layout.tile_of(folder, self.cover)
        tiles: dict[Address, Entry] = {}
        for row in listing:
            found = tile_of(row[0])
            assert found is not None
            z, x, y, suffix = found
            if (z, x, y) in tiles:
                raise TileError(
                    f"two files are tile {z}/{x}/{y}",
                    file=self.layout.root / folder.path / row[0],
                    facts={"other": tiles[z, x, y][1][0]},
                    next_step="remove one of them",
                )
            tiles[z, x, y] = suffix, row
        return tiles

    def _candidates(self, tiles: dict[Address, Entry]) -> Iterator[Candidate]:
        """Yield the tiles whose stat is not the remembered one."""
        for (z, x, y), (suffix, (_, _, size, *numbers)) in tiles.items():
            mtime_ns, ctime_ns, inode = map(database.storable, numbers)
            known = self.writer.known(z, x, y)
            now = (mtime_ns, ctime_ns, inode, size, suffix)
            if self.mode == "full" or not known or known[1:6] != now:
                path = self.layout.path(z, x, y, suffix)
                yield Candidate(z, x, y, suffix, size, mtime_ns, ctime_ns, inode, known, path)

    def _catalogued(self, fixed: Mapping[str, Range]) -> list[Address]:
        """Return the catalogued tiles with the numbers that a folder's name fixes."""
        where, numbers = "", []
        for name, (low, high) in fixed.items():
            where += f" AND {name} = ?" if low == high else f" AND {name} BETWEEN ? AND ?"
            numbers += [low] if low == high else [low, high]
        select = f"SELECT z, x, y FROM tile WHERE source = ?{where}"  # noqa: S608 - names are z, x, y
        return self.writer.db.execute(select, (self.writer.source, *numbers)).fetchall()

    def _forget(self, path: str) -> None:
        """Drop a remembered folder; its tiles inside the area are gone, those outside were not looked at."""
        fixed = self.layout.fixed_by(path)
        if fixed is not None and not os.path.isdir(self.layout.root / path):
            self.writer.remove(at for at in self._catalogued(fixed) if self.cover.holds(*at))
        self.writer.without_folder(path)


def _times(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # it is gone
        return 0, 0
    return status.st_mtime_ns, status.st_ctime_ns


def _files(path: str, names: Iterable[str] | None = None) -> Listing:
    """Return the files of a folder, or those of some names. TileError if it cannot be read."""
    with reading("tile directory", path, next_step="check its owner and mode"):
        return fingerprint.read_listing(path, names)


def _listed(path: str, tile_of: Callable[[str], object], files: Listing | None) -> tuple[bytes, Listing]:
    """Return a folder's files, read already or not: all of them, or its tiles alone where they are the smaller half."""
    with reading("tile directory", path, next_step="check its owner and mode"):
        names = os.listdir(path) if files is None else [row[0] for row in files]
    kept = [name for name in names if tile_of(name)]
    if len(names) <= 2 * len(kept):
        return WHOLE, _files(path, names) if files is None else files
    return PART, _files(path, kept)
