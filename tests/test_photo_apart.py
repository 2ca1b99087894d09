"""A photo is read in a process of its own: the same photo, and a hostile one is one error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import PhotoError
from provisioning.base.process import confined
from provisioning.quality.locate import photo as photos
from provisioning.quality.locate.photo import read_photo, read_position


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    with confined.apart(tmp_path_factory.mktemp("beside")):
        yield


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description drone-dji:GimbalYawDegree="31.5" '
    b'drone-dji:GimbalPitchDegree="-90.0" drone-dji:GimbalRollDegree="0.0" drone-dji:RelativeAltitude="+120.3" '
    b'drone-dji:CalibratedFocalLength="3666.6"/></x:xmpmeta>'
)


def written(path, **exif):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    tags = Image.Exif()
    tags[0x8825] = {1: "N", 2: (46.0, 57.0, 3.6), 3: "W", 4: (7.0, 26.0, 52.8)}
    for tag, value in exif.items():
        tags[int(tag[1:])] = value
    image.save(path, exif=tags, **({"xmp": XMP} if path.suffix == ".jpg" else {}))
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "turned.jpg"])
def test_the_photo_is_the_same_as_if_it_were_read_here(scope, tmp_path, monkeypatch, name):
    path = written(tmp_path / name, **({"t274": 6} if name == "turned.jpg" else {}))
    there, position = read_photo(path), read_position(path)
    with monkeypatch.context() as patched:
        patched.setattr(confined, "_scope", None)
        here = read_photo(path)
    assert (there.pixels == here.pixels).all()
    assert there[1:] == here[1:]
    assert position == here.position is not None
    assert type(there.metadata.camera) is type(here.metadata.camera)


def test_what_is_no_photo_is_refused_as_before(scope, tmp_path):
    for data in (b"", b"%!PS", b"\xff\xd8\xff broken"):
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(PhotoError, match="not a"):
            read_photo(tmp_path / "a.jpg")


def test_a_photo_that_takes_long_is_ended(scope, tmp_path, monkeypatch):
    out = io.BytesIO()
    Image.new("L", (4000, 4000)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + 1000 * scan + b"\xff\xd9")
    monkeypatch.setattr(photos, "LIMITS", confined.Limits(time_s=0.7))
    with pytest.raises(PhotoError, match="had not been read in time"):
        read_photo(tmp_path / "a.jpg")


def test_the_command_reads_photos_in_another_process_that_ends_with_it(tmp_path):
    """The command fails before it comes to a photo; what is shown is that nothing is left in TMPDIR, and how it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "provisioning.cli", "locate", str(tmp_path / "a.jpg"), "--cache", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, 1), done.stderr
    assert not list(tmp_path.glob("apart-*"))
