"""Pictures that are nearly the same in many places, and tiles that are partly blank, are no coverage without a word."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from provisioning.catalogue import scan
from provisioning.catalogue.surveying import survey
from provisioning.sources.pixels import likeness
from provisioning.sources.pixels.image import decode, inspect_tile
from provisioning.sources.pixels.likeness import PERCEPTUAL_HASH_BYTES, alike, perceptual_hash_of
from tests.tilesets import Z, bbox_of, block, flight, image, scanned, write_xyz

BACKGROUNDS = [(232, 226, 208), (250, 250, 250), (20, 20, 24), (104, 108, 110)]


def placeholder(text="", background=BACKGROUNDS[0], side=256, size=20):
    """Return a provider's picture as Esri, Bing and others draw it; `text` is what differs from place to place."""
    drawn = Image.new("RGB", (side, side), background)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size)
    pen.text((side // 12, side // 3), "Map data not yet available", (90, 90, 90), font)
    pen.text((side // 12, side // 2), text, (90, 90, 90), font)
    return drawn


def land(seed, side=256):
    """Return a picture with detail at all scales, as ground has; one to draw on."""
    return _land(seed, side).copy()


@cache
def _land(seed, side):
    random, total = np.random.default_rng(seed), np.zeros((side, side, 3))
    for cells in (4, 8, 16, 32, 64):
        part = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(part.resize((side, side), Image.Resampling.BICUBIC), float) / cells**0.5
    return Image.fromarray((40 + 170 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def on_a_photo(n):
    """Return a placeholder over a blurred photograph: nothing about one alone shows that it is none."""
    drawn = land(1_000, 64)
    ImageDraw.Draw(drawn).text((4, 20), f"no imagery {n % 10}", (250, 250, 250), ImageFont.load_default(9))
    return drawn


def encoded(drawn, quality=80, kind="JPEG"):
    out = io.BytesIO()
    drawn.save(out, kind, quality=quality)
    return out.getvalue()


@cache
def ground(seed, quality=80):
    """Return a JPEG of `land`, which many tests look at again."""
    return encoded(land(seed), quality)


@cache
def look_of(data):
    return perceptual_hash_of(decode(data, max_pixels=1 << 22))


def groups_of(images, least=4):
    looks = [*map(look_of, images)]
    kept = [n for n, look in enumerate(looks) if look]
    table = np.frombuffer(b"".join(looks[n] for n in kept), np.uint8).reshape(-1, PERCEPTUAL_HASH_BYTES)
    return [[kept[i] for i in group] for group in alike(table, np.array(kept, np.int64), least=least)]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (16, 128), (2048, 64)])
def test_means_found_by_sums_of_whole_numbers_are_those_of_the_weights_to_the_last_bit(height, width):
    bands = np.random.default_rng(height).integers(0, 256, (3, 2, height, width), dtype=np.uint8)
    weighed = likeness._means(height) @ bands.astype(np.float32) @ likeness._means(width).T
    assert np.array_equal(likeness._cells_of(bands), weighed)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_picture_compressed_again_is_the_same_picture(background, kind):
    copies = [encoded(placeholder(background=background), quality, kind) for quality in (45, 60, 72, 88, 97)]
    grounds = [ground(seed, 60 + seed % 30) for seed in range(40)]
    assert groups_of([*grounds, *copies]) == [[40, 41, 42, 43, 44]]


@pytest.mark.parametrize("differs", ["2024-03-{n:02}", "16/{n}4123/22{n}17", "zoom {n}"])
def test_another_date_or_number_in_it_makes_no_other_picture(differs):
    copies = [encoded(placeholder(differs.format(n=n)), 80) for n in range(8)]
    assert groups_of([*copies, *(ground(seed) for seed in range(40))]) == [list(range(8))]


def test_different_ground_is_never_one_picture():
    assert groups_of([ground(seed, 60 + seed % 30) for seed in range(60)]) == []


def test_calm_water_and_even_slopes_have_no_look_or_no_like():
    random = np.random.default_rng(5)
    slope = np.linspace(0, 30, 256)[:, None, None]
    water = [60 + slope + random.normal(0, 2.5, (256, 256, 1)) + np.zeros(3) for _ in range(30)]
    assert groups_of([encoded(Image.fromarray(w.astype(np.uint8)), 75) for w in water]) == []


def test_three_places_are_not_many_and_one_place_in_four_sources_is_one():
    look = perceptual_hash_of(np.asarray(placeholder()))
    table = np.frombuffer(look * 4, np.uint8).reshape(4, PERCEPTUAL_HASH_BYTES)
    assert alike(table, np.arange(4), least=4) == [[0, 1, 2, 3]]
    assert alike(table, np.array([1, 2, 3, 3]), least=4) == []
    assert alike(table[:0], np.arange(0), least=4) == []


def with_placeholders(count, step=7):
    """Return 49 tiles of ground, `count` of them replaced by the provider's picture, compressed each time anew."""
    tiles = {at: encoded(land(n, 64)) for n, at in enumerate(block(7, 7))}
    return tiles | {at: encoded(on_a_photo(n), 60 + n) for n, at in enumerate(list(tiles)[::step][:count])}


@pytest.mark.parametrize("count", [4, 7])
def test_nearly_the_same_picture_in_many_places_is_a_hole_that_init_and_the_gate_name(tmp_path, count):
    tiles = with_placeholders(count)
    store = write_xyz(tmp_path / "sat", tiles, suffix=".jpg")
    held = survey(store)
    assert held.per_zoom[Z].present == 49 - count
    assert f"{count} of 49 tiles show a picture that repeats" in " ".join(held.notes)
    corpus = scanned(flight(tmp_path, store, bbox=bbox_of(tiles)))
    assert (corpus.count, corpus.per_zoom[Z].expected) == (49 - count, 49)
    assert f"{count} hold a picture that repeats (no imagery?), such as {Z}/" in corpus.hole_notes[Z]
    assert scanned(flight(tmp_path / "kept", store, bbox=bbox_of(tiles), blank="keep")).count == 49


def test_one_more_copy_makes_it_a_placeholder_as_a_clean_scan_would(tmp_path):
    first, more = with_placeholders(3), with_placeholders(4)
    store = write_xyz(tmp_path / "sat", first, suffix=".jpg")
    asked = flight(tmp_path, store, bbox=bbox_of(first))
    assert scan(asked.selection, asked.build_dir).count == 49
    write_xyz(store, {at: more[at] for at in more if more[at] != first[at]}, suffix=".jpg")
    grown, clean = (
        scan(asked.selection, asked.build_dir),
        scanned(flight(tmp_path / "clean", store, bbox=bbox_of(first))),
    )
    assert grown.count == 45
    assert grown.coverage_sha256 == clean.coverage_sha256


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (240, 236, 220), (255, 0, 255)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_border_of_any_colour_is_blank(colour, kind, share):
    drawn = land(1)
    drawn.paste(colour, (0, 0, 256, round(256 * share)))
    found = inspect_tile(encoded(drawn, 80, kind), max_pixels=1 << 20, nodata=())
    assert found.empty_ppm == pytest.approx(share * 1e6, abs=45_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_ground_without_a_border_is_not_blank(kind):
    assert inspect_tile(encoded(land(1), 80, kind), max_pixels=1 << 20, nodata=()).empty_ppm == 0


def test_tiles_that_are_partly_blank_are_asked_about_and_noted(tmp_path):
    tiles = {at: encoded(land(n)) for n, at in enumerate(block(3, 3))}
    for n, at in enumerate(list(tiles)[:3]):
        drawn = land(90 + n)
        drawn.paste((0, 0, 0), (0, 0, 256, 100))
        tiles[at] = encoded(drawn)
    store = write_xyz(tmp_path / "sat", tiles, suffix=".jpg")
    assert "3 OF 9 TILES ARE PARTLY BLANK" in " ".join(survey(store).notes)
    corpus = scanned(flight(tmp_path, store, bbox=bbox_of(tiles)))
    assert corpus.count == 9
    assert "3 of those there are partly blank" in corpus.hole_notes[Z]


@pytest.mark.parametrize("background", BACKGROUNDS[2:])
def test_a_drawing_on_one_colour_is_no_seam(background):
    for at in ((4, 4), (90, 120)):
        drawn = Image.new("RGB", (256, 256), background)
        ImageDraw.Draw(drawn).text(at, "15/17000/11000", (200, 60, 60), ImageFont.load_default(24))
        drawn.paste((60, 200, 60), (40, 200, 180, 240))
        assert inspect_tile(encoded(drawn), max_pixels=1 << 20, nodata=()).empty_ppm == 0


def test_scattered_plain_blocks_are_no_seam():
    pixels = np.asarray(land(3)).copy()
    for n in range(32):
        if n % 8:
            pixels[:, n * 8 : n * 8 + 8] = 128
    pixels[:64] = np.asarray(land(4))[:64]
    for turned in (pixels, pixels.swapaxes(0, 1)):
        found = inspect_tile(encoded(Image.fromarray(turned), 90, "PNG"), max_pixels=1 << 20, nodata=())
        assert found.empty_ppm < 500_000


@pytest.mark.parametrize(("times", "left"), [(3, 16), (4, 12)])
def test_a_picture_too_small_to_compare_is_no_imagery_where_it_repeats_to_the_last_byte(tmp_path, times, left):
    tiles = block(4, 4)
    tiles |= dict.fromkeys(list(tiles)[:times], image(1, side=4))
    assert perceptual_hash_of(decode(image(1, side=4), max_pixels=1 << 10)) is None
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles), blank="hole")
    assert scan(asked.selection, asked.build_dir).count == left
