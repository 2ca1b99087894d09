"""Tiles become images in processes with limits: the one that computes descriptors parses nothing of a tile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from provisioning.base.errors import Error, TileError
from provisioning.base.process.workers import Items, Limits, Worker, Workers
from provisioning.catalogue import Tile, open_reader
from provisioning.config import Tiles, TileSource
from provisioning.descriptors.pipeline.loader import Fault, Unit
from provisioning.sources.pixels.fitting import Pixels
from provisioning.sources.processes.common import memory_bytes
from provisioning.sources.processes.decoding import SHAPE, UNREAD, Asked, Decoding, View
from provisioning.sources.stores import opened_files
from provisioning.sources.tile_file import Address

ITEMS = Items("the tile", lambda asked: "{}/{}/{} of {}".format(*asked.tiles[0][:4]), TileError)


class Reader(Protocol):
    """What decoders ask for tiles: a `TileReader`."""

    @property
    def sources(self) -> Sequence[TileSource]:
        """The sources whose tiles another process can read."""

    def given(self, tile: Tile) -> str | bytes | None:
        """Return what that process needs to read a tile."""

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of a tile."""


class LoadedBatch(NamedTuple):
    """What looking at units gave: those that were seen, the others, and the images uint8 [seen, H, W, 3]."""

    seen: list[Unit]
    faults: list[Fault]
    images: Pixels


class Decoders:
    """Processes that make images of tiles as `view` says. Close them in the end."""

    def __init__(self, reader: Reader, view: View, *, batch: int = 1, slots: int = 1) -> None:
        self.reader, self.view, self.batch, self.slots = reader, view, batch, slots
        containers = tuple(source for source in reader.sources if source.kind != "xyz")
        height, width = view.size or (1, view.max_pixels)
        self.image_bytes = 3 * height * width
        self._workers = Workers(
            Decoding,
            containers,
            view,
            items=ITEMS,
            reads=[file for source in reader.sources for file in opened_files(source, containers)],
            room_bytes=self.image_bytes,
            rooms=batch * slots,
            limits=Limits(memory_bytes=memory_bytes(view.max_pixels)),
            needs_scratch=any(source.kind not in ("pmtiles", "geotiff") for source in containers),
        )
        self._free: list[Decoder] = []

    @property
    def stop(self) -> threading.Event:
        """Set it, and whoever waits for an image gets a StoppedError."""
        return self._workers.stop

    def decoder(self) -> Decoder:
        """Return one more, which one thread uses at a time; its process starts with the first tile."""
        return Decoder(self, self._workers.worker())

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of a tile, which somebody else is to decode; TileError if they are gone."""
        return self.reader.read(tile)

    def image(self, unit: Unit) -> Pixels:
        """Return the image of one unit, uint8 [H, W, 3]; TileError if it has none. From any thread."""
        with self._lent() as decoder:
            loaded = decoder.load_batch([unit])
            if loaded.faults:
                raise TileError(loaded.faults[0].reason)
            return np.array(loaded.images[0])

    def pixels(self, tile: Tile) -> Pixels:
        """Return a decoded tile as it is, uint8 [H, W, 3]; TileError if it is no image. From any thread."""
        with self._lent() as decoder:
            return np.array(decoder.pixels(tile))

    @contextmanager
    def _lent(self) -> Iterator[Decoder]:
        """Lend a decoder that nobody uses, or a new one."""
        try:
            decoder = self._free.pop()
        except IndexError:
            decoder = self.decoder()
        yield decoder
        self._free.append(decoder)

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


class Decoder:
    """One process, and the shared memory that images come in: `slots` times a batch."""

    def __init__(self, owner: Decoders, worker: Worker) -> None:
        self._owner, self._worker = owner, worker

    def load_batch(self, units: Sequence[Unit], slot: int = 0) -> LoadedBatch:
        """Make the images of a batch of units in a slot, where they stay until something is looked at there again.

        FilesystemError: this computer failed. StoppedError: the work of all is to end.
        """
        owner, first = self._owner, slot * self._owner.batch
        assert owner.view.size is not None
        asked, faults = self._asked(units)
        images = self._room(first, len(asked) * owner.image_bytes).reshape(-1, *owner.view.size, 3)
        seen: list[Unit] = []
        answers = self._answers([each for _, each in asked], first)
        for n, ((unit, _), answer) in enumerate(zip(asked, answers, strict=True)):
            if isinstance(answer, TileError):
                faults.append(Fault(unit, answer.what))
                continue
            if n != len(seen):
                images[len(seen)] = images[n]
            seen.append(unit)
        return LoadedBatch(seen, faults, images[: len(seen)])

    def pixels(self, tile: Tile) -> Pixels:
        """Return the decoded tile as it is, uint8 [H, W, 3], until the next one; TileError if it is no image."""
        given = self._owner.reader.given(tile)
        (answer,) = self._answers([Asked((_address(tile),), 0, (given,))], 0)
        if isinstance(answer, TileError):
            raise answer
        height, width = SHAPE.unpack(answer) if len(answer) == SHAPE.size else (0, 0)
        if not 0 < height * width <= self._owner.view.max_pixels:
            raise TileError("the process that decodes tiles gave no image")
        return self._room(0, 3 * height * width).reshape(height, width, 3)

    def _room(self, first: int, size: int) -> Pixels:
        return np.frombuffer(self._worker.rooms, np.uint8, size, first * self._owner.image_bytes)

    def _asked(self, units: Sequence[Unit]) -> tuple[list[tuple[Unit, Asked]], list[Fault]]:
        """Return what to ask of each unit, and those whose store says that it has none."""
        asked: list[tuple[Unit, Asked]] = []
        faults: list[Fault] = []
        for unit in units:
            try:
                tiles = unit.tiles
                given = tuple(map(self._owner.reader.given, tiles))
                asked.append((unit, Asked(tuple(map(_address, tiles)), unit.heading, given, unit.cut)))
            except TileError as error:  # noqa: PERF203 - one bad tile must not cost its batch
                faults.append(Fault(unit, error.what))
        return asked, faults

    def _answers(self, asked: Sequence[Asked], first: int) -> list[bytes | TileError]:
        """Return the answer to each, the image being in its room; an Error of another kind than TileError is raised."""
        answers = self._worker.read(asked, first=first) if asked else []
        unread = [n for n, answer in enumerate(answers) if answer == UNREAD and _has_files(asked[n])]
        for n in unread:
            answers[n] = self._read_here(asked[n], first + n)
        return [_raised_unless_of_the_tile(answer) for answer in answers]

    def _read_here(self, asked: Asked, room: int) -> bytes | Error:
        """Have a tile decoded whose file that process cannot read: a link to where it may not look, or none at all."""
        try:
            data = tuple(self._owner.reader.read(Tile(*tile)) for tile in asked.tiles)
        except TileError as error:
            return error
        return self._worker.read([asked._replace(given=data)], first=room)[0]


@contextmanager
def decoded_tiles(tiles: Tiles, build_dir: Path) -> Iterator[Callable[[Tile], Pixels]]:
    """Yield what decodes a tile of the corpus, uint8 [H, W, 3], from any thread; TileError if it is no image."""
    with open_reader(tiles.source, build_dir) as reader:
        decoders = Decoders(reader, View((Fraction(0),), None, "", tiles.max_pixels))
        try:
            yield decoders.pixels
        finally:
            decoders.close()


def _has_files(asked: Asked) -> bool:
    return any(isinstance(given, str) for given in asked.given)


def _address(tile: Tile) -> Address:
    """Return a tile as what the other process knows without importing the catalogue."""
    z, x, y, source, sha256 = tile
    return z, x, y, source, sha256


def _raised_unless_of_the_tile(answer: bytes | Error) -> bytes | TileError:
    if isinstance(answer, Error) and not isinstance(answer, TileError):
        raise answer
    return answer
