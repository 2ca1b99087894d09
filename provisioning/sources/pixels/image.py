"""Bytes of a tile → pixels, or one reason why not. The format is found from the bytes, never from a name."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import zlib
from math import isqrt
from typing import TYPE_CHECKING, Any

from provisioning.base.errors import TileError
from provisioning.base.named import NamedTuple
from provisioning.sources.pixels.likeness import perceptual_hash_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

OPAQUE = 128
"""Alpha from which a pixel counts as imagery."""
_OF_THE_BYTES = (
    ValueError, LookupError, ArithmeticError, TypeError, SyntaxError, EOFError, struct.error, zlib.error,
)  # fmt: skip
"""What the parsers of Pillow and simplejpeg raise of bytes that are no image; so are OSErrors without a number."""
_AVIF_SAYS = "Failed to decode"
ROOM_BYTES = 16 << 20
"""More than a usual tile takes to decode."""
ONE_COLOUR = 6
"""Levels by which the pixels of a tile of one colour may differ."""
BLOCK, BLACK, WHITE = 8, 8, 247
"""Pixels of a block's side; a block of which no pixel is brighter, or none darker, shows nothing."""
FLAT, FLAT_SHARE = 2, 0.125
"""Levels by which a block of one flat colour may vary, and the least share of a tile on either side of a seam."""
DETAILED = 0.1
"""Share of blocks by which imagery may be plain, and what lies beyond a seam may not."""
MOST_SCANS = 100
"""Of a JPEG; progressive ones have about ten. Each goes over all pixels: 65 kB of them took 24 s (measured)."""
PILLOW_FORMATS = ("PNG", "WEBP", "JPEG", "AVIF")
"""The only parsers that hostile bytes may reach."""


class Inspection(NamedTuple):
    """What looking at a tile's pixels once has found, or why it is no image.

    empty_ppm       share of transparent or nodata pixels, in millionths
    texture_centi   standard deviation of the grey levels (0 to 255) of the others, in hundredths
    perceptual_hash equal or near for images of one picture (`likeness.py`)
    """

    empty_ppm: int
    texture_centi: int
    fault: str | None
    perceptual_hash: bytes | None = None


def load_decoders() -> None:
    """Import and use every decoder once: what is imported while a tile is decoded can fail half-way, and says so of it.

    ImportError, or what else Python makes of a library that cannot be loaded.
    """
    import numpy as np
    import simplejpeg
    from PIL import Image

    _register_parsers()
    _reads_avif()
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    inspect_tile(simplejpeg.encode_jpeg(pixels, colorspace="RGB"), max_pixels=1 << 10, nodata=(0, 0, 0))
    for kind in ("PNG", "WEBP"):
        out = io.BytesIO()
        Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(out, kind)
        inspect_tile(out.getvalue(), max_pixels=1 << 10, nodata=())


def _register_parsers() -> None:
    """Import the parsers that tiles may reach, and what these import while they decode; a Pillow without AVIF, all.

    `Image.init` imports fifty, in 40 ms of processor time.
    """
    from PIL import Image

    for name in ("Png", "WebP", "Jpeg", "Avif", "Mpo", "Tiff"):  # of JPEG with several pictures, and of EXIF
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"PIL.{name}ImagePlugin")
    if not set(PILLOW_FORMATS) <= Image.OPEN.keys():
        Image.init()


def image_format(data: bytes) -> str:
    """Return jpeg, png, webp or avif; TileError says what the bytes are instead."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        if _reads_avif():
            return "avif"
        raise TileError("the tile is an AVIF image, which this Pillow cannot decode (Pillow 11.3 can)")
    raise TileError(_not_an_image(data))


def _reads_avif() -> bool:
    from PIL import features

    try:
        return bool(features.check("avif"))
    except ValueError:  # a Pillow that has not heard of it
        return False


def _not_an_image(data: bytes) -> str:
    if not data:
        return "the tile is empty (0 bytes)"
    if data[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda") or data[:1] == b"\x1a":
        return "the tile is a vector tile or compressed data, not an image"
    if data[:15].lstrip()[:1] in (b"<", b"{", b"["):
        return "the tile is text (a server's error page?), not an image"
    return f"the tile is not a JPEG, PNG, WebP or AVIF image (it begins with {data[:4].hex(' ')})"


def decode(data: bytes, *, max_pixels: int, fitted_to: tuple[int, int] | None = None) -> Pixels:
    """Return a tile's pixels, uint8 [H, W, 3], RGB.

    With `fitted_to`, the size that `fit` is to give it, those of a JPEG of another size have a fourth byte each, which
    says nothing: decoder and Pillow are faster with it.

    Transparent pixels (alpha below 128) become the integer mean colour of the others, black if there are none: the
    same on every host. TileError if the bytes are no image of a format above, are damaged, or claim more than
    `max_pixels`.
    """
    pixels, opaque = _pixels(data, max_pixels, fitted_to)
    return pixels if opaque is None else _filled(pixels, opaque)


def inspect_tile(data: bytes, *, max_pixels: int, nodata: tuple[int, ...], blank: bool = True) -> Inspection:
    """Decode a tile and return how much of it is empty and how textured the rest is; or its fault, if it is none.

    With `blank` what is black, white or all of one colour is empty, too.
    """
    try:
        pixels, opaque = _pixels(data, max_pixels)
    except TileError as error:
        return Inspection(0, 0, error.what)
    empty = _empty_ppm(pixels, opaque, nodata)
    if blank:
        empty = max(empty, _blank_ppm(pixels, opaque))
    perceptual_hash = perceptual_hash_of(pixels if opaque is None else _filled(pixels, opaque)) if blank else None
    return Inspection(empty, _texture_centi(pixels, opaque), None, perceptual_hash)


def may_be_transparent(data: bytes) -> bool:
    """Return from its first bytes whether an image can have transparent pixels; False for what is no image."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[:2048]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and bool(data[20] & 0x10))
    return False


def _empty_ppm(pixels: Pixels, opaque: NDArray[np.bool_] | None, nodata: tuple[int, ...]) -> int:
    full = pixels.shape[0] * pixels.shape[1] if opaque is None else int(opaque.sum())
    if nodata:
        blank = (pixels == nodata).all(axis=2)
        full -= int((blank if opaque is None else blank & opaque).sum())
    total: int = pixels.shape[0] * pixels.shape[1]
    return 1_000_000 * (total - full) // total


def _blank_ppm(pixels: Pixels, opaque: NDArray[np.bool_] | None) -> int:
    """Return the share of transparent pixels and of blocks black, white or beyond a seam; all, if the rest is plain.

    Lossy compression leaves a few levels of noise, and ringing only in the blocks along the border of the imagery.
    """
    import numpy as np

    if opaque is None and _is_full_by_sample(pixels):
        return 0
    if _is_one_colour(pixels, opaque):
        return 1_000_000
    height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
    if min(height, width) < 2 * BLOCK:
        return 0
    blank = _black_or_white(pixels[:height, :width])
    if opaque is not None:
        blank |= ~opaque[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).any(axis=(1, 3))
    blank |= _beyond_a_seam(pixels[:height, :width])
    return int(1_000_000 * np.count_nonzero(blank) // blank.size)


def _is_one_colour(pixels: Pixels, opaque: NDArray[np.bool_] | None) -> bool:
    if opaque is None and _most_apart(_bands_of(pixels[::BLOCK, ::BLOCK])) > ONE_COLOUR:  # then all pixels are, too
        return False
    seen = pixels.reshape(-1, 3) if opaque is None else pixels[opaque]
    return not len(seen) or int((seen.max(axis=0) - seen.min(axis=0)).max()) <= ONE_COLOUR


def _most_apart(bands: Pixels) -> int:
    """Return by how many levels the pixels of a band differ, in the one where they differ most."""
    flat = bands.reshape(3, -1)
    return int((flat.max(axis=1) - flat.min(axis=1)).max())


def _blocks_of(pixels: Pixels) -> Pixels:
    """Return pixels as [rows, columns, BLOCK, BLOCK, 3]."""
    height, width = (side // BLOCK for side in pixels.shape[:2])
    blocks: Pixels = pixels.reshape(height, BLOCK, width, BLOCK, 3).swapaxes(1, 2)
    return blocks


def _bands_of(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return red, green and blue, each as one piece: of bands that lie apart whatever is asked takes a third."""
    import numpy as np

    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _black_or_white(pixels: Pixels) -> NDArray[np.bool_]:
    """Return which blocks are black or white throughout: those whose first pixel is not are not looked at."""
    blocks = _blocks_of(pixels)
    red, green, blue = _bands_of(pixels[::BLOCK, ::BLOCK])
    black, white = (
        (red <= BLACK) & (green <= BLACK) & (blue <= BLACK),
        (red >= WHITE) & (green >= WHITE) & (blue >= WHITE),
    )
    black[black] = blocks[black].max(axis=(1, 2, 3), initial=0) <= BLACK
    white[white] = blocks[white].min(axis=(1, 2, 3), initial=255) >= WHITE
    found: NDArray[np.bool_] = black | white
    return found


def _beyond_a_seam(pixels: Pixels) -> NDArray[np.bool_]:
    """Return which blocks lie beyond the end of the imagery and have one colour, whichever; none if there is no end.

    The imagery is then a rectangle in a corner or along a side, with detail throughout. A drawing on a background of
    one colour is neither.
    """
    import numpy as np

    flat = _one_flat_colour(pixels)
    rows, columns = (np.flatnonzero(flat.mean(axis=axis) <= 1 - DETAILED) for axis in (1, 0))
    none = np.zeros_like(flat)
    if not len(rows) or not len(columns) or len(rows) * len(columns) > (1 - FLAT_SHARE) * flat.size:
        return none
    at_a_side = [ends[0] == 0 or ends[-1] == side - 1 for ends, side in zip((rows, columns), flat.shape, strict=True)]
    seen = flat[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    is_seam = all(at_a_side) and seen.size >= FLAT_SHARE * flat.size and seen.mean() <= DETAILED
    return flat if is_seam else none


def _one_flat_colour(pixels: Pixels) -> NDArray[np.bool_]:
    """Return which blocks have no detail and the one colour that most of such blocks have; none if these are few."""
    import numpy as np

    lowest = highest = bands = _bands_of(pixels[::BLOCK, ::BLOCK])
    for down, right in ((0, 7), (3, 4), (7, 0), (7, 7)):
        corner = _bands_of(pixels[down::BLOCK, right::BLOCK])
        lowest, highest = np.minimum(lowest, corner), np.maximum(highest, corner)
    flat: NDArray[np.bool_] = ((bands - lowest <= FLAT) & (highest - bands <= FLAT)).all(axis=0)
    if np.count_nonzero(flat) < FLAT_SHARE * flat.size:
        return np.zeros_like(flat)
    blocks, first = _blocks_of(pixels), pixels[::BLOCK, ::BLOCK].astype(np.int16)
    flat[flat] = (np.abs(blocks[flat] - first[flat][:, None, None]) <= FLAT).all(axis=(1, 2, 3))
    colours, counts = np.unique(first[flat].astype(np.int32) @ (1 << 16, 1 << 8, 1), return_counts=True)
    if len(counts):
        most = int(colours[counts.argmax()])
        flat &= (np.abs(first - (most >> 16, most >> 8 & 0xFF, most & 0xFF)) <= FLAT).all(axis=2)
    return flat


def _is_full_by_sample(pixels: Pixels) -> bool:
    """Return True where one pixel of each block shows that no block is black or white, nor any part of one colour.

    Of most imagery it can, in a tenth of the time that looking at every pixel takes.
    """
    import numpy as np

    grid = _bands_of(pixels[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK])
    if min(grid.shape[1:]) < 2:
        return False
    above, below = grid[:, :-1], grid[:, 1:]
    is_flat = (np.maximum(above, below) - np.minimum(above, below) <= FLAT).all(axis=0)
    if is_flat.mean() > FLAT_SHARE / 2:  # as beyond a seam
        return False
    return _most_apart(grid) > ONE_COLOUR and bool(((grid > BLACK) & (grid < WHITE)).any(axis=0).all())


def _texture_centi(pixels: Pixels, opaque: NDArray[np.bool_] | None) -> int:
    """Return the texture of every second pixel of every second row, in integers: the same on every host."""
    import numpy as np

    grey = _bands_of(pixels[::2, ::2]).sum(axis=0, dtype=np.uint16).astype(np.float64)
    seen = grey.ravel() if opaque is None else grey[opaque[::2, ::2]]
    count, total, squares = (
        seen.size,
        int(seen.sum()),
        int(np.einsum("i,i", seen, seen)),
    )  # whole numbers below 2**53: exact
    return isqrt(10_000 * (count * squares - total * total)) // (3 * count) if count else 0


def _filled(pixels: Pixels, opaque: NDArray[np.bool_]) -> Pixels:
    if not opaque.all():
        seen = pixels[opaque]
        pixels = pixels.copy()
        pixels[~opaque] = seen.sum(axis=0, dtype="int64") // len(seen) if len(seen) else 0
    return pixels


def _pixels(
    data: bytes, max_pixels: int, fitted_to: tuple[int, int] | None = None
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """Return RGB pixels and the mask of opaque ones, None if all are.

    A fault is one of the bytes where a second try meets it too.
    """
    try:
        return _decoded(data, max_pixels, fitted_to)
    except TileError as first:
        try:
            return _decoded(data, max_pixels, fitted_to)
        except TileError as second:
            if second.what == first.what:
                raise
            raise MemoryError(f"{first.what}; then: {second.what}") from second


def _decoded(
    data: bytes, max_pixels: int, fitted_to: tuple[int, int] | None
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    kind = image_format(data)
    try:
        if kind == "png":
            _check_png(data, max_pixels)
        return _jpeg(data, max_pixels, fitted_to) if kind == "jpeg" else _with_pillow(data, max_pixels)
    except TileError:
        raise
    except Exception as error:
        if not _is_of_the_bytes(error):
            raise
        if "memory" in str(error).lower() or not _has_memory():
            raise MemoryError(str(error)) from error
        detail = str(error).partition("<")[0].replace("\n", " ")[:120].strip() or type(error).__name__
        raise TileError(f"the {kind.upper()} image cannot be decoded: {detail}") from error


def _is_of_the_bytes(error: Exception) -> bool:
    """Return whether the bytes, not the system, were the reason: only what parsers are known to raise counts.

    A decoder or NumPy that cannot be loaded, and what the interpreter raises when it gets no memory (SystemError,
    AttributeError), say nothing of the tile.
    """
    from PIL.Image import DecompressionBombError

    if isinstance(error, OSError):
        return error.errno is None
    if type(error) is RuntimeError:
        return str(error).startswith(_AVIF_SAYS)
    return isinstance(error, (*_OF_THE_BYTES, DecompressionBombError))


def _has_memory() -> bool:
    """Return whether there is room to decode: some decoders say only that they failed where an allocation did."""
    try:
        bytearray(ROOM_BYTES)
    except MemoryError:
        return False
    return True


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TileError(f"the image claims {width} x {height} pixels, more than tiles.max_pixels = {max_pixels}")


def _check_png(data: bytes, max_pixels: int) -> None:
    """Check size and every chunk's checksum: Pillow does not look at that of the pixels."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if (
            end > len(data)
            or zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]
        ):
            raise TileError("the PNG image cannot be decoded: a chunk is cut off or its checksum is wrong")
        if at == 8 and data[12:16] == b"IHDR" and length == 13:
            width, height = struct.unpack_from(">II", data, 16)
            _check_size(width, height, max_pixels)
        at = end


def scans_of(data: bytes) -> int:
    """Return how many scans a JPEG has, or a larger number of at most `MOST_SCANS`, which is counted faster."""
    import numpy as np

    most = int(np.count_nonzero(np.frombuffer(data, np.uint8) == 0xDA))  # bytes.count takes four times as long
    return most if most <= MOST_SCANS else data.count(b"\xff\xda")


def _jpeg(data: bytes, max_pixels: int, fitted_to: tuple[int, int] | None) -> tuple[Pixels, None]:
    import simplejpeg

    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _check_size(width, height, max_pixels)
    if (scans := scans_of(data)) > MOST_SCANS:
        raise TileError(f"the JPEG image has {scans} scans, more than {MOST_SCANS}: made to take long")
    if colours in ("CMYK", "YCCK"):
        return _with_pillow(data, max_pixels)[0], None
    colorspace = "RGBX" if fitted_to and (height, width) != fitted_to else "RGB"
    return simplejpeg.decode_jpeg(data, colorspace=colorspace), None


def _with_pillow(data: bytes, max_pixels: int) -> tuple[Pixels, NDArray[np.bool_] | None]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        width, height = image.size
        _check_size(width, height, max_pixels)
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            return _sixteen_bit(np.asarray(image)), None
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB")), None
        rgba = np.asarray(image.convert("RGBA"))
    return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] >= OPAQUE


def _sixteen_bit(grey: Any) -> Pixels:
    """Return the high bytes: Pillow's own conversion clips 16 bits to 255 instead of scaling them."""
    import numpy as np

    return np.repeat((grey.astype("uint32") >> 8).clip(0, 255).astype("uint8")[..., None], 3, axis=2)
