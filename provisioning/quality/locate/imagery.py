"""Imagery to show beside a photo: what is on board, else the tile sources of the cache directory it was built in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioning.base.geometry.geo import cut_parts
from provisioning.catalogue import decode, iter_tiles, open_reader
from provisioning.config import TileSource
from provisioning.config.parse import read_flight
from provisioning.flight.verify import Verdict
from provisioning.quality.locate.search import Match
from provisioning.quality.locate.sheet import Imagery
from provisioning.sources.containers.pmtiles import PMTiles
from provisioning.sources.pixels.cutting import cut
from provisioning.sources.pixels.fitting import Pixels

ON_BOARD = "tiles.pmtiles"
MAX_PIXELS = 16_777_216
"""Largest tile image shown; no tile of a sane source comes near."""


def has_imagery(verdict: Verdict) -> bool:
    """Return whether the verified generation has its imagery on board."""
    return any(entry.path == ON_BOARD for entry in verdict.require().files)


@contextmanager
def imagery_of(cache: Path, verdict: Verdict, wanted: Iterable[Match], *, own: bool) -> Iterator[Imagery]:
    """Yield what gives the image of a match of `wanted`, or None where there is none at hand.

    cache: the cache directory or generation that `verdict` passed; imagery on board that its Manifest does not list is
    not opened. own: the user says that the directory is theirs; else its flight.toml, which nobody signed, names no
    file to open. For a person's eyes: nothing is decided by these pixels.
    """
    if has_imagery(verdict):
        place = next(path for path in (cache / "current" / ON_BOARD, cache / ON_BOARD) if path.is_file())
        archive = PMTiles(TileSource(path=place))
        try:
            yield lambda match: _shown(match, lambda x, y: archive.read(match.z, x, y))
        finally:
            archive.close()
    elif own and (cache / "flight.toml").is_file():
        flight = read_flight(cache)
        places = {(match.z, x, y, match.source) for match in wanted for x, y in _parts(match)}
        tiles = {tile[:4]: tile for tile in iter_tiles(flight.build_dir) if tile[:4] in places}
        with open_reader(flight.tiles.source, flight.build_dir) as reader:

            def read(match: Match, x: int, y: int) -> bytes | None:
                tile = tiles.get((match.z, x, y, match.source))
                return None if tile is None else reader.read(tile)

            yield lambda match: _shown(match, lambda x, y: read(match, x, y))
    else:
        yield lambda _: None


def _parts(match: Match) -> tuple[tuple[int, int], ...]:
    return cut_parts(match.z, match.x, match.y, match.cut)


def _shown(match: Match, read: Callable[[int, int], bytes | None]) -> Pixels | None:
    """Return the picture of a tile or cut, None where a tile that it shows is not at hand; `read` takes x and y."""
    data = [read(x, y) for x, y in _parts(match)]
    tiles = [decode(each, max_pixels=MAX_PIXELS) for each in data if each is not None]
    return cut(tiles, match.cut) if len(tiles) == len(data) else None
