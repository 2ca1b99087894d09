"""What earlier versions made is still of use: caches verify, `.build` is continued, keys sign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.base.disk import artifacts
from provisioning.base.errors import EmptyCorpusError
from provisioning.cli import main
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import ANY, Expectations, verify
from tests import building

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "b3dc0a6"
"""The last commit before the packages were arranged anew and records were renamed."""
OLD_BUILD = """\
from pathlib import Path
import provisioning
from tests import building
assert Path(provisioning.__file__).is_relative_to(Path("old").absolute())
assert building.build(building.new_cache(Path.cwd(), network=building.GIST)).outcome == "SUCCESS"
"""


def _verifies(cache: Path) -> bool:
    key = load_public_key(cache.parent / "key.pub.pem")
    with verify(cache, Expectations((key,), flight_id="F-1", aircraft_id=ANY, host=ANY, counter_floor=ANY)) as verdict:
        return verdict.passed


def _as_before(cache: Path) -> None:
    """Name the records of a cache as early versions did."""
    records = [path for path in (cache / ".build/store").rglob("*") if path.suffix == artifacts.RECORD_SUFFIX]
    assert len(records) > 5
    for path in records:
        path.rename(path.with_suffix(artifacts.EARLIER_RECORD_SUFFIX))


def test_a_build_goes_on_with_records_of_the_earlier_name(built_cache):
    cache = built_cache
    _as_before(cache)
    again = building.build(cache)
    assert (again.outcome, again.ran) == ("IDEMPOTENT_NO_OP", ())
    building.edit(cache, "F-1", "F-2")
    resigned = building.build(cache)
    assert (resigned.outcome, resigned.report.engines_built) == ("SUCCESS", 0)


def test_a_file_that_differs_from_its_earlier_record_is_made_again(tmp_path):
    target = artifacts.Target(tmp_path, "index", "corpus.index", {"format": 1})
    with artifacts.atomic_output(target) as path:
        path.write_bytes(b"an index")
    target.record.rename(target.earlier_record)
    assert artifacts.is_intact(target)
    target.path.chmod(0o644)
    target.path.write_bytes(b"an 1ndex")
    assert not artifacts.is_intact(target)


def test_what_is_removed_leaves_no_earlier_record(tmp_path):
    target = artifacts.Target(tmp_path, "index", "corpus.index", {"format": 1})
    with artifacts.atomic_output(target) as path:
        path.write_bytes(b"an index")
    target.record.rename(target.earlier_record)
    artifacts.remove(target)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def old_cache(tmp_path: Path) -> Path:
    """A cache built by the code of the commit BEFORE, in a process of its own."""
    home = tmp_path
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not there to bring the earlier code")
    packed = subprocess.run([git, "archive", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"commit {BEFORE} is not in this checkout")
    (home / "old").mkdir()
    subprocess.run(["tar", "-x", "-C", "old"], cwd=home, input=packed.stdout, check=True)
    environment = {**os.environ, "PYTHONPATH": str(home / "old"), "PYTHONSAFEPATH": "1"}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    (home / "build.py").write_text("import sys\nsys.path.insert(0, 'old')\n" + OLD_BUILD)
    done = subprocess.run(
        [sys.executable, "build.py"], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "cache"


@pytest.mark.slow
def test_a_cache_of_the_commit_before_verifies_and_is_continued(old_cache, capfd):
    assert _verifies(old_cache)
    for command in ("status", "plan", "host"):
        assert main([command, str(old_cache)]) in (0, 1), capfd.readouterr().err
    assert main(["tiles", str(old_cache)]) == EmptyCorpusError.exit_code, "its catalogue is of an earlier format"
    assert "flightcache tiles --scan" in capfd.readouterr().err
    assert main(["tiles", "--scan", str(old_cache)]) == 0
    built = building.build(old_cache)
    assert built.failure is None
    assert (built.report.engines_built, built.report.descriptors_generated) == (0, 0), "finished work is not done twice"
    assert _verifies(old_cache)
    assert building.build(old_cache).outcome == "IDEMPOTENT_NO_OP"
    building.edit(old_cache, "F-1", "F-2")
    assert building.build(old_cache).outcome == "SUCCESS", "the key of the earlier version signs"
    assert main(["rollback", str(old_cache)]) == 0
    assert _verifies(old_cache)
