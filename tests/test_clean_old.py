"""`.build` does not grow without bound, and `flightcache clean --old` removes what nothing uses, and only that."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from provisioning.base.errors import Error
from provisioning.build import unused
from provisioning.build.request import read_request
from provisioning.cli import main
from provisioning.flight import publish
from tests import building, crashing, faults

OLD_S = time.time() - 40 * 86_400


@pytest.fixture(scope="module")
def site(built_site, tmp_path_factory):
    """A cache built twice, the second time with other descriptors."""
    home = tmp_path_factory.mktemp("clean") / "site"
    cache = building.copy_site(built_site, home)
    building.edit(cache, '# dtype = "float32"', 'dtype = "float16"')
    building.edit(cache, "# keep_generations = 2", "keep_generations = 1")
    assert building.build(cache).outcome == "SUCCESS"
    return home


@pytest.fixture
def cache(site, tmp_path):
    copy = building.copy_site(site, tmp_path / "site")
    assert building.build(copy).outcome == "IDEMPOTENT_NO_OP"  # a copy is scanned anew
    return copy


def held(cache: Path) -> set[str]:
    store = cache / ".build"
    return {f"{folder}/{name}" for folder in ("store", "descriptors", "gates") for name in os.listdir(store / folder)}


def add_keys(cache: Path, count: int, suffix: str = ".engine", *, used_s: float | None = None) -> set[str]:
    """Put artefacts of other requests into the store."""
    for number in range(count):
        folder = cache / ".build" / "store" / f"{number:064x}"
        folder.mkdir()
        (folder / f"m{suffix}").write_bytes(bytes(5000))
        os.utime(folder, (used_s or time.time() - count + number,) * 2)
    return {f"store/{number:064x}" for number in range(count)}


def test_what_an_edit_left_is_listed_and_removed_and_doit_has_nothing_to_do(cache, capsys):
    before = held(cache)
    listed = {each.path for each in unused.find_unused(read_request(cache))}
    assert any(path.startswith("descriptors/") for path in listed), "the float32 descriptors"
    generation = sorted((path, path.read_bytes()) for path in (cache / "current").rglob("*") if path.is_file())

    assert main(["clean", "--old", str(cache)]) == 0
    assert "nothing was removed: add --yes" in capsys.readouterr().out
    assert held(cache) == before

    assert main(["clean", "--old", "-n", str(cache)]) == 0
    assert held(cache) == before
    assert main(["clean", "--old", "--yes", str(cache)]) == 0
    assert "MB freed" in capsys.readouterr().out
    assert held(cache) == before - listed
    assert generation == sorted((path, path.read_bytes()) for path in (cache / "current").rglob("*") if path.is_file())
    built = building.build(cache)
    assert (built.outcome, built.ran) == ("IDEMPOTENT_NO_OP", ())
    assert main(["clean", "--old", "--yes", str(cache)]) == 0
    assert capsys.readouterr().out.endswith("nothing in .build is unused\n")


def test_what_the_last_build_used_stays_although_flight_toml_has_changed(cache):
    used = held(cache) - {each.path for each in unused.find_unused(read_request(cache))}
    building.edit(cache, 'dtype = "float16"', 'dtype = "float32"')
    listed = {each.path for each in unused.find_unused(read_request(cache))}
    kept = {path for path in used if path.startswith("descriptors/")}
    assert kept
    assert not kept & listed
    current = {os.stat(path).st_ino for path in (cache / "current").rglob("*") if path.is_file()}
    for path in listed:
        folder = cache / ".build" / path
        assert not current & {os.stat(file).st_ino for file in folder.rglob("*")}, path


def test_it_waits_for_the_lock_and_says_who_has_it(cache, capsys):
    from provisioning.base.disk.lock import build_lock

    before = held(cache)
    pid = os.fork()
    if pid == 0:
        with build_lock(cache, timeout_s=1.0):
            time.sleep(30)
        os._exit(0)
    try:
        time.sleep(0.3)
        assert main(["clean", "--old", "--yes", str(cache)]) != 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert "lock" in capsys.readouterr().err
    assert held(cache) == before


def test_descriptors_that_another_process_has_open_stay(cache, capsys):
    import fcntl

    request = read_request(cache)
    other = next(each for each in unused.find_unused(request) if each.path.startswith("descriptors/"))
    with open(cache / ".build" / other.path / ".users") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        assert main(["clean", "--old", "--yes", str(cache)]) == 0
    assert "in use by another process" in capsys.readouterr().out
    assert (cache / ".build" / other.path).is_dir()


def test_a_removal_that_was_cut_off_is_found_again(cache):
    (cache / ".build" / "store" / ("0" * 64 + ".removed")).mkdir()
    request = read_request(cache)
    unused.remove(request, unused.find_unused(request))
    assert not [path for path in held(cache) if path.endswith(".removed")]


def test_before_the_first_scan_nothing_is_said_to_be_unused(tmp_path, capsys):
    cache = building.new_cache(tmp_path, side=2)
    assert main(["clean", "--old", "--yes", str(cache)]) != 0
    assert "doit" in capsys.readouterr().err


def test_old_has_to_be_said(cache, capsys):
    with pytest.raises(SystemExit):
        main(["clean", str(cache)])
    assert "--old" in capsys.readouterr().err


def test_an_old_key_goes_after_the_next_build_and_a_young_one_stays(cache):
    young = add_keys(cache, 1)
    old = {f"store/{'e' * 64}"}
    (cache / ".build" / "store" / ("e" * 64)).mkdir()
    os.utime(cache / ".build" / "store" / ("e" * 64), (OLD_S, OLD_S))
    building.edit(cache, 'id = "F-1"', 'id = "F-2"')
    assert building.build(cache).outcome == "SUCCESS"
    assert young <= held(cache)
    assert not old & held(cache)


def test_zero_days_keep_all(cache):
    many = add_keys(cache, unused.MOST_OF_A_KIND + 5, used_s=OLD_S)
    building.edit(cache, "keep_generations = 1", "keep_generations = 1\nkeep_build_days = 0")
    building.edit(cache, 'id = "F-1"', 'id = "F-2"')
    assert building.build(cache).outcome == "SUCCESS"
    assert many <= held(cache)


def test_of_each_kind_the_newest_few_stay_however_young(cache):
    engines = add_keys(cache, unused.MOST_OF_A_KIND + 4)
    request = read_request(cache)
    gone = {each.path for each in unused.tidy(request)}
    assert {f"store/{number:064x}" for number in range(4)} <= gone
    assert len(engines - gone) <= unused.MOST_OF_A_KIND


@pytest.mark.parametrize("rounds", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_rounds_of_edits_do_not_grow_the_build_directory(cache, monkeypatch, rounds):
    monkeypatch.setattr(unused, "MOST_OF_A_KIND", 2)
    sizes = []
    for number in range(rounds):
        building.edit(cache, f'id = "F-{number + 1}"', f'id = "F-{number + 2}"')
        assert building.build(cache).outcome == "SUCCESS"
        sizes.append(len(held(cache)))
    assert max(sizes) == sizes[-1] == sizes[3], sizes


@pytest.mark.slow
def test_two_hundred_rounds_of_edits_leave_a_bounded_build_directory(tmp_path, capsys):
    """A tile each round, another network each fifth, another kind of index each seventh, with the limits as they are."""
    sizes = crashing.in_clean_process(sizes_of_rounds, tmp_path, 200)
    with capsys.disabled():
        print(f"\n.build after 50, 100, 150, 200 rounds (bytes, files): {sizes[49::50]}", end=" ")
    for before, after in zip(sizes[99], max(sizes[150:]), strict=True):
        assert after < 1.1 * before, "it is as large after a hundred rounds as after two hundred"


def sizes_of_rounds(home: Path, rounds: int) -> list[tuple[int, int]]:
    cache = crashing.new_world(home / "world")
    return [size_after(home / "world", cache, number) for number in range(rounds)]


def size_after(world: Path, cache: Path, number: int) -> tuple[int, int]:
    """Edit, build, and return the bytes and the number of files of `.build`."""
    crashing.put_tile(world / "tiles", number % 2, 1, seed=number)
    if number % 5 == 4:
        model = onnx.load(world / "net.onnx")
        weights = model.graph.initializer[0]
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(0.125), weights.name))
        onnx.save(model, world / "net.onnx")
    if number % 7 == 6:
        head, section, tail = (cache / "flight.toml").read_text().partition("[index]")
        kind = "flat" if number % 2 else "sqfp16"
        (cache / "flight.toml").write_text(
            head + section + re.sub('(# )?kind = ".*"', f'kind = "{kind}"', tail, count=1)
        )
    built = faults.run(lambda: crashing.build(cache), cache)
    assert built.value.outcome == "SUCCESS", built
    found = [path.lstat() for path in (cache / ".build").rglob("*") if path.is_file()]
    return sum(status.st_blocks * 512 for status in found), len(found)


def test_what_doit_keeps_of_a_task_does_not_grow(cache):
    """Each build has files at new addresses; doit keeps the state of every file that a task ever depended on."""
    sizes = []
    for number in range(3):
        building.edit(cache, f'id = "F-{number + 1}"', f'id = "F-{number + 2}"')
        assert building.build(cache).outcome == "SUCCESS"
        with closing(sqlite3.connect(cache / ".build" / "doit.sqlite")) as db:
            sizes.append(sum(len(json.loads(row)) for (row,) in db.execute("SELECT task_data FROM doit")))
    assert sizes[0] == sizes[1] == sizes[2], sizes


def test_a_build_that_cannot_tidy_warns_and_is_published(cache, monkeypatch, caplog):
    def fails(_request):
        raise Error("the disk said no")

    monkeypatch.setattr("provisioning.build.unused.tidy", fails)
    building.edit(cache, 'id = "F-1"', 'id = "F-2"')
    assert building.build(cache).outcome == "SUCCESS"
    assert "tidy.failed" in caplog.text


def test_using_a_key_again_makes_it_young(cache):
    request = read_request(cache)
    for folder in ("store", "descriptors"):
        for path in (cache / ".build" / folder).iterdir():
            os.utime(path, (OLD_S, OLD_S))
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
    assert (cache / ".build" / "store" / request.index.key).stat().st_mtime > OLD_S + 86_400
    assert publish.current_generation(cache) is not None
