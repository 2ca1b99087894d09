"""XYZ directories: one file per tile. A folder whose listing and stats are as remembered costs one digest."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from provisioning.area.cover import Cover, Rows, count
from provisioning.base.errors import TileError
from provisioning.config import TileSource
from provisioning.sources.fingerprint import Listing
from provisioning.sources.source import MOST_TILE_BYTES, RACY_NS

NUMBER = "(0|[1-9][0-9]{0,8})"
MOST_ROWS = 1 << 16
"""Rows of a column looked up by name; beyond them names are parsed one by one, to bound memory."""


class Folder(NamedTuple):
    """A directory that holds tiles: its path below the source, and what of z, x, y its name fixes."""

    path: str
    fixed: Mapping[str, int]


class Layout:
    """The pattern of a source, taken apart."""

    def __init__(self, source: TileSource) -> None:
        self.root = source.path
        self.tms = source.scheme == "tms"
        *folders, self.leaf = source.pattern.strip("/").split("/")
        seen: set[str] = set()
        self._folders = [_compiled(folder, seen) for folder in folders]
        self._leaf = _compiled(self.leaf, seen, suffix=r"(\.[A-Za-z0-9]{1,8})?")
        self._pattern = source.pattern.strip("/")

    def path(self, z: int, x: int, y: int, suffix: str) -> Path:
        """Return the file of a tile."""
        row = (1 << z) - 1 - y if self.tms else y
        path = self._pattern.replace("{z}", str(z)).replace("{x}", str(x)).replace("{y}", str(row))
        return self.root / (path + suffix)

    def folders(self, cover: Cover) -> Iterator[Folder]:
        """Yield the directories that may hold tiles of `cover`, in the order of their names."""
        yield from self._below("", {}, 0, cover)

    def _below(self, path: str, fixed: dict[str, int], depth: int, cover: Cover) -> Iterator[Folder]:
        if depth == len(self._folders):
            yield Folder(path, fixed)
            return
        expression, names = self._folders[depth]
        for name in sorted(names_in(self.root / path)):
            match = expression.fullmatch(name)
            known = fixed | dict(zip(names, map(int, match.groups()), strict=True)) if match else {}
            below = os.path.join(path, name)
            if match and self._may_hold(known, cover) and os.path.isdir(self.root / below):
                yield from self._below(below, known, depth + 1, cover)

    def fixed_by(self, path: str) -> dict[str, int] | None:
        """Return what of z, x, y a folder's path fixes, None if it does not fit the pattern."""
        fixed: dict[str, int] = {}
        parts = path.split("/") if path else []
        if len(parts) != len(self._folders):
            return None
        for part, (expression, names) in zip(parts, self._folders, strict=True):
            match = expression.fullmatch(part)
            if not match:
                return None
            fixed |= zip(names, map(int, match.groups()), strict=True)
        return self.unflipped(fixed)

    def unflipped(self, fixed: dict[str, int]) -> dict[str, int]:
        """Return folder numbers as XYZ ones; a row counted from the south fixes nothing before its zoom is known."""
        if self.tms and "y" in fixed:
            y = fixed.pop("y")
            if "z" in fixed:
                fixed["y"] = (1 << fixed["z"]) - 1 - y
        return fixed

    def _may_hold(self, known: Mapping[str, int], cover: Cover) -> bool:
        z = known.get("z")
        if z is None:
            return True
        return z in cover.zooms and ("x" not in known or bool(cover.rows(z, known["x"])))

    def tile_of(self, folder: Folder, cover: Cover) -> Callable[[str], tuple[int, int, int, str] | None]:
        """Return the function from a file name in `folder` to (z, x, y, suffix), None if it is no tile of `cover`."""
        z, x = folder.fixed.get("z"), folder.fixed.get("x")
        if self.leaf == "{y}" and z is not None and x is not None:
            rows = cover.rows(z, x)
            if count(rows) <= MOST_ROWS:
                return _by_name(z, x, _row_names(z if self.tms else None, rows))
        return self._by_pattern(folder, cover)

    def _by_pattern(self, folder: Folder, cover: Cover) -> Callable[[str], tuple[int, int, int, str] | None]:
        expression, names = self._leaf

        def tile(name: str) -> tuple[int, int, int, str] | None:
            match = expression.fullmatch(name)
            if not match:
                return None
            *numbers, suffix = match.groups()
            at = {**folder.fixed, **dict(zip(names, map(int, numbers), strict=True))}
            y = (1 << at["z"]) - 1 - at["y"] if self.tms and at["z"] <= 24 else at["y"]
            return (at["z"], at["x"], y, suffix or "") if cover.holds(at["z"], at["x"], y) else None

        return tile


def _by_name(z: int, x: int, ys: Mapping[str, int]) -> Callable[[str], tuple[int, int, int, str] | None]:
    def tile(name: str) -> tuple[int, int, int, str] | None:
        stem, dot, suffix = name.partition(".")
        y = ys.get(stem)
        if y is None or (dot and not (suffix.isalnum() and suffix.isascii())):
            return None
        return z, x, y, dot + suffix

    return tile


@lru_cache(maxsize=4)
def _row_names(tms_zoom: int | None, rows: Rows) -> dict[str, int]:
    """Return the row of each file stem; columns of a band share one table."""
    wanted = (y for low, high in rows for y in range(low, high + 1))
    if tms_zoom is None:
        return {str(y): y for y in wanted}
    return {str((1 << tms_zoom) - 1 - y): y for y in wanted}


def _compiled(text: str, seen: set[str], suffix: str = "") -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return the expression of one component of a pattern and the placeholders that its groups are."""
    names: list[str] = []
    parts = re.split(r"\{([zxy])\}", text)
    for i in range(1, len(parts), 2):
        if parts[i] in seen:
            raise TileError(f"the pattern names {{{parts[i]}}} twice", key="tiles.source.pattern")
        seen.add(parts[i])
        names.append(parts[i])
    literal = [re.escape(part) if i % 2 == 0 else NUMBER for i, part in enumerate(parts)]
    return re.compile("".join(literal) + suffix), tuple(names)


def names_in(path: Path) -> list[str]:
    """Return the names in a directory; TileError if it cannot be read."""
    try:
        return os.listdir(path)
    except OSError as error:
        raise TileError(
            f"tile directory cannot be read: {error.strerror}", file=path, next_step="check its owner and mode"
        ) from error


def is_settled(listing: Listing, *, now_ns: int) -> bool:
    """Tell whether no file of the listing is so young that it may change again unseen."""
    return all(max(row[3], row[4]) <= now_ns - RACY_NS for row in listing)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a regular file's bytes without ever waiting on a pipe or device; OSError passes through."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > MOST_TILE_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_TILE_BYTES} bytes")
        data = os.read(fd, found.st_size + 1)
        while len(data) < found.st_size and (more := os.read(fd, found.st_size - len(data))):
            data += more
    finally:
        os.close(fd)
    return data
