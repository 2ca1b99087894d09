"""Promises of `flightcache status`, its metrics, and shell completion."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, FilesystemError, TileError
from provisioning.base.outcome import BuildReport, write_report
from provisioning.build.status import read_status
from provisioning.cli import main
from provisioning.cli.look import status as status_command
from provisioning.cli.look.metrics import metrics
from provisioning.flight.manifest import ZoomCount, to_bytes
from tests import report_models

BBOX = report_models.BBox(75476074, 472792290, 76794434, 473611530)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache directory with generation 7 published and one successful build behind it."""
    manifest = report_models.manifest(BBOX, {15: ZoomCount(132, 132, 0), 16: ZoomCount(520, 528, 400_000)})
    generation = tmp_path / "generations" / "000007"
    generation.mkdir(parents=True)
    (generation / "Manifest.json").write_bytes(to_bytes(manifest))
    (tmp_path / "current").symlink_to("generations/000007")
    (tmp_path / "flight.toml").write_text("")
    (tmp_path / ".build").mkdir()
    write_report(tmp_path / ".build", BuildReport(outcome="SUCCESS", engines_built=1, elapsed_s=8.25))
    return tmp_path


def test_status_names_generation_counter_hash_and_gaps(cache):
    status = read_status(cache)
    assert status.current is not None
    assert (status.current.counter, status.current.tiles, status.current.missing_tiles) == (7, 652, 8)
    assert len(status.current.manifest_hash) == 64
    assert status.last_build is not None
    assert status.last_build.outcome == "SUCCESS"


def test_text_for_a_person(cache, capsys):
    assert main(["status", str(cache)]) == 0
    output = capsys.readouterr().out
    assert "000007, published just now, not verified here" in output
    assert "SURVEY-0417 UAV-03" in output
    assert "652, 8 missing, oldest captured 2021-05-30" in output
    assert "SUCCESS, just now, took 8.2 s" in output


def test_json_holds_the_same(cache, capsys):
    assert main(["status", str(cache), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["current"]["counter"] == 7
    assert document["last_build"]["elapsed_s"] == 8.25


def test_nothing_published_is_said_calmly(tmp_path, capsys):
    (tmp_path / "flight.toml").write_text("")
    assert main(["status", str(tmp_path)]) == 0
    assert "nothing is published yet" in capsys.readouterr().out


def test_what_is_no_link_to_a_generation_is_not_nothing(built_cache, capsys):
    """As `cp -rL` and a copy without `generations` leave `current`; doit refuses the one, so does a plan of it."""
    current = built_cache / "current"
    target = current.resolve()
    current.unlink()
    current.symlink_to("generations/000009")
    assert main(["status", str(built_cache)]) == 0
    assert "names generations/000009, which is no generation that is here" in capsys.readouterr().out
    current.unlink()
    shutil.copytree(target, current)
    assert main(["status", str(built_cache)]) == 0
    assert "is no link to a generation" in capsys.readouterr().out
    assert main(["plan", str(built_cache)]) == FilesystemError.exit_code
    assert "mv current current.copy" in capsys.readouterr().err


@pytest.mark.parametrize("made", [os.mkdir, os.mkfifo])
def test_no_command_promises_a_build_over_what_is_no_catalogue(built_cache, capsys, made):
    path = built_cache / ".build/catalogue.sqlite"
    path.unlink(missing_ok=True)
    made(path)
    for command in ("plan", "tiles"):
        assert main([command, str(built_cache)]) == TileError.exit_code
        assert "the tile catalogue is no regular file" in capsys.readouterr().err
    path.rename(path.with_name("aside"))  # the next step
    assert main(["plan", str(built_cache)]) == 0


def test_a_directory_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no cache directory"):
        read_status(tmp_path)


def test_an_unreadable_manifest_is_reported_and_counts_as_not_published(cache):
    (cache / "generations/000007/Manifest.json").write_bytes(b"{}")
    status = read_status(cache)
    assert status.current is None
    assert "000007" in (status.unreadable or "")
    assert "flightcache_published{" in metrics(status)
    assert metrics(status).splitlines()[2].endswith(" 0")


def test_failure_is_reported_with_its_reason(cache, capsys):
    write_report(cache / ".build", BuildReport(outcome="FAILURE", failure_reason="no tiles\n  file: x", elapsed_s=0.1))
    main(["status", str(cache)])
    assert "reason      no tiles\n" in capsys.readouterr().out


def test_a_running_build_is_seen_without_taking_its_lock(cache):
    with open(cache / ".c10.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_status(cache).builder == os.getpid()
    assert read_status(cache).builder is None


def test_status_writes_nothing(cache):
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in cache.rglob("*"))
    main(["status", str(cache)])
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in cache.rglob("*")) == before


def test_metrics_file_is_replaced_whole_and_readable_by_the_collector(cache, tmp_path, capsys):
    target = tmp_path / "flightcache.prom"
    target.write_text("old")
    inode = target.stat().st_ino
    assert main(["status", str(cache), "--metrics", str(target)]) == 0
    assert target.stat().st_ino != inode
    assert target.stat().st_mode & 0o044 == 0o044
    assert 'flightcache_counter{cache="' in target.read_text()


def test_every_metric_has_help_type_and_one_number(cache):
    lines = metrics(read_status(cache)).splitlines()
    for help_line, type_line, sample in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        name = help_line.split()[2]
        assert help_line.startswith("# HELP ")
        assert type_line == f"# TYPE {name} gauge"
        assert sample.startswith(name + "{")
        float(sample.rpartition(" ")[2])


def test_labels_cannot_break_out_of_the_metrics_format(cache):
    odd = cache.parent / 'a"b\\c'
    shutil.copytree(cache, odd, symlinks=True)
    assert 'a\\"b\\\\c' in metrics(read_status(odd))


@pytest.mark.parametrize(
    ("seconds", "expected"), [(3, "just now"), (61, "1 minute ago"), (7_300, "2 hours ago"), (200_000, "2 days ago")]
)
def test_ages_for_reading(seconds, expected):
    assert status_command.ago(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(512, "512 B"), (1_440_000, "1.4 MB"), (23_000_000_000, "23 GB"), (9_999_999, "10.0 MB")]
)
def test_sizes_for_reading(count, expected):
    assert status_command.size(count) == expected


def test_the_time_of_each_step_is_reported_longest_first(cache, capsys):
    from provisioning.build.history import remember

    facts = {"engine:net": {}, "corpus": {}, "descriptors": {}}
    remember(cache / ".build", facts, {"engine:net": 12.5, "corpus": 0.25, "descriptors": 0.004})
    assert main(["status", str(cache)]) == 0
    assert "steps       4 ms a descriptor, engine:net 12 s, corpus 0.25 s\n" in capsys.readouterr().out
    remember(cache / ".build", facts, {"engine:net": 1250, "descriptors": 0.87})
    assert main(["status", str(cache)]) == 0
    steps = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("steps"))
    assert steps == "steps       870 ms (before 4) a descriptor, engine:net 1250 s (before 12), corpus 0.25 s"


def test_the_time_of_a_step_stands_beside_that_of_the_time_before(cache, capsys):
    from provisioning.build.history import remember

    facts = {"engine:net": {}, "corpus": {}, "descriptors": {}}
    remember(cache / ".build", facts, {"engine:net": 12.5, "corpus": 0.25, "descriptors": 0.004})
    remember(cache / ".build", facts, {"corpus": 0.5, "descriptors": 0.002})
    assert main(["status", str(cache)]) == 0
    expected = "steps       2 ms (before 4) a descriptor, engine:net 12 s, corpus 0.5 s (before 0.25)\n"
    assert expected in capsys.readouterr().out
    assert read_status(cache).task_seconds_before == {"corpus": 0.25, "descriptors": 0.004}


def test_the_time_of_a_model_that_was_taken_away_is_forgotten(cache):
    from provisioning.build.history import remember

    remember(cache / ".build", {"engine:old": {}, "gates": {}}, {"engine:old": 9.0, "gates": 1.0})
    remember(cache / ".build", {"gates": {}}, {})
    assert read_status(cache).task_seconds == {"gates": 1.0}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"facts": {}, "seconds": {"x": NaN, "y": -1, "z": Infinity}}', "\xff"]
)
def test_an_odd_history_is_no_history(cache, text):
    (cache / ".build" / "history.json").write_text(text)
    assert read_status(cache).task_seconds == {}
