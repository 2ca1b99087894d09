"""Directories of tiles: one file per tile. A folder whose listing and stats are as remembered costs one digest.

A pattern names the path of a tile below the source. Its placeholders are `{z}`, `{x}`, `{y}` and `{q}` (quadkey);
`{z+1}` adds, `{x/1024}` divides and drops the remainder, `{x%1000}` takes the remainder (after a division, if there is
one), `:03d` pads with zeros and `:08x` writes hexadecimal digits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

from provisioning.area.cover import Cover, Range, Rows, count
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import MAX_ZOOM
from provisioning.base.named import NamedTuple
from provisioning.config import TileSource
from provisioning.sources.fingerprint import Listing
from provisioning.sources.placement.evidence import Statement, beside
from provisioning.sources.source import EVERYTHING, RACY_NS
from provisioning.sources.store import StoredTile, TileQuery
from provisioning.sources.tile_file import read_file

PLACEHOLDER = (
    r"\{(?:(?P<q>q)|(?P<name>[zxy])(?P<add>[+-][0-9]{1,2})?(?:/(?P<div>[1-9][0-9]{0,8}))?(?:%(?P<mod>[1-9][0-9]{0,8}))?"
    r"(?::0(?P<width>[1-9])(?P<base>[dx]))?)\}"
)
USUAL = "{z}/{x}/{y}"
DIGITS = {"d": "0-9", "x": "0-9a-f"}
SUFFIX = r"(\.[A-Za-z0-9]{1,8})?"
MOST_ROWS = 1 << 16
"""Rows of a column looked up by name; beyond them names are parsed one by one, to bound memory."""


class Placeholder(NamedTuple):
    """One number in a path: (z, x or y, plus `add`) // `div` % `mod`, in at least `width` digits of `base`."""

    name: str
    add: int = 0
    div: int = 1
    mod: int = 0
    width: int = 1
    base: str = "d"

    @property
    def is_whole(self) -> bool:
        """Return whether the number is all of z, x or y."""
        return self.div == 1 and not self.mod

    @property
    def expression(self) -> str:
        """The regular expression of its digits, as one group."""
        if self.name == "q":
            return f"([0-3]{{1,{MAX_ZOOM}}})"
        if self.width == 1 and self.base == "d":
            return "(0|[1-9][0-9]{0,8})"
        return f"([{DIGITS[self.base]}]{{{self.width},9}})"

    def written(self, z: int, x: int, row: int) -> str:
        """Return its digits for a tile."""
        if self.name == "q":
            return "".join(str((x >> bit & 1) | (row >> bit & 1) << 1) for bit in range(z - 1, -1, -1))
        number = ({"z": z, "x": x, "y": row}[self.name] + self.add) // self.div
        return format(number % self.mod if self.mod else number, f"0{self.width}{self.base}")

    def read(self, digits: str) -> int:
        """Return the number that digits are."""
        return int(digits, 16 if self.base == "x" else 10) - (self.add if self.is_whole else 0)


Term = tuple[Placeholder, str]
"""A placeholder and the digits found in its place."""


class Folder(NamedTuple):
    """A directory that holds tiles: its path below the source, and what of z, x, y its name fixes."""

    path: str
    fixed: Mapping[str, Range]


class Layout:
    """The pattern of a source, taken apart. TileError if it does not give z, x and y."""

    def __init__(self, source: TileSource) -> None:
        self.root = source.path
        self.tms = source.scheme == "tms"
        self._pattern = source.pattern.strip("/")
        *folders, self.leaf = components(self._pattern)
        self._folders = [_compiled(folder) for folder in folders]
        self._leaf = _compiled(self.leaf, SUFFIX)
        parts = [part for _, found in (*self._folders, self._leaf) for part in found]
        _check_parts(self._pattern, parts)
        self._is_plain = all(part.is_whole and part.name != "q" and part.width == 1 for part in parts)

    def path(self, z: int, x: int, y: int, suffix: str) -> Path:
        """Return the file of a tile."""
        return self.root / self.below(z, x, y, suffix)

    def below(self, z: int, x: int, y: int, suffix: str) -> str:
        """Return the path of a tile's file below the source: asked for each tile that is described."""
        return self._written(z, x, (1 << z) - 1 - y if self.tms else y) + suffix

    def _written(self, z: int, x: int, row: int) -> str:
        if self._pattern == USUAL:
            return f"{z}/{x}/{row}"
        return "".join([part if isinstance(part, str) else part.written(z, x, row) for part in self._parts])

    @cached_property
    def _parts(self) -> list[str | Placeholder]:
        """What paths are made of, in their order: placeholders, and the text between them."""
        return _parts_of(self._pattern)

    def folders(self, cover: Cover) -> Iterator[Folder]:
        """Yield the directories that may hold tiles of `cover`, in the order of their names."""
        yield from self._below("", (), 0, cover)

    def _below(self, path: str, terms: tuple[Term, ...], depth: int, cover: Cover) -> Iterator[Folder]:
        if depth == len(self._folders):
            yield Folder(path, _fixed(terms))
            return
        expression, parts = self._folders[depth]
        for name in sorted(names_in(self.root / path)):
            match = expression.fullmatch(name)
            known = (*terms, *zip(parts, match.groups(), strict=True)) if match else ()
            below = os.path.join(path, name)
            if match and self._may_hold(_fixed(known), cover) and os.path.isdir(self.root / below):
                yield from self._below(below, known, depth + 1, cover)

    def _terms(self, path: str) -> tuple[Term, ...] | None:
        """Return the placeholders of a folder's path with their digits, None if it does not fit the pattern."""
        names = path.split("/") if path else []
        if len(names) != len(self._folders):
            return None
        terms: list[Term] = []
        for name, (expression, parts) in zip(names, self._folders, strict=True):
            match = expression.fullmatch(name)
            if not match:
                return None
            terms += zip(parts, match.groups(), strict=True)
        return tuple(terms)

    def fixed_by(self, path: str) -> dict[str, Range] | None:
        """Return what of z, x, y a folder's path fixes, None if it does not fit the pattern."""
        terms = self._terms(path)
        return None if terms is None else self.unflipped(_fixed(terms))

    def unflipped(self, fixed: Mapping[str, Range]) -> dict[str, Range]:
        """Return folder numbers as XYZ ones; a row counted from the south fixes nothing before its zoom is known."""
        result = dict(fixed)
        if self.tms and "y" in result:
            low, high = result.pop("y")
            if "z" in result and result["z"][0] <= MAX_ZOOM:
                last = (1 << result["z"][0]) - 1
                result["y"] = last - high, last - low
        return result

    def _may_hold(self, known: Mapping[str, Range], cover: Cover) -> bool:
        if "z" not in known:
            return True
        z = known["z"][0]
        everywhere = (0, (1 << z) - 1) if z <= MAX_ZOOM else (0, 0)
        rows = self.unflipped(known).get("y", everywhere)
        return z in cover.zooms and cover.touches(z, known.get("x", everywhere), rows)

    def tile_of(self, folder: Folder, cover: Cover) -> Callable[[str], tuple[int, int, int, str] | None]:
        """Return the function from a file name in `folder` to (z, x, y, suffix), None if it is no tile of `cover`."""
        if self._is_plain and self.leaf == "{y}" and {"z", "x"} <= folder.fixed.keys():
            z, x = folder.fixed["z"][0], folder.fixed["x"][0]
            rows = cover.rows(z, x)
            if count(rows) <= MOST_ROWS:
                return _by_name(z, x, _row_names(z if self.tms else None, rows))
        return self._by_pattern(folder, cover)

    def _by_pattern(self, folder: Folder, cover: Cover) -> Callable[[str], tuple[int, int, int, str] | None]:
        expression, parts = self._leaf
        above = self._terms(folder.path) or ()

        def tile(name: str) -> tuple[int, int, int, str] | None:
            match = expression.fullmatch(name)
            if not match:
                return None
            *digits, suffix = match.groups(default="")
            at = _fixed((*above, *zip(parts, digits, strict=True)))
            z, x, row = (at[part][0] for part in "zxy")
            if z > MAX_ZOOM or (not self._is_plain and not self._is_path(folder, name, suffix, (z, x, row))):
                return None
            y = (1 << z) - 1 - row if self.tms else row
            return (z, x, y, suffix) if cover.holds(z, x, y) else None

        return tile

    def _is_path(self, folder: Folder, name: str, suffix: str, at: tuple[int, int, int]) -> bool:
        """Return whether a tile would be written to this file: parts of one number may contradict each other."""
        return self._written(*at) == os.path.join(folder.path, name[: len(name) - len(suffix)])


class Directory:
    """A directory of tiles as a store. A scan of many looks at each file's stat instead, which tells what changed."""

    identity = ""

    def __init__(self, source: TileSource) -> None:
        self._layout = Layout(source)
        self._suffixes: set[str] = set()

    def stamp(self) -> str:
        """Return nothing: only each file's stat tells whether it has changed."""
        return ""

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield the tiles of a query, without their bytes."""
        for folder in self._layout.folders(query.cover):
            tile_of = self._layout.tile_of(folder, query.cover)
            for found in filter(None, map(tile_of, names_in(self._layout.root / folder.path))):
                self._suffixes.add(found[3])
                yield StoredTile(*found[:3])

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile, without reading its bytes."""
        return (tile[:3] for tile in self.query(TileQuery(EVERYTHING)))

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile, None if it cannot be read."""
        for suffix in self._suffixes:
            with suppress(OSError):
                return read_file(self._layout.path(z, x, y, suffix))
        return None

    def statements(self) -> list[Statement]:
        """Return what the files beside the tiles say of where these are."""
        return beside(self._layout.root)

    def close(self) -> None:
        """Nothing is held open."""


def components(pattern: str) -> list[str]:
    """Return the folders and the file of a pattern; a slash between braces divides numbers."""
    parts = pattern.split("/")
    if all(part.count("{") == part.count("}") for part in parts):
        return parts
    return re.split(r"/(?![^{}]*\})", pattern)


def _fixed(terms: Iterable[Term]) -> dict[str, Range]:
    """Return the range of each of z, x, y that the digits leave open; one number where they leave nothing open."""
    found: dict[str, Range] = {}
    split: dict[str, list[tuple[int, int, int]]] = {}
    for part, digits in terms:
        if part.name == "q":
            x = sum((int(digit) & 1) << n for n, digit in enumerate(reversed(digits)))
            y = sum((int(digit) >> 1) << n for n, digit in enumerate(reversed(digits)))
            found |= {"z": (len(digits),) * 2, "x": (x, x), "y": (y, y)}
        elif part.is_whole:
            found[part.name] = (part.read(digits),) * 2
        else:
            split.setdefault(part.name, []).append((part.div, part.mod, part.read(digits)))
    for name, numbers in split.items():
        if name not in found and (whole := _joined(numbers)):
            found[name] = whole
    return found


def _joined(numbers: list[tuple[int, int, int]]) -> Range | None:
    """Return the range of a number of which quotient and remainders are known, from its leading digits on."""
    low = span = 0
    for div, mod, value in sorted(numbers, reverse=True):
        if (span and mod * div != span) or (not span and mod):
            break
        low, span = low + value * div, div
    return (low, low + span - 1) if span else None


def _placeholder(match: re.Match[str]) -> Placeholder:
    found = match.groupdict()
    if found["q"]:
        return Placeholder("q")
    return Placeholder(
        found["name"], int(found["add"] or 0), int(found["div"] or 1), int(found["mod"] or 0),
        int(found["width"] or 1), found["base"] or "d",
    )  # fmt: skip


def _parts_of(text: str) -> list[str | Placeholder]:
    """Return what a pattern is made of, in its order: text, and a placeholder behind each but the last."""
    at = 0
    parts: list[str | Placeholder] = []
    for match in re.finditer(PLACEHOLDER, text):
        parts += text[at : match.start()], _placeholder(match)
        at = match.end()
    return [*parts, text[at:]]


def _compiled(text: str, suffix: str = "") -> tuple[re.Pattern[str], tuple[Placeholder, ...]]:
    """Return the expression of one component of a pattern and the placeholders that its groups are."""
    if text in ("{z}", "{x}", "{y}"):  # as nearly all are: the expression below takes longer than the scan of ten tiles
        whole = Placeholder(text[1])
        return re.compile(whole.expression + suffix), (whole,)
    parts = _parts_of(text)
    if "{" in str(parts[-1]):
        raise TileError(f"the pattern has an unknown placeholder: {parts[-1]}", key="tiles.source.pattern")
    expression = "".join(re.escape(part) if isinstance(part, str) else part.expression for part in parts)
    return re.compile(expression + suffix), tuple(part for part in parts if isinstance(part, Placeholder))


def _check_parts(pattern: str, parts: list[Placeholder]) -> None:
    whole = [part.name for part in parts if part.is_whole]
    for name in whole:
        if whole.count(name) > 1:
            raise TileError(f"the pattern names {{{name}}} twice", key="tiles.source.pattern")
    at = _fixed((part, "0" * part.width) for part in parts)
    for name in "zxy":
        if name not in at or at[name][0] != at[name][1]:
            raise TileError(
                f"the pattern {pattern} does not give {name}",
                key="tiles.source.pattern",
                next_step="name z, x and y, e.g. {z}/{x}/{y}, or {q} for quadkeys (docs/tiles.md, Layouts)",
            )


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


def names_in(path: Path) -> list[str]:
    """Return the names in a directory; TileError if it cannot be read."""
    try:
        return os.listdir(path)
    except OSError as error:
        raise TileError(
            f"tile directory cannot be read: {error.strerror}", file=path, next_step="check its owner and mode"
        ) from error


def is_settled(listing: Listing, *, now_ns: int) -> bool:
    """Return whether no file of the listing is so young that it may change again unseen."""
    return all(max(row[3], row[4]) <= now_ns - RACY_NS for row in listing)
