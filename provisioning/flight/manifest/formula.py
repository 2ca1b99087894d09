"""`manifest_hash`: SHA-256 over ASCII lines, so that two programs in two languages agree on every byte.

See docs/manifest.md, "Digests".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise

from provisioning.base.errors import ManifestError
from provisioning.base.hashing import Sha256
from provisioning.flight.manifest.types import Camera, Manifest

HASH_TAG = b"flight-cache-manifest-hash/%s\n"
"""With the number of the schema."""

_PLAIN = frozenset(range(0x21, 0x7F)) - {0x25}


def field(value: str | int) -> bytes:
    """Return a field as ASCII: every UTF-8 byte outside 0x21–0x7E, and `%`, becomes `%` and two upper-case hex digits.

    An empty text has no form and raises ManifestError.
    """
    raw = str(value).encode()
    if not raw:
        raise ManifestError("an empty text cannot be a field of a digest")
    return b"".join(bytes([byte]) if byte in _PLAIN else b"%%%02X" % byte for byte in raw)


def line(*fields: str | int) -> bytes:
    """Return one line of a preimage: encoded fields with single spaces between them, and a newline."""
    return b" ".join(map(field, fields)) + b"\n"


def _lines(m: Manifest) -> Iterator[bytes]:
    flight, tiles = m.flight, m.tiles
    yield line("bbox-e7", *m.area.bbox_e7)
    yield from (line("zoom", zoom) for zoom in m.area.zoom_levels)
    yield line("sector", flight.sector_class)
    yield line("host", *m.host)
    yield line("tiles", tiles.coverage_sha256, tiles.count)
    yield from (line("source", number, name) for number, name in enumerate(tiles.sources))
    yield line("index", *(part for part in m.descriptor_index if part is not None))
    for engine in m.engines:
        shape = engine.input or ()
        yield line("engine", *engine[:-1], *shape)
    yield from (line("calibration", *entry) for entry in m.calibration)
    if flight.flight_id is not None:
        yield line("flight", flight.flight_id)
    if flight.aircraft_id is not None:
        yield line("aircraft", flight.aircraft_id)
    if flight.takeoff_origin is not None:
        yield line("origin-e7", *(part for part in flight.takeoff_origin if part is not None))

    if flight.not_after is not None:
        yield line("not-after", flight.not_after)
    if m.camera is not None:
        yield from _camera_lines(m.camera)


def _camera_lines(camera: Camera) -> Iterator[bytes]:
    if camera.width is not None:
        yield line("camera", *(part for part in camera[:6] if part is not None))
    for name, value in (("fov-e7", camera.fov_e7), ("angles-of", camera.angles_of), ("height-mm", camera.height_mm),
                        ("ground-mm", camera.ground_mm)):  # fmt: skip
        if value is not None:
            yield line(f"camera-{name}", value)
    if camera.distortion is not None:
        yield line("camera-distortion", camera.distortion.model, *camera.distortion.coefficients)
    if camera.mounting is not None:
        yield line("camera-mounting-e7", *camera.mounting)


def manifest_preimage(m: Manifest) -> bytes:
    """Return the bytes whose SHA-256 is `manifest_hash`: the tag line, then byte-sorted lines, none twice.

    Not in it: counter, tool, gates, waivers, what was accepted, `other` files. ManifestError names a line that is
    there twice.
    """
    lines = sorted(_lines(m))
    for one, next_one in pairwise(lines):
        if one == next_one:
            raise ManifestError("two parts of the Manifest are the same", key=one.decode().strip())
    return HASH_TAG % m.schema.rpartition("/")[2].encode() + b"".join(lines)


def manifest_hash(m: Manifest) -> Sha256:
    """Return the SHA-256 of `manifest_preimage(m)`; the recorded hash plays no part."""
    return Sha256(hashlib.sha256(manifest_preimage(m)).hexdigest())


def with_hash(m: Manifest) -> Manifest:
    """Return `m` with its `manifest_hash` filled in."""
    return m._replace(build=m.build._replace(manifest_hash=manifest_hash(m)))
