"""Promises about tiles that are not recognised: each is shown beside what it was taken for, within bounds."""

import base64
import dataclasses
import io
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

from provisioning.cli.begin import demo_imagery as demo
from provisioning.report.failures import distance_m
from provisioning.report.map.mosaic import MAX_PICTURE_BYTES, MOST_PICTURED, PICTURE_SIDE, small_picture
from provisioning.report.model import Failure, Picture, ReportModel
from provisioning.report.page import render
from tests import report_models


@cache
def encoded(seed: int, kind: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def model():
    manifest = report_models.manifest(demo.area(), {16: report_models.ZoomCount(1, 1, 0)})
    return ReportModel(manifest=manifest)


@cache
def picture_of(number: int) -> bytes | None:
    return small_picture(encoded(number, "PNG"))


def failure(number: int, *, source: str = "ortho", why: str = "found only with the heading known") -> Failure:
    picture = picture_of(number)
    return Failure(Picture(16, 100 + number, 200, "ortho", picture), Picture(16, 104, 203, source, picture), why)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_a_small_jpeg_and_the_same_each_time(kind):
    data = encoded(1, kind)
    picture = small_picture(data)
    assert picture == small_picture(data)
    assert len(picture) <= MAX_PICTURE_BYTES  # of noise, which no JPEG makes small
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size) == ("JPEG", (PICTURE_SIDE, PICTURE_SIDE))


def test_what_is_no_image_has_no_picture():
    assert small_picture(b"\xff\xd8 truncated") is None


def test_each_tile_stands_beside_what_it_was_taken_for(model):
    failures = (failure(0), failure(1, source="<b>"))
    page = render(dataclasses.replace(model, failures=failures)).decode()
    pictures = re.findall(r'<img [^>]*alt="([^"]*)"[^>]*src="data:image/jpeg;base64,([^"]*)"', page)
    assert [name for name, _ in pictures] == [
        "16/100/200 of ortho", "16/104/203 of ortho", "16/101/200 of ortho", "16/104/203 of &lt;b&gt;",
    ]  # fmt: skip
    assert [base64.b64decode(data) for _, data in pictures] == [p.jpeg for f in failures for p in f[:2]]
    assert "16/101/200 taken for 16/104/203 of &lt;b&gt;, " in page
    assert '<a href="#failures">' in page


def test_a_tile_that_cannot_be_read_says_so(model):
    gone = failure(0)._replace(tile=Picture(16, 100, 200, "ortho"))
    page = render(dataclasses.replace(model, failures=(gone,))).decode()
    assert "16/100/200 of ortho: cannot be read" in page
    assert page.count("<img ") == 1


def test_however_many_are_not_recognised_the_page_stays_small_and_counts_them(model):
    many = tuple(failure(number % 7) for number in range(MOST_PICTURED + 50))
    page = render(dataclasses.replace(model, failures=many)).decode()
    assert page.count("<img ") == 2 * MOST_PICTURED
    assert len(page) < 500_000
    assert f"{len(many)} were not found" in page
    assert "50 more without picture" in page


def test_without_failures_there_is_no_section(model):
    assert 'id="failures"' not in render(model).decode()


@pytest.mark.parametrize(("x", "metres"), [(1, 78_272), (3, 234_815), (511, 78_272), (510, 156_543)])
def test_the_distance_goes_the_shorter_way_around_the_earth(x, metres):
    one, other = Picture(9, 0, 256, "a"), Picture(9, x, 256, "a")
    assert distance_m(one, other) == pytest.approx(metres, abs=1)
