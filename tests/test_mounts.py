"""A cache on an overlay over several file systems verifies; a file of another mount is refused there too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.caches import KEY, public, publish
from tests.test_attacks import MOUNTED

OVERLAY = """
set -e; cd "$1"; mount -t tmpfs none upper; mkdir upper/files upper/work
mount -t overlay none -o lowerdir=lower,upperdir=upper/files,workdir=upper/work merged
cp -a made/. merged/; {more}
exec "$2" -c "$3" merged/{cache} "$4"
"""


def reasons(tmp_path, more="", cache=""):
    """Verify a cache in an overlay of two file systems, after the shell lines `more`: made there, or `site` from below."""
    for name in ("upper", "merged"):
        (tmp_path / name).mkdir()
    publish(tmp_path / "made")
    publish(tmp_path / "lower" / "site")
    script = OVERLAY.format(more=more, cache=cache)
    words = ["unshare", "-m", "sh", "-c", script, "-", tmp_path, sys.executable, MOUNTED, public(KEY).raw.hex()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_a_cache_on_an_overlay_over_several_file_systems_verifies(tmp_path):
    assert reasons(tmp_path) == []


def test_a_cache_that_lies_in_both_layers_of_an_overlay_verifies(tmp_path):
    """A live system: most of it was there at its start, one file was written since."""
    file = "merged/site/generations/000007/report.html"
    assert reasons(tmp_path, f"cp -p {file} copy; cp -p copy {file}", "site") == []


def test_a_file_system_that_is_mounted_into_a_cache_on_an_overlay_is_refused(tmp_path):
    below = "merged/generations/000007/calibration"
    more = f"cp -a {below} copy; mount -t tmpfs none {below}; cp -a copy/. {below}/"
    names = ("camera.yml", "camera.yml.sha256")
    assert reasons(tmp_path, more) == [f"other-file-system calibration/{name}" for name in names]
