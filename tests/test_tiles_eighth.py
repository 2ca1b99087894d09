"""What a JPEG's block means say of it is what all of its pixels say."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from provisioning.sources.pixels import eighth
from provisioning.sources.pixels.eighth import inspect_tiles
from provisioning.sources.pixels.image import inspect_tile
from provisioning.sources.pixels.likeness import COSINE
from tests.building import tile_image

LIMITS = {"max_pixels": 1 << 20, "nodata": ()}
SUBSAMPLINGS = ("420", "422", "444", "440", "411")


def field(rng):
    """Return a smooth random field with some noise, uint8 [128, 128, 3]."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((128, 128), Image.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, rng.choice([0, 3, 20]), (128, 128, 3)), 0, 255).astype(np.uint8)


def patched(rng):
    """Return a field with rectangles, seams and blocks of one colour anywhere, mostly black or white."""
    pixels = field(rng) if rng.integers(3) else np.kron(rng.integers(0, 256, (32, 32, 3)), np.ones((4, 4, 1)))
    pixels = pixels.astype(np.uint8).copy()
    for _ in range(rng.integers(0, 5)):
        y, x, height, width = *rng.integers(0, 120, 2), *rng.integers(4, 70, 2)
        pixels[y : y + height, x : x + width] = rng.choice([0, 255, rng.integers(0, 12), rng.integers(243, 256)])
    if rng.integers(3) == 0:
        seam = int(rng.integers(8, 120))
        pixels[:, seam:] = rng.integers(0, 256, 3)
    return pixels


def decisions(found):
    return found.empty_ppm, found.fault, found.texture_centi < 400, found.perceptual_hash is None


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_means_and_pixels_say_the_same(subsampling):
    rng = np.random.default_rng(SUBSAMPLINGS.index(subsampling))
    tiles = [simplejpeg.encode_jpeg(patched(rng), int(rng.integers(25, 98)), "RGB", subsampling) for _ in range(60)]
    whole = [inspect_tile(data, **LIMITS) for data in tiles]
    found = inspect_tiles(tiles, **LIMITS)
    assert [*map(decisions, found)] == [*map(decisions, whole)]
    assert any(each.empty_ppm for each in whole)
    assert any(not each.empty_ppm for each in whole)


def test_usual_imagery_is_not_looked_at_whole(monkeypatch):
    monkeypatch.setattr(eighth, "inspect_tile", lambda *_, **__: pytest.fail("decoded"))
    found = inspect_tiles([tile_image(seed) for seed in range(8)], **LIMITS)
    assert [(each.empty_ppm, each.fault) for each in found] == [(0, None)] * 8


def test_the_look_is_that_of_the_same_picture_in_another_format():
    for seed in range(6):
        jpeg = tile_image(seed)
        out = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).save(out, "PNG")
        a, b = (
            np.frombuffer(each.perceptual_hash[4:], np.int8).astype(int)
            for each in inspect_tiles([jpeg, out.getvalue()], **LIMITS)
        )
        assert a @ b >= (1 + COSINE) / 2 * 127 * 127


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_damaged_jpeg_has_the_fault_that_decoding_all_of_it_finds(seed):
    rng = np.random.default_rng(seed)
    whole = tile_image(seed)
    damaged = [whole[: int(cut)] for cut in rng.integers(0, len(whole), 12)]
    for _ in range(24):
        spoilt = bytearray(whole)
        for at in rng.integers(0, len(spoilt), 4):
            spoilt[at] = rng.integers(0, 256)
        damaged.append(bytes(spoilt))
    found = inspect_tiles(damaged, **LIMITS)
    assert [each.fault for each in found] == [inspect_tile(data, **LIMITS).fault for data in damaged]
    assert any(each.fault for each in found)


@pytest.mark.parametrize("side", [48, 64, 120, 250, 256, 512])
def test_tiles_of_every_size_come_back_in_their_order(side):
    tiles = [tile_image(1), b"no image", tile_image(2, side), tile_image(3)]
    found = inspect_tiles(tiles, **LIMITS)
    assert [*map(decisions, found)] == [decisions(inspect_tile(data, **LIMITS)) for data in tiles]


def test_a_tile_that_claims_too_many_pixels_is_not_decoded():
    (found,) = inspect_tiles([tile_image(0)], max_pixels=1000, nodata=())
    assert "more than tiles.max_pixels" in found.fault


def test_nodata_is_looked_for_in_every_pixel():
    pixels = np.full((256, 256, 3), (200, 30, 90), np.uint8)
    pixels[:, :200] = np.asarray(Image.open(io.BytesIO(tile_image(4))))[:, :200]
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 98, "RGB", "444")
    colour = tuple(int(each) for each in simplejpeg.decode_jpeg(data)[128, 250])
    for blank in (True, False):
        (found,) = inspect_tiles([data], max_pixels=1 << 20, nodata=colour, blank=blank)
        assert found == inspect_tile(data, max_pixels=1 << 20, nodata=colour, blank=blank)
        assert found.empty_ppm > 50_000
