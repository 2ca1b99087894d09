"""Generations: staged whole, committed in one step, kept in number, recovered, rolled back."""

from __future__ import annotations

import errno
import logging
import os
import shutil

import pytest

from provisioning.base.disk import artifacts, directories, files
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import FilesystemError, VerificationError
from provisioning.base.hashing import sha256_file
from provisioning.cli.deliver import rollback as rollback_command
from provisioning.flight import publish
from tests import caches, crashing, generations
from tests.generations import CAMERA, ENGINE, INDEX, build, faults_in, new_cache


@pytest.fixture
def cache(tmp_path):
    """A cache directory with nothing built."""
    return new_cache(tmp_path / "cache")


def numbers(cache) -> list[str]:
    return sorted(path.name for path in (cache / "generations").iterdir())


def test_a_build_makes_the_first_generation_current(cache):
    assert publish.current_generation(cache) is None
    assert build(cache, 1) == publish.current_generation(cache) == cache / "generations" / "000001"
    assert os.readlink(cache / "current") == "generations/000001"
    assert faults_in(cache / "generations" / "000001") == []


def test_the_number_of_kept_generations_is_the_limit(cache):
    for revision in range(1, 6):
        build(cache, revision, keep=3)
    assert numbers(cache) == ["000003", "000004", "000005"]
    build(cache, 6, keep=1)
    assert numbers(cache) == ["000006"]


def test_artefacts_share_their_bytes_with_the_store_and_user_files_do_not(cache):
    generation = build(cache, 1)
    shelf = generations.targets(cache, 1)
    assert os.path.samefile(generation / ENGINE, shelf[ENGINE].path)
    assert not os.path.samefile(generation / CAMERA, cache / "camera.json")


def test_where_links_are_refused_bytes_are_copied(cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    generation = build(cache, 1)
    assert faults_in(generation) == []
    assert (generation / ENGINE).stat().st_nlink == 1


def test_a_failing_link_is_an_error_and_not_a_copy(cache, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(FilesystemError) as caught:
        build(cache, 1)
    assert caught.value.what == "cannot stage a generation: Input/output error"
    assert caught.value.file.startswith(str(cache / ".build" / "stage"))


def test_a_published_generation_is_read_only(cache):
    before = os.umask(0)
    try:
        generation = build(cache, 1)
    finally:
        os.umask(before)
    for path in (generation, *generation.rglob("*")):
        assert path.stat().st_mode & 0o222 == 0, path
        assert path.is_dir() or path.stat().st_mode & 0o777 == 0o444, path


def test_an_artefact_that_changed_since_its_birth_is_not_published(cache):
    shelf = generations.targets(cache, 1)
    with build_lock(cache):
        for target in shelf.values():
            generations.make(target)
    records = {name: artifacts.read_record(target) for name, target in shelf.items()}
    sources = {name: target.path for name, target in shelf.items()} | {CAMERA: cache / "camera.json"}
    data = generations.manifest.to_bytes(generations.a_manifest(1, sources))
    shelf[INDEX].path.chmod(0o644)
    shelf[INDEX].path.write_bytes(b"x" * shelf[INDEX].path.stat().st_size)
    with pytest.raises(FilesystemError, match="changed after it was made") as caught:
        publish.stage(cache, manifest=data, signature=bytes(64), files=sources, records=records)
    assert caught.value.file == str(shelf[INDEX].path)
    assert stage_names(cache) == []


def test_a_stage_that_cannot_fit_is_refused_before_it_is_written(cache, monkeypatch):
    build(cache, 1)
    monkeypatch.setattr(files, "free_bytes", lambda path: 5)
    with pytest.raises(FilesystemError, match="not enough space for the staged generation"):
        build(cache, 2)
    assert faults_in(publish.current_generation(cache)) == []


def test_a_return_to_an_earlier_generation_needs_no_room_where_bytes_can_be_shared(cache, monkeypatch):
    build(cache, 1)
    build(cache, 2)
    monkeypatch.setattr(files, "free_bytes", lambda path: 0)
    assert faults_in(generations.rolled_back(cache)) == []


def test_a_copy_that_cannot_fit_is_refused_before_it_is_written(cache, monkeypatch):
    build(cache, 1)
    build(cache, 2)

    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(files, "free_bytes", lambda path: 5)
    with pytest.raises(FilesystemError, match=r"not enough space for a copy of camera\.json"):
        generations.rolled_back(cache)


def test_what_is_staged_takes_the_place_of_an_older_stage(cache):
    build(cache, 1)
    build(cache, 2)
    for _ in range(2):
        staged = generations.rolled_back(cache)
    assert faults_in(staged) == []
    assert os.listdir(staged.parent) == [staged.name]


def test_publishing_is_an_event(cache, caplog):
    with caplog.at_level(logging.INFO, logger="c10.provision"):
        build(cache, 1)
    published = [r.kv for r in caplog.records if r.kind == "c10.provision.published"]
    assert [(fields["generation"], fields["counter"]) for fields in published] == [
        (str(cache / "generations" / "000001"), 1)
    ]


def test_the_next_counter_is_above_everything_that_is_remembered_anywhere(cache):
    assert publish.next_counter(cache) == 1
    (cache / "current").symlink_to("generations/000004")
    assert publish.next_counter(cache) == 5
    (cache / "generations" / "000006").mkdir(parents=True)
    assert publish.next_counter(cache) == 7
    (cache / ".build").mkdir()
    (cache / ".build" / "counter").write_text("8\n")
    assert publish.next_counter(cache) == 9


def test_the_counter_outlives_every_generation(cache):
    build(cache, 1)
    build(cache, 2)
    (cache / "current").unlink()
    directories.remove(cache, "generations")
    assert build(cache, 3).name == "000003"


def test_the_counter_outlives_the_build_directory(cache):
    build(cache, 1)
    build(cache, 2)
    shutil.rmtree(cache / ".build")
    assert build(cache, 3).name == "000003"


def test_the_counter_outlives_build_directory_and_link(cache):
    for revision in (1, 2, 3):
        build(cache, revision, keep=3)
    shutil.rmtree(cache / ".build")
    (cache / "current").unlink()
    assert build(cache, 4).name == "000004", "without a link nobody knows whether the newest was published"


def test_a_moved_cache_goes_on(cache, tmp_path):
    build(cache, 1)
    moved = cache.rename(tmp_path / "moved")
    generations.made.clear()
    assert build(moved, 1) == moved / "generations" / "000001"
    assert generations.made == []


def test_a_current_with_a_slash_behind_it_names_its_generation(cache):
    generation = build(cache, 1)
    (cache / "current").unlink()
    (cache / "current").symlink_to("generations/000001/")
    assert publish.current_generation(cache) == generation


def test_a_current_that_is_no_link_to_a_generation_names_none(cache):
    build(cache, 1)
    for target in (
        "generations/000009",
        "generations/000001X",
        "elsewhere",
        "generations/x",
        "/generations/000001",
        "../generations/000001",
        "generations/000001/..",
    ):
        (cache / "current").unlink(missing_ok=True)
        (cache / "current").symlink_to(target)
        assert publish.current_generation(cache) is None


def test_a_copy_that_followed_the_link_is_refused_before_anything_is_made(cache):
    build(cache, 1)
    whole = os.readlink(cache / "current")
    (cache / "current").unlink()
    shutil.copytree(cache / whole, cache / "current")
    before = sorted(cache.rglob("*"))
    with pytest.raises(FilesystemError, match="`current` is a directory") as caught:
        publish.recover(cache, keep=3)
    assert "mv current" in caught.value.next_step
    assert sorted(cache.rglob("*")) == before


def test_recovery_removes_what_nobody_finished_and_nothing_else(cache):
    build(cache, 1)
    build(cache, 2)
    before = sorted(path for path in cache.rglob("*"))
    dead = "0"
    for place in (
        cache,
        cache / ".build",
        cache / ".build" / "stage",
        cache / "generations" / "..",
        cache / ".build" / "store",
    ):
        (place / f".tmp-{dead}-1-x").write_bytes(b"")
    (cache / ".build" / "stage" / f".tmp-{dead}-2-000003" / "deep").mkdir(parents=True)
    (cache / "generations" / "000003").mkdir()
    publish.recover(cache, keep=2)
    publish.recover(cache, keep=2)
    assert sorted(path for path in cache.rglob("*")) == before


def test_recovery_that_fails_says_so(cache, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(FilesystemError) as caught:
        publish.recover(cache, keep=2)
    assert caught.value.what == "cannot clean up after an interrupted build: Input/output error"
    assert caught.value.file == str(cache)


def test_recovery_leaves_a_file_of_the_user_with_a_like_name(cache):
    (cache / ".tmp-notes").write_bytes(b"mine")
    publish.recover(cache, keep=2)
    assert (cache / ".tmp-notes").exists()


def test_recovery_takes_no_permission_from_what_a_link_names(cache, tmp_path):
    generation = build(cache, 1)
    (tmp_path / "mine").mkdir(mode=0o755)
    generation.chmod(0o755)
    (generation / "link").symlink_to(tmp_path / "mine")
    publish.recover(cache, keep=2)
    assert generation.stat().st_mode & 0o222 == 0
    assert (tmp_path / "mine").stat().st_mode & 0o200


def test_recovery_of_a_directory_where_nothing_was_built_is_nothing(cache):
    before = sorted(path for path in cache.rglob("*"))
    publish.recover(cache, keep=2)
    assert sorted(path for path in cache.rglob("*")) == before


def test_recovery_leaves_the_temporary_file_of_a_living_writer_in_a_shared_store(cache):
    shared = cache / ".build" / "descriptors" / "key"
    shared.mkdir(parents=True)
    living, dead = shared / f".tmp-{os.getppid()}-1-x", shared / ".tmp-4194304-1-x"
    living.touch()
    dead.touch()
    publish.recover(cache, keep=2)
    assert living.exists()
    assert not dead.exists()


def stage_names(cache):
    stage = cache / ".build" / "stage"
    return sorted(name for name in os.listdir(stage) if not name.startswith(".tmp-")) if stage.exists() else []


def test_recovery_removes_a_stage_that_its_build_did_not_publish(cache):
    generation = build(cache, 1)
    build(cache, 2)
    generations.rolled_back(cache)
    publish.recover(cache, keep=2)
    assert stage_names(cache) == []
    assert generation.exists()


def test_rollback_publishes_the_previous_files_under_a_higher_counter(cache):
    first = build(cache, 1)
    build(cache, 2)
    old, old_index = generations.read_manifest(first), (first / INDEX).read_bytes()
    current = publish.commit(cache, generations.rolled_back(cache), keep=3)
    new = generations.read_manifest(current)
    assert (current / INDEX).read_bytes() == old_index
    assert new.build.counter == 3
    assert new._replace(build=old.build) == old
    assert faults_in(current) == []


def test_rollback_to_a_chosen_generation(cache):
    for revision in (1, 2, 3):
        build(cache, revision, keep=3)
    wanted = (cache / "generations" / "000001" / INDEX).read_bytes()
    staged = generations.rolled_back(cache, to=1)
    assert (staged / INDEX).read_bytes() == wanted
    assert os.path.samefile(staged / INDEX, cache / "generations" / "000001" / INDEX), "its bytes are shared"


@pytest.mark.parametrize(
    ("to", "said"), [(None, "there is no earlier generation to return to"), (7, "generation 7 is not kept")]
)
def test_rollback_where_nothing_is_current_says_what_is_kept(cache, to, said):
    build(cache, 1)
    build(cache, 2)
    (cache / "current").unlink()
    with pytest.raises(FilesystemError) as caught:
        generations.rolled_back(cache, to=to)
    assert str(caught.value) == (
        f"{said}\n"
        f"  file:         {cache / 'generations'}\n"
        "  key:          publish.keep_generations\n"
        "  current:      0\n"
        "  kept besides: 1, 2\n"
        "  next step:    restore in flight.toml and its inputs what the earlier flight had, then run doit"
    )


@pytest.mark.parametrize("to", [None, 1, 7])
def test_rollback_without_such_a_generation_says_what_is_kept(cache, to):
    build(cache, 1)
    with pytest.raises(FilesystemError) as caught:
        generations.rolled_back(cache, to=to)
    assert caught.value.key == "publish.keep_generations"
    assert caught.value.facts == {"current": 1, "kept besides": "none"}


def test_rollback_refuses_files_that_changed(cache):
    first = build(cache, 1)
    build(cache, 2)
    (first / ENGINE).chmod(0o644)
    (first / ENGINE).write_bytes(b"another engine")
    with pytest.raises(FilesystemError) as caught:
        generations.rolled_back(cache)
    expected = generations.read_manifest(first).engines[0].sha256
    assert str(caught.value) == (
        "a file changed after it was made\n"
        f"  file:             {first / ENGINE}\n"
        f"  expected SHA-256: {expected}\n"
        f"  found:            {sha256_file(first / ENGINE)}\n"
        "  next step:        run doit again: what is damaged is made anew"
    )


@pytest.fixture
def flight(tmp_path):
    """The configuration of a real cache directory with two published generations, signed by its key."""
    return crashing.world_of_two_generations(tmp_path / "world")


def roll_back(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    rollback_command.arguments(parser)
    return rollback_command.run(parser.parse_args(words))


def test_the_rollback_command_publishes_what_the_verifier_accepts(flight, capsys):
    assert roll_back(str(flight.root)) == 0
    assert capsys.readouterr().out == "current is generations/000003: the files of 000001, signed anew\n"
    assert crashing.whole(flight.root) == []


def test_the_rollback_command_refuses_an_earlier_generation_that_was_tampered_with(flight):
    index = flight.root / "generations" / "000001" / "corpus.index"
    index.chmod(0o644)
    index.write_bytes(index.read_bytes()[::-1])
    with pytest.raises(VerificationError):
        roll_back(str(flight.root))
    assert os.readlink(flight.root / "current") == "generations/000002"


def test_the_rollback_command_refuses_an_earlier_generation_of_an_unknown_key(flight):
    signature = flight.root / "generations" / "000001" / "Manifest.json.sig"
    signature.chmod(0o644)
    signature.write_bytes(caches.KEY.sign((signature.parent / "Manifest.json").read_bytes()))
    with pytest.raises(VerificationError):
        roll_back(str(flight.root))
    assert stage_names(flight.root) == []
